"""The policy: what grants allow, that two never add up, what is wrong with a file, and that a change is taken up."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduling.app import rpc_method_names
from scheduling.delivery.targets import TargetTable
from scheduling.domain.errors import NotFound, PermissionDenied
from scheduling.domain.policy import CALLING, EVERYTHING, KEPT_BYTES, Access, Globs, Policy, is_raised
from scheduling.domain.target import Queue
from scheduling.operations.policy_file import PolicyError, PolicyFile, parse_policy
from scheduling.rpc import operations_servicer, scheduling_servicer

RPCS = [
    name.rpartition(".")[2]
    for name in rpc_method_names([scheduling_servicer.SERVICE_NAME, operations_servicer.SERVICE_NAME])
]
TARGETS = [target.method for target in TargetTable()]
MESH = "spiffe://cluster.local/ns/whispr/sa"
A, B, OPERATOR = f"{MESH}/a", f"{MESH}/b", f"{MESH}/operator"
SEND = "messaging.MessagingService/SendScheduledMessage"
CLEAN = "messaging.MessagingService/CleanupExpiredMessages"
EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "policy.toml"


def policy(text: str) -> Policy:
    return parse_policy(text, RPCS, TARGETS)


def grant(**fields: Any) -> str:
    def written(value: Any) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        return repr(value).replace("'", '"')

    values: dict[str, Any] = {"principals": [A], "rpcs": ["CreateJob"], "targets": ["*"]} | fields
    return "[[grants]]\n" + "".join(f"{key} = {written(value)}\n" for key, value in values.items())


def access(text: str, principal: str = A, rpc: str = "CreateJob") -> Access:
    return policy(text).access(principal, f"SchedulingService/{rpc}")


def reason(check: Any, *arguments: Any, **options: Any) -> str:
    try:
        check(*arguments, **options)
    except PermissionDenied as error:
        refusal = error
    else:
        return ""
    assert {"principal", "rpc", "missing", refusal.metadata["missing"]} <= set(refusal.metadata)
    return refusal.reason


def problems(text: str) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        policy(text)
    return list(caught.value.problems)


def test_what_no_grant_names_is_refused() -> None:
    text = grant(rpcs=["Get*", "OperationsService/List*"])
    assert reason(access(text, A, "GetJob").check_call) == ""
    assert reason(access(text, A, "CreateJob").check_call) == "RPC_NOT_GRANTED"
    assert reason(access(text, B, "GetJob").check_call) == "RPC_NOT_GRANTED"
    assert reason(policy(text).access(A, "OperationsService/ListQueues").check_call) == ""
    assert reason(policy(text).access(A, "SchedulingService/ListJobs").check_call) == "RPC_NOT_GRANTED"


def test_a_job_needs_target_and_owner_of_one_and_the_same_grant() -> None:
    text = grant(targets=[SEND], owners=["user-*"]) + grant(targets=[CLEAN], owners=["tenant-*"], raise_queue=True)
    check = access(text).check_new
    assert reason(check, SEND, "user-1", raises=False) == ""
    assert reason(check, CLEAN, "tenant-1", raises=True) == ""
    assert reason(check, SEND, "tenant-1", raises=False) == "OWNER_NOT_GRANTED"
    assert reason(check, CLEAN, "user-1", raises=False) == "OWNER_NOT_GRANTED"
    assert reason(check, SEND, "user-1", raises=True) == "QUEUE_NOT_GRANTED"
    assert reason(check, "media.MediaService/OptimizeStorage", A, raises=False) == "TARGET_NOT_GRANTED"


def test_the_rpc_of_one_grant_does_not_go_with_the_targets_of_another() -> None:
    text = grant(rpcs=["RunJob"], targets=[SEND]) + grant(rpcs=["CreateJob"], targets=[CLEAN])
    assert reason(access(text, rpc="RunJob").check_job, "jobs/x", A, CLEAN, A) == "TARGET_NOT_GRANTED"
    assert reason(access(text, rpc="RunJob").check_job, "jobs/x", A, SEND, A) == ""


def test_the_reach_of_one_grant_does_not_go_with_the_targets_of_another() -> None:
    text = grant(rpcs=["RunJob"], targets=[SEND], jobs="all", owners=["*"]) + grant(rpcs=["RunJob"], owners=["*"])
    check = access(text, rpc="RunJob").check_job
    assert reason(check, "jobs/x", B, SEND, "user-1") == ""
    assert reason(check, "jobs/x", A, CLEAN, "user-1") == ""
    assert reason(check, "jobs/x", B, CLEAN, "user-1") == "TARGET_NOT_GRANTED"


def test_filters_that_bring_calls_about_reach_others_by_grants_for_all_targets_only() -> None:
    def reached(text: str) -> Any:
        return access(text, rpc="RunJob").principals_in_bulk

    everyone = ["*", "spiffe://*"]
    assert reached(grant(rpcs=["RunJob"], targets=[SEND], owners=everyone, jobs="all")) == frozenset({A})
    assert reached(grant(rpcs=["RunJob"], targets=["*"], owners=["*"], jobs=[B])) == frozenset({A})
    assert reached(grant(rpcs=["RunJob"], targets=["*"], owners=everyone, jobs=[B])) == frozenset({A, B})
    narrow = grant(rpcs=["RunJob"], targets=[SEND], owners=everyone, jobs="all")
    assert reached(narrow + grant(rpcs=["RunJob"], owners=everyone)) == frozenset({A})
    assert reached(grant(rpcs=["RunJob"], targets=["*"], owners=everyone, jobs="all")) is None


def test_any_owner_does_not_mean_the_identities_of_services() -> None:
    check = access(grant(owners=["*"])).check_new
    assert reason(check, SEND, "user-1", raises=False) == ""
    assert reason(check, SEND, A, raises=False) == ""
    for owner in (B, "spiffe://", "SPIFFE://x/y"):
        assert reason(check, SEND, owner, raises=False) == "OWNER_NOT_GRANTED"
    assert reason(access(grant(owners=["*", B])).check_new, SEND, B, raises=False) == ""
    assert reason(access(grant(owners=["spiffe://*"])).check_new, SEND, B, raises=False) == ""
    assert reason(access(grant(owners=["spiffe://*"])).check_new, SEND, "user-1", raises=False) == "OWNER_NOT_GRANTED"


def test_without_owners_a_service_acts_for_itself_alone() -> None:
    check = access(grant()).check_new
    assert reason(check, SEND, A, raises=False) == ""
    assert reason(check, SEND, "user-1", raises=False) == "OWNER_NOT_GRANTED"


@pytest.mark.parametrize(
    ("jobs", "principals"), [("own", {A}), ([B], {A, B}), ([OPERATOR, B], {A, B, OPERATOR}), ("all", None)]
)
def test_jobs_are_ones_own_those_of_named_principals_or_everybodys(jobs: Any, principals: Any) -> None:
    seen = access(grant(rpcs=["GetJob"], jobs=jobs), rpc="GetJob")
    assert seen.principals == principals
    for other in (A, B, OPERATOR):
        allowed = principals is None or other in principals
        assert reason(seen.check_job, "jobs/x", other, SEND, "o") == ("" if allowed else "JOB_NOT_GRANTED")


def test_a_job_that_is_not_there_is_answered_like_one_that_may_not_be_seen() -> None:
    missing = NotFound("Job", "jobs/x")
    own = access(grant(rpcs=["GetJob"]), rpc="GetJob")
    with pytest.raises(PermissionDenied) as hidden:
        own.check_job("jobs/x", B, SEND, B)
    answer = own.missing(missing)
    assert isinstance(answer, PermissionDenied)
    assert (answer.message, answer.metadata) == (hidden.value.message, hidden.value.metadata)
    assert access(grant(rpcs=["GetJob"], jobs="all"), rpc="GetJob").missing(missing) is missing


def test_a_star_alone_means_every_principal_and_never_stands_among_others() -> None:
    assert reason(access(grant(principals="*"), f"{MESH}/anyone").check_call) == ""
    assert problems(grant(principals=["*"])) == ["grants[0].principals: '*' is not in [principals]"]
    assert problems(grant(principals=[A, "*"]))


def test_principals_have_names() -> None:
    text = f'[principals]\nmine = "{A}"\nother = "{B}"\n' + grant(principals=["mine"], rpcs=["GetJob"], jobs=["other"])
    assert access(text, rpc="GetJob").principals == frozenset({A, B})


def test_all_that_is_wrong_is_told_together() -> None:
    text = f"""
