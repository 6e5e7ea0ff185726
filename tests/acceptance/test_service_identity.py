"""Identity and policy of a real server. The test acts as the sidecar: it connects from where the settings say, and
writes the header as Envoy does.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from whispr.scheduling.v1.operations_service_pb2 import GetStatusRequest, ListAuditEntriesRequest
from whispr.scheduling.v1.scheduling_service_pb2 import CreateJobRequest, GetJobRequest, ListJobsRequest

from tests.support.processes import environment, start_server
from tests.support.service import Service, eventually, metrics, refused, send_job, service

MESH = "spiffe://cluster.local/ns/whispr/sa"
OWN, MESSAGING = f"{MESH}/scheduling-service", f"{MESH}/messaging-service"
MEDIA, OPERATOR = f"{MESH}/media-service", f"{MESH}/operator"
EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "policy.toml"


def told(*principals: str, by: str = OWN) -> dict[str, Any]:
    """The header as it arrives when the sidecar appends the last of these to what was sent."""
    elements = [f'By={by};Hash=4{len(each)};Subject="";URI={each}' for each in principals]
    return {"metadata": (("x-forwarded-client-cert", ",".join(elements)),)}


@pytest.fixture
def meshed(tmp_path: Path, database_url: str, environment: str) -> Iterator[Service]:
    """A server with mesh identity and the example policy; no worker."""
    policy = tmp_path / "policy.toml"
    shutil.copy(EXAMPLE, policy)
    settings = {"identity": "mesh", "identity_trusted": "127.0.0.1", "policy_file": str(policy)}
    with service(tmp_path, database_url, None, environment, metrics_listen="127.0.0.1:0", **settings) as made:
        made.start_server()
        made.connect()
        eventually(made.api.is_serving, bool)
        yield made


def test_the_principal_is_the_one_that_the_sidecar_saw_whatever_stands_before(meshed: Service) -> None:
    scheduling = meshed.api.scheduling
    request = CreateJobRequest(job_id="mine", job=send_job())
    assert refused(scheduling.CreateJob, request).reason == "NO_IDENTITY"
    assert refused(scheduling.CreateJob, request, **told(OPERATOR, by=MEDIA)).reason == "FOREIGN_IDENTITY"
    broken = refused(scheduling.CreateJob, request, metadata=(("x-forwarded-client-cert", 'By="'),))
    assert (broken.code, broken.reason) == ("UNAUTHENTICATED", "MALFORMED_IDENTITY")
    job = scheduling.CreateJob(request, **told(OPERATOR, MESSAGING))
    assert (job.principal, job.owner) == (MESSAGING, MESSAGING)


def test_others_see_nothing_of_a_job_and_operators_read_who_tried(meshed: Service) -> None:
    scheduling, operations = meshed.api.scheduling, meshed.api.operations
    job = scheduling.CreateJob(CreateJobRequest(job=send_job()), **told(MESSAGING))
    hidden = refused(scheduling.GetJob, GetJobRequest(name=job.name), **told(MEDIA))
    missing = refused(scheduling.GetJob, GetJobRequest(name="jobs/nobodys"), **told(MEDIA))
    assert (hidden.code, hidden.reason) == ("PERMISSION_DENIED", "JOB_NOT_GRANTED")
    assert (missing.code, missing.message) == (hidden.code, hidden.message.replace(job.name, "jobs/nobodys"))
    assert list(scheduling.ListJobs(ListJobsRequest(), **told(MEDIA)).jobs) == []
    assert [each.name for each in scheduling.ListJobs(ListJobsRequest(), **told(OPERATOR)).jobs] == [job.name]
    wrong = refused(scheduling.CreateJob, CreateJobRequest(job=send_job()), **told(MEDIA))
    assert wrong.details["ErrorInfo"].metadata["target"] == job.target
    stolen = refused(scheduling.CreateJob, CreateJobRequest(job=send_job(owner=MEDIA)), **told(MESSAGING))
    assert stolen.reason == "OWNER_NOT_GRANTED"
    audit = eventually(
        lambda: operations.ListAuditEntries(ListAuditEntriesRequest(filter="outcome = REFUSED"), **told(OPERATOR)),
        lambda page: len(page.entries) == 4,
    )
    assert {(each.principal, each.reason) for each in audit.entries} == {
        (MEDIA, "JOB_NOT_GRANTED"),
        (MEDIA, "TARGET_NOT_GRANTED"),
        (MESSAGING, "OWNER_NOT_GRANTED"),
    }
    assert (
        refused(operations.ListAuditEntries, ListAuditEntriesRequest(), **told(MESSAGING)).code == "PERMISSION_DENIED"
    )


def test_a_changed_policy_is_taken_up_and_a_wrong_one_is_told(meshed: Service) -> None:
    policy = meshed.folder / "policy.toml"
    example = policy.read_text()
    policy.write_text(example + '\n[[grants]]\nprincipals = ["nobody"]\nrpcs = ["GetJobs"]\n')

    def status() -> list[str]:
        return list(meshed.api.operations.GetStatus(GetStatusRequest(), **told(OPERATOR)).degraded_modes)

    eventually(status, lambda modes: "POLICY_STALE" in modes)
    assert metrics(meshed.server)["policy_stale"] == 1
    policy.write_text(f'[[grants]]\nprincipals = ["{MEDIA}"]\nrpcs = ["GetStatus"]\n')
    get = meshed.api.operations.GetStatus
    eventually(lambda: _code(get, MESSAGING) + _code(get, MEDIA), lambda codes: codes == "PERMISSION_DENIED" + "OK")


def _code(call: Any, principal: str) -> str:
    try:
        return refused(call, GetStatusRequest(), **told(principal)).code
    except AssertionError:
        return "OK"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"grpc_listen": "0.0.0.0:0"}, ["SCHEDULING_GRPC_LISTEN", "identity_exposed"]),
        ({"identity": "mesh"}, ["SCHEDULING_POLICY_FILE"]),
        ({"policy_file": "wrong.toml"}, ["grants[0].rpcs", "grants[0].principals", "GetJob?"]),
    ],
)
def test_a_server_that_would_be_open_or_has_a_wrong_policy_does_not_start(
    tmp_path: Path, database_url: str, settings: dict[str, str], expected: list[str]
) -> None:
    (tmp_path / "wrong.toml").write_text('[[grants]]\nprincipals = ["nobody"]\nrpcs = ["GetJobs"]\n')
    if "policy_file" in settings:
        settings = {"policy_file": str(tmp_path / "wrong.toml")}
    server = start_server(environment(database_url=database_url, **settings), tmp_path, "server")
    with server:
        assert eventually(lambda: server.code, lambda code: code is not None, 120.0) == 2
        assert all(each in server.log for each in expected), server.log
