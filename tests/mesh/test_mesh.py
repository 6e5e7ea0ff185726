"""The service between real Envoys: who gets through, who does not, and what the scheduler makes of what it is told.

Each case leaves a row in the table of docs/mesh.md.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf import duration_pb2
from google.protobuf.message import Message
from whispr.scheduling.v1.execution_pb2 import Execution
from whispr.scheduling.v1.job_pb2 import Job
from whispr.scheduling.v1.operations_service_pb2 import GetStatusRequest
from whispr.scheduling.v1.scheduling_service_pb2 import GetJobRequest
from whispr.siblings import (
    auth_pb2,
    content_pb2,
    matching_pb2,
    media_pb2,
    messaging_pb2,
    moderation_pb2,
    notification_pb2,
    user_pb2,
)

from scheduling.delivery.channels import Channels
from scheduling.delivery.targets import TargetTable
from tests.support.builders import SEND, send_request
from tests.support.mesh.certificates import Authority, SecretFiles, spiffe
from tests.support.mesh.room import API, Room, room, stopped
from tests.support.mesh.table import Table
from tests.support.run import run
from tests.support.servers import Databases
from tests.support.service import Api, after, at, create_request, eventually, packed, retries, send_job, utc_now

#: The first case waits for ten processes to start.
pytestmark = pytest.mark.timeout(300)

MESSAGING = spiffe("messaging-service")
TERMINATED = "upstream connect error or disconnect/reset before headers. reset reason: connection termination"
WEEK = duration_pb2.Duration(seconds=7 * 86400)
#: A target of each sibling and a valid request for it.
REQUESTS: dict[str, Message] = {
    "auth.AuthService/RotateTokens": auth_pb2.RotateTokensRequest(kinds=[auth_pb2.TOKEN_KIND_SIGNING_KEY]),
    "content.ContentService/CleanupCaches": content_pb2.CleanupCachesRequest(older_than=WEEK),
    "matching.MatchingService/GenerateDailySelection": matching_pb2.GenerateDailySelectionRequest(user_id="user-1"),
    "media.MediaService/OptimizeStorage": media_pb2.OptimizeStorageRequest(older_than=WEEK),
    "messaging.MessagingService/CleanupExpiredMessages": messaging_pb2.CleanupExpiredMessagesRequest(older_than=WEEK),
    "moderation.ModerationService/AnalyzeContent": moderation_pb2.AnalyzeContentRequest(analysis_id="analysis-1"),
    "notification.NotificationService/SendDelayedNotification": notification_pb2.SendDelayedNotificationRequest(
        notification_id="notification-1",
        user_id="user-1",
        kind=notification_pb2.NOTIFICATION_KIND_REMINDER,
        title="Hi",
    ),
    "user.UserService/ResetDailyQuotas": user_pb2.ResetDailyQuotasRequest(kinds=[user_pb2.QUOTA_KIND_MESSAGES]),
}


@pytest.fixture(scope="module")
def mesh(database_server: Databases, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    """Everything, for all cases."""
    url = database_server.migrated()
    folder = tmp_path_factory.mktemp("mesh")
    with room(folder, url, redis_url, "mesh") as made:
        yield made
    database_server.drop(url)


@pytest.fixture(scope="module")
def table() -> Table:
    """The rows that the cases leave."""
    return Table()


def create(api: Api, **fields: Any) -> tuple[str, str, Job | None]:
    """Code, message and job of a creation."""
    try:
        return "OK", "", api.create(create_request(**fields))
    except grpc.RpcError as error:
        seen: Any = error
        return seen.code().name, seen.details(), None


def job(service: str, attempts: int = 1, timeout: float = 30) -> Job:
    """A job that calls the target of a sibling."""
    target = next(each for each in REQUESTS if each.startswith(f"{service}."))
    made = Job(
        target=target, request=packed(REQUESTS[target]), retry_policy=retries(attempts, timedelta(milliseconds=100))
    )
    made.timeout.FromTimedelta(timedelta(seconds=timeout))
    return made


def due(mesh: Room, made: Job) -> str:
    """The name of a job that is due now."""
    return mesh.api().create(create_request(job=made, schedule=after())).name


def attempts(execution: Execution) -> list[tuple[str, str, bool, str]]:
    """Code, message, whether it counted and reason of each attempt."""
    names = {code.value[0]: code.name for code in grpc.StatusCode}
    return [(names[each.status.code], each.status.message, each.counted, each.reason) for each in execution.attempts]


# --- calls to the service ---------------------------------------------------------------------------------------------


def test_an_allowed_call_gets_through_and_what_it_asks_for_reaches_the_sibling(mesh: Room, table: Table) -> None:
    code, message, made = create(mesh.api(), message_id="allowed", schedule=after())
    assert made is not None
    assert made.principal == MESSAGING
    done = mesh.api().wait(made.name)
    (call,) = eventually(lambda: mesh.service.received(id="allowed"), bool)
    assert call["idempotency_key"]
    table.add("calls to us", "allowed principal and method; the sibling is called through mutual TLS", code, message)
    assert attempts(done) == [("OK", "", True, "")]


@pytest.mark.parametrize(
    ("caller", "case", "expected", "words"),
    [
        ("intruder", "another principal of the mesh", "PERMISSION_DENIED", "RBAC: access denied"),
        ("gateway", "`api-gateway` outside of `/api/v1/`", "PERMISSION_DENIED", "RBAC: access denied"),
        ("anonymous", "TLS without a certificate", "UNAVAILABLE", TERMINATED),
        ("plaintext", "plaintext", "UNAVAILABLE", TERMINATED),
        ("foreign", "the right name in a foreign trust domain", "UNAVAILABLE", TERMINATED),
        ("other-authority", "the right name, signed by another authority", "UNAVAILABLE", TERMINATED),
        ("expired", "a certificate that has expired", "UNAVAILABLE", TERMINATED),
    ],
)
def test_who_is_not_meant_to_call_is_refused_before_the_service(
    mesh: Room, table: Table, caller: str, case: str, expected: str, words: str
) -> None:
    before = mesh.service.count()
    code, message, _ = create(mesh.api(caller), message_id=caller)
    assert code == expected
    # Whether a connection was refused before or while the request was sent is the kernel's to say.
    table.add("calls to us", case, code, message, varies=expected == "UNAVAILABLE")
    assert mesh.service.count() == before
    if expected == "PERMISSION_DENIED":
        assert message == words


def test_an_allowed_principal_may_not_call_other_methods(mesh: Room, table: Table) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        mesh.api().operations.GetStatus(GetStatusRequest())
    seen: Any = refused.value
    assert mesh.api("operator").operations.GetStatus(GetStatusRequest()).workers
    table.add("calls to us", "an allowed principal, another method", seen.code().name, seen.details())


def _forged(uri: str, by: str = spiffe(API.account)) -> str:
    return f'By={by};Hash={"0" * 64};Subject="";URI={uri}'


OPERATOR = spiffe("operator")


@pytest.mark.parametrize(
    ("case", "header"),
    [
        ("one element", [_forged(OPERATOR)]),
        ("several elements", [f"{_forged(OPERATOR)},{_forged(spiffe('user-service'))}"]),
        ("several headers", [_forged(OPERATOR), _forged(OPERATOR)]),
        ("a separator inside quotes", [f'Subject="x,By={spiffe(API.account)};URI={OPERATOR}"']),
        ("the service's own name", [_forged(spiffe(API.account), MESSAGING)]),
    ],
)
@pytest.mark.parametrize(("caller", "kind"), [("forger", "appending"), ("forger-sanitised", "sanitising")])
def test_a_forged_header_never_changes_the_principal(
    mesh: Room, table: Table, caller: str, kind: str, case: str, header: list[str]
) -> None:
    asked = create_request(f"forged-{kind}-{case}")
    metadata = [("x-forwarded-client-cert", each) for each in header]
    made = mesh.api(caller).scheduling.CreateJob(asked, metadata=metadata)
    assert made.principal == MESSAGING
    table.add("calls to us", f"forged `x-forwarded-client-cert`, {case}, {kind} sidecar", "OK", "principal unchanged")


@pytest.mark.parametrize("quote", ['URI="', 'Subject="x\\', "URI=", "=", ",,;"])
def test_a_header_that_would_swallow_the_sidecars_is_refused_or_has_no_effect(
    mesh: Room, table: Table, quote: str
) -> None:
    asked = create_request("forged-malformed")
    for caller in ("forger", "forger-sanitised"):
        try:
            made = mesh.api(caller).scheduling.CreateJob(asked, metadata=[("x-forwarded-client-cert", quote)])
        except grpc.RpcError as error:
            seen: Any = error
            assert caller == "forger"
            assert seen.code() is grpc.StatusCode.UNAUTHENTICATED
            if quote == 'URI="':
                case = "forged `x-forwarded-client-cert`, a quote left open, appending sidecar"
                table.add("calls to us", case, seen.code().name, seen.details())
        else:
            assert made.principal == MESSAGING


def test_a_connection_past_the_sidecar_has_no_identity(mesh: Room, table: Table) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        mesh.service.api.scheduling.CreateJob(
            create_request("past"), metadata=[("x-forwarded-client-cert", _forged(MESSAGING))]
        )
    seen: Any = refused.value
    table.add("calls to us", "past the sidecar with a forged header", seen.code().name, seen.details())


def test_more_calls_than_the_rate_limit_allows_are_refused_with_the_right_code(mesh: Room, table: Table) -> None:
    def refused() -> tuple[str, str]:
        code, message, _ = create(mesh.api("limited"), message_id="limited")
        return code, message

    code, message = eventually(refused, lambda seen: seen[0] != "OK")
    assert code == "RESOURCE_EXHAUSTED"
    table.add("calls to us", "more calls than the rate limit allows", code, message)


def test_the_callers_sidecar_repeats_what_may_be_repeated_and_nothing_else(mesh: Room, table: Table) -> None:
    api, made = mesh.api("unsteady"), mesh.api().create(create_request("steady"))

    def retries_made() -> int:
        return mesh.envoys["callers"].total("unsteady.upstream_rq_retry")

    def tries(call: Callable[[], object]) -> Iterator[str]:
        # One of two instances has gone, and either is as likely to be called.
        for _ in range(100):
            try:
                call()
            except grpc.RpcError as error:
                seen: Any = error
                yield seen.code().name
            else:
                yield "OK"

    assert "UNAVAILABLE" in tries(lambda: api.create(create_request("unsteady")))
    assert retries_made() == 0
    table.add(
        "calls to us", "one instance has gone: a change", "UNAVAILABLE", "", "not repeated by the mesh", varies=True
    )
    for count, (case, call) in enumerate(
        (
            ("a read", lambda: api.scheduling.GetJob(GetJobRequest(name=made.name))),
            (
                "a creation with the header `idempotency-key`",
                lambda: api.scheduling.CreateJob(
                    create_request("unsteady", request_id="unsteady"), metadata=[("idempotency-key", "unsteady")]
                ),
            ),
        )
    ):
        for code in tries(call):
            assert code == "OK"
            if retries_made() > count:
                break
        assert retries_made() == count + 1
        table.add("calls to us", f"one instance has gone: {case}", "OK", "", "repeated by the mesh")


# --- JSON, health, metrics --------------------------------------------------------------------------------------------


def fetch(url: str, body: dict[str, Any] | None = None) -> tuple[int, str]:
    """Status and text of an HTTP answer."""
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(url, data=data, headers={"content-type": "application/json"})
    try:
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_the_transcoder_answers_json(mesh: Room, table: Table) -> None:
    url = f"http://{mesh.address('gateway')}/api/v1/jobs"
    request = {
        "@type": "type.googleapis.com/messaging.SendScheduledMessageRequest",
        "message_id": "json",
        "conversation_id": "c",
        "sender_id": "user-1",
        "content": "Hello",
    }
    status, text = fetch(f"{url}?job_id=from-json", {"target": SEND, "request": request})
    assert status == 200, text
    assert json.loads(text)["principal"] == spiffe("api-gateway")
    status, text = fetch(f"{url}/from-json")
    assert (status, json.loads(text)["name"]) == (200, "jobs/from-json")
    table.add("JSON, health and metrics", "`api-gateway`: POST and GET `/api/v1/jobs`", "200", "JSON")
    status, text = fetch(f"{url}/nothing")
    assert status == 404
    assert json.loads(text)["code"] == 5
    table.add("JSON, health and metrics", "`api-gateway`: GET of a job that is not there", "404", "JSON with `code` 5")
    status, text = fetch(f"http://{mesh.address('intruder')}/api/v1/jobs")
    table.add("JSON, health and metrics", "another principal: GET `/api/v1/jobs`", str(status), text)
    status, text = fetch(f"http://{mesh.address('messaging')}/api/v1/jobs")
    assert status == 403


def test_the_kubelet_and_prometheus_reach_what_they_need(mesh: Room, table: Table) -> None:
    section = "JSON, health and metrics"
    # The agent beside the sidecar asks on the kubelet's behalf, without TLS and from within the pod.
    assert mesh.service.api.is_serving()
    table.add(section, "probe without TLS from within the pod", "OK", "SERVING")
    status, text = fetch(f"http://{mesh.address('prometheus')}/metrics")
    assert status == 200
    assert "whispr_scheduling_" in text
    table.add(section, "Prometheus with its certificate: `/metrics`", "200", "")
    status, text = fetch(f"http://{mesh.address('scraper')}/metrics")
    table.add(section, "another principal: `/metrics`", str(status), text)
    status, text = fetch(f"http://{mesh.address('prometheus')}/healthz")
    table.add(section, "Prometheus: any other path", str(status), text)
    plain = mesh.envoys["server"].address("metrics-plain")
    status, _ = fetch(f"http://{plain}/metrics")
    table.add(section, "`istio.prometheus.mtls: false`: `/metrics` without TLS", str(status), "")
    status, text = fetch(f"http://{plain}/healthz")
    table.add(section, "`istio.prometheus.mtls: false`: any other path without TLS", str(status), text)
    with pytest.raises((OSError, urllib.error.URLError)):
        fetch(f"http://{mesh.envoys['server'].address('metrics')}/metrics")
    table.add(section, "`/metrics` without TLS otherwise", "-", "connection closed")


# --- calls of the scheduler -------------------------------------------------------------------------------------------


def test_a_target_that_does_not_know_the_caller_refuses_for_good(mesh: Room, table: Table) -> None:
    done = mesh.api().wait(due(mesh, job("content", 3)), "FAILED")
    ((code, message, counted, _),) = attempts(done)
    assert (code, counted, done.reason) == ("PERMISSION_DENIED", True, "PERMANENT")
    table.add("calls of the scheduler", "refused by the target's policy", code, message, "counts; FAILED at once")


@pytest.mark.parametrize(
    ("service", "timeout", "case"), [("auth", 30, "timeout of the route"), ("messaging", 1, "deadline of the call")]
)
def test_a_call_that_lasts_too_long_counts_as_sent(
    mesh: Room, table: Table, service: str, timeout: float, case: str
) -> None:
    done = mesh.api().wait(due(mesh, job(service, timeout=timeout)), "FAILED")
    ((code, message, counted, _),) = attempts(done)
    # Both sidecars and the worker have timers that end together; each has its own words.
    assert code in ("DEADLINE_EXCEEDED", "UNAVAILABLE")
    assert (counted, done.reason) == (True, "ATTEMPTS_EXHAUSTED")
    either = "DEADLINE_EXCEEDED or UNAVAILABLE"
    table.add("calls of the scheduler", case, either, message, "counts; tried again", varies=True)


def test_a_rate_limit_of_the_target_is_seen_as_one(mesh: Room, table: Table) -> None:
    names = [due(mesh, job("user", 2)) for _ in range(2)]
    states = ("SUCCEEDED", "FAILED")
    done = [mesh.api().wait(name, *states) for name in names]
    (lost,) = [each for each in done if each.state == Execution.FAILED]
    assert lost.reason == "ATTEMPTS_EXHAUSTED"
    assert {(code, counted) for code, _, counted, _ in attempts(lost)} == {("RESOURCE_EXHAUSTED", True)}
    code, message, _, _ = attempts(lost)[0]
    table.add("calls of the scheduler", "rate limit of the target", code, message, "counts; tried again")


@pytest.mark.parametrize(
    ("service", "case"),
    [("moderation", "nobody listens"), ("matching", "the target proves another identity")],
)
def test_a_call_that_reaches_nobody_costs_no_attempt(mesh: Room, table: Table, service: str, case: str) -> None:
    name = due(mesh, job(service))
    tried = eventually(lambda: mesh.api().executions(name), lambda them: bool(them and len(them[0].attempts) > 1))
    seen = mesh.api().execution(tried[0].name)
    code, message, _, _ = attempts(seen)[0]
    assert {(counted, reason) for _, _, counted, reason in attempts(seen)} == {(False, "NOT_CONNECTED")}
    table.add("calls of the scheduler", case, code, message, "does not count; tried again", varies=True)


def test_a_full_pool_is_seen_as_one_and_costs_no_attempt(mesh: Room, table: Table) -> None:
    with stopped(mesh.envoys["media"]):
        names = [due(mesh, job("media", timeout=300)) for _ in range(6)]

        def refused() -> list[Execution]:
            found = [mesh.api().executions(name) for name in names]
            return [each for (each,) in found if each.attempts]

        # Two wait for a connection, which is what the pool holds.
        overflowed = eventually(refused, lambda them: len(them) >= 4)
        code, message, _, _ = attempts(overflowed[0])[0]
    done = [mesh.api().wait(name) for name in names]
    told = [each for execution in done for each in attempts(execution)]
    assert {(counted, reason) for code, _, counted, reason in told if code != "OK"} == {(False, "POOL_OVERFLOW")}
    assert sum(code == "OK" for code, *_ in told) == 6
    table.add(
        "calls of the scheduler", "more calls waiting than the pool holds", code, message, "does not count; tried again"
    )


def test_a_host_that_fails_is_ejected_after_three_errors(mesh: Room, table: Table) -> None:
    def ejections() -> int:
        return mesh.envoys["worker"].total("notification.outlier_detection.ejections_enforced_total")

    for _ in range(60):
        mesh.api().wait(due(mesh, job("notification", 6)))
        if ejections():
            break
    assert ejections() == 1
    assert len(eventually(mesh.bad_calls, lambda them: len(them) >= 3)) == 3
    for done in [mesh.api().wait(due(mesh, job("notification", 6))) for _ in range(5)]:
        assert attempts(done) == [("OK", "", True, "")]
    row = "one of two hosts answers UNAVAILABLE three times"
    table.add("calls of the scheduler", row, "UNAVAILABLE", "", "each counts; ejected, all further calls succeed")


@pytest.mark.parametrize(
    ("listener", "case", "reason"),
    [
        ("messaging-nobody", "no host is left", "NOT_CONNECTED"),
        ("messaging-empty", "the target's own sidecar reaches nobody", ""),
    ],
)
def test_only_what_our_own_sidecar_says_proves_that_nothing_was_sent(
    mesh: Room, table: Table, targets: TargetTable, listener: str, case: str, reason: str
) -> None:
    async def scenario() -> None:
        channels = Channels(targets, {"messaging": mesh.envoys["worker"].address(listener)})
        answer = await channels.call(SEND, send_request(), timedelta(seconds=30), ())
        await channels.close()
        assert (answer.code.name, answer.unsent) == ("UNAVAILABLE", reason)
        follows = "does not count; tried again" if reason else "counts; tried again"
        table.add("calls of the scheduler", case, answer.code.name, answer.message, follows)

    run(scenario())


def test_certificates_and_their_authority_are_replaced_under_load_and_nothing_is_lost(mesh: Room, table: Table) -> None:
    ours, theirs = mesh.rotating
    fresh = Authority()
    updates = {
        mesh.envoys["worker"]: "messaging.client_ssl_socket_factory.ssl_context_update_by_sds",
        mesh.envoys["siblings"]: "server_ssl_socket_factory.ssl_context_update_by_sds",
    }

    def replaced(step: Callable[[SecretFiles], None]) -> None:
        before = {envoy: sum(envoy.stats(part).values()) for envoy, part in updates.items()}
        for each in (ours, theirs):
            step(each)
        for envoy, part in updates.items():
            envoy.wait_stats(part, lambda found, old=before[envoy]: sum(found.values()) > old)  # type: ignore[misc]

    def handshakes() -> int:
        return mesh.envoys["worker"].total("messaging.ssl.handshake")

    start, count = utc_now() + timedelta(seconds=2), 120
    ids = {f"rotated-{n}" for n in range(count)}
    for n in range(count):
        made = send_job(f"rotated-{n}", retry_policy=retries(6, timedelta(milliseconds=100)))
        mesh.api().create(create_request(job=made, schedule=at(start + timedelta(seconds=n / 40))))

    def received() -> int:
        return len(ids & {call["id"] for call in mesh.service.received(code="OK")})

    eventually(received, lambda seen: seen > 10)
    roots = mesh.secrets.authority.root + fresh.root
    replaced(lambda files: files.trust(roots))
    replaced(lambda files: files.present(fresh.issue(files.uri)))
    eventually(received, lambda seen: seen > count / 2)
    replaced(lambda files: files.trust(fresh.root))
    shaken = handshakes()
    eventually(received, lambda seen: seen == count)
    # The last ones went over connections that only the new authority vouches for.
    for n in range(6):
        mesh.api().wait(mesh.api().create(create_request(f"after-rotation-{n}", schedule=after())).name)
    assert handshakes() > shaken
    ended = {each.state for each in mesh.api().executions("jobs/-") if each.target == SEND}
    assert ended == {Execution.SUCCEEDED}
    table.add("calls of the scheduler", "certificates and authority replaced under load", "OK", "", "nothing lost")


def test_the_table_in_the_documentation_is_what_was_seen(table: Table) -> None:
    table.settle()