version = 1
[principals]
messaging = "{A}"
media = "media-service"
[[grants]]
principals = ["mesaging"]
rpcs = ["CreateJobs", "Get*", "List?"]
targets = ["messaging.MessagingService/SendSchedule", "nobody/*"]
owners = []
job = "all"
jobs = "mine"
raise_queue = "yes"
[[grants]]
rpcs = ["CreateJob"]
principals = []
"""
    told = problems(text)
    assert [each.partition(": ")[0] for each in told] == [
        "version",
        "principals.media",
        "grants[0].job",
        "grants[0].rpcs",
        "grants[0].rpcs",
        "grants[0].targets",
        "grants[0].targets",
        "grants[0].jobs",
        "grants[0].raise_queue",
        "grants[0].principals",
        "grants[0].owners",
        "grants[1].targets",
        "grants[1].principals",
    ]
    assert "did you mean CreateJob?" in "".join(told)
    assert "did you mean messaging?" in "".join(told)


@pytest.mark.parametrize("text", ["", "grants = 1", "grants = []", "[[grants]]", "[grants", "principals = 1", "\0"])
def test_what_is_no_policy_is_refused(text: str) -> None:
    assert problems(text)


@given(st.text())
def test_no_text_fails_in_another_way(text: str) -> None:
    with contextlib.suppress(PolicyError):
        policy(text)


def test_the_example_of_the_documents_is_right_and_means_what_it_says() -> None:
    example = policy(EXAMPLE.read_text())
    messaging, media = f"{MESH}/messaging-service", f"{MESH}/media-service"
    create = example.access(messaging, "SchedulingService/CreateJob")
    assert reason(create.check_new, SEND, "user-1", raises=False) == ""
    assert reason(create.check_new, SEND, media, raises=False) == "OWNER_NOT_GRANTED"
    assert reason(create.check_new, "media.MediaService/OptimizeStorage", messaging, raises=False) != ""
    assert example.access(messaging, "SchedulingService/ListJobs").principals == frozenset({messaging})
    for rpc in RPCS:
        operator = example.access(OPERATOR, rpc)
        assert reason(operator.check_call) == ""
        assert operator.sees_all
    assert reason(example.access(f"{MESH}/nobody", "SchedulingService/GetJob").check_call) == "RPC_NOT_GRANTED"


def test_without_a_policy_everything_is_allowed() -> None:
    EVERYTHING.check_call()
    EVERYTHING.check_new(SEND, B, raises=True)
    EVERYTHING.check_job("jobs/x", B, SEND, "user-1", raises=True)
    assert EVERYTHING.sees_all


def test_only_a_queue_above_the_methods_own_is_raised() -> None:
    assert is_raised(Queue.HIGH, Queue.MEDIUM)
    assert not is_raised(Queue.LOW, Queue.MEDIUM)
    assert not is_raised(Queue.LOW, Queue.LOW)
    assert not is_raised(None, Queue.LOW)


def test_patterns_match_whole_names() -> None:
    globs = Globs(["a*c", "x.y", "*z"])
    assert all(each in globs for each in ("ac", "a/b/c", "x.y", "z", "a\nc"))
    assert not any(each in globs for each in ("acd", "xay", "x.y.", "", 3))
    assert "anything" not in Globs(())


def test_what_is_kept_of_principals_is_bounded() -> None:
    many = policy(grant(principals="*", rpcs=["GetJob"]))
    for number in range(1000):
        name = f"{MESH}/{number:x<2000}"
        assert many.access(name, "SchedulingService/GetJob").principals == frozenset({name})
    assert 0 < many._known.weight <= KEPT_BYTES


def test_the_rpcs_that_bring_calls_about_are_methods_of_the_api() -> None:
    known = {rpc.rpartition("/")[2] for rpc in RPCS}
    assert {"CreateJob", "RunJob", "UpdateJob"} <= CALLING & known


def test_a_changed_file_is_taken_up_and_a_wrong_one_is_not(tmp_path: Path) -> None:
    path, told = tmp_path / "policy.toml", list[bool]()
    path.write_text(grant(rpcs=["GetJob"]))
    file = PolicyFile(path, RPCS, TARGETS, told.append)

    def write(text: str | None, moment: int) -> None:
        if text is None:
            path.unlink()
        else:
            path.write_text(text)
            os.utime(path, (moment, moment))
        asyncio.run(file.tick())

    def may(rpc: str) -> bool:
        return reason(file.access(A, f"SchedulingService/{rpc}").check_call) == ""

    assert (may("GetJob"), may("ListJobs"), file.stale) == (True, False, False)
    write(grant(rpcs=["ListJobs"]), 1000)
    assert (may("GetJob"), may("ListJobs"), file.stale) == (False, True, False)
    write(grant(rpcs=["Nonsense"]), 2000)
    assert (may("GetJob"), may("ListJobs"), file.stale) == (False, True, True)
    write(None, 0)
    assert (may("ListJobs"), file.stale) == (True, True)
    write(grant(rpcs=["GetJob"]), 3000)
    assert (may("GetJob"), may("ListJobs"), file.stale) == (True, False, False)
    assert told == [False, False, True, True, False]


def test_a_file_that_is_wrong_or_not_there_is_no_policy(tmp_path: Path) -> None:
    for content in (None, b"\xff", b"#" * 2_000_000, b"[[grants]]"):
        path = tmp_path / "policy.toml"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(PolicyError):
            PolicyFile(path, RPCS, TARGETS)
