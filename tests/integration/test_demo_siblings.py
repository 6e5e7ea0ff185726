"""The demo siblings as they are used: a real process, called over real gRPC."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from whispr.siblings import messaging_pb2, messaging_pb2_grpc, notification_pb2, user_pb2, user_pb2_grpc

from scheduling.delivery.targets import TargetTable
from scheduling.demo.siblings import Rule, parse_rule

SEND = "messaging.MessagingService/SendScheduledMessage"
#: Seconds after which something that should have happened will not any more.
PATIENCE = 60


@dataclass
class Siblings:
    """A running process, a channel to it and the file it writes."""

    process: subprocess.Popen[str]
    channel: grpc.Channel
    record: Path

    def send(self, message_id: str, *, timeout: float = PATIENCE, **metadata: str) -> Any:
        pairs = tuple((key.replace("_", "-"), value) for key, value in metadata.items())
        request = messaging_pb2.SendScheduledMessageRequest(
            message_id=message_id, conversation_id="c-1", sender_id="u-1", content="hello"
        )
        stub = messaging_pb2_grpc.MessagingServiceStub(self.channel)  # type: ignore[no-untyped-call]
        return stub.SendScheduledMessage(request, metadata=pairs, timeout=timeout)

    def code_of(self, message_id: str, **options: Any) -> str:
        try:
            self.send(message_id, **options)
        except grpc.RpcError as error:
            return str(error.code().name)
        return "OK"

    def calls(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.record.read_text().splitlines()]

    def stop(self) -> list[dict[str, Any]]:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE) == 0
        return self.calls()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Siblings]]:
    with contextlib.ExitStack() as stack:

        def run(*arguments: str) -> Siblings:
            record = tmp_path / "calls.jsonl"
            command = [sys.executable, "-m", "scheduling.demo.siblings", "--record", str(record), *arguments]
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}  # noqa: TID251
            process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment))
            stack.callback(process.kill)
            assert process.stdout is not None
            word, port = process.stdout.readline().split()
            assert word == "ready"
            channel = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{port}"))
            return Siblings(process, channel, record)

        yield run


def test_a_call_is_recorded_with_everything_the_scheduler_sent(start: Callable[..., Siblings]) -> None:
    siblings = start()
    response = siblings.send(
        "m-1",
        idempotency_key="key-1",
        x_scheduling_attempt="2",
        x_scheduling_job="jobs/greeting",
        x_scheduling_nominal_time="2030-01-01T00:00:00Z",
        x_scheduling_something_new="yes",
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )
    assert response.message_id == "m-1"
    (call,) = siblings.stop()
    assert response.send_time.ToNanoseconds() / 1e9 == pytest.approx(call.pop("received"))
    assert 0 <= call.pop("duration") < PATIENCE
    assert 0 < call.pop("timeout") <= PATIENCE
    assert call == {
        "method": SEND,
        "id": "m-1",
        "idempotency_key": "key-1",
        "attempt": 2,
        "job": "jobs/greeting",
        "nominal_time": "2030-01-01T00:00:00Z",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "metadata": {"x-scheduling-something-new": "yes"},
        "code": "OK",
    }


def test_every_target_is_answered(start: Callable[..., Siblings]) -> None:
    siblings, table = start(), TargetTable()
    for target in table:
        stub = table.stub_class(target.service)(siblings.channel)
        response = getattr(stub, target.method.rpartition("/")[2])(
            table.request_class(target.method)(), timeout=PATIENCE
        )
        assert response.DESCRIPTOR.full_name == target.response_type
    assert [call["method"] for call in siblings.stop()] == [target.method for target in table]


def test_the_record_can_be_read_while_the_process_runs_and_survives_its_death(start: Callable[..., Siblings]) -> None:
    siblings = start()
    siblings.send("m-1")
    deadline = time.monotonic() + PATIENCE  # noqa: TID251 - the process has a clock of its own
    while not siblings.record.read_text():
        assert time.monotonic() < deadline  # noqa: TID251
        siblings.code_of("m-2")
    siblings.process.kill()
    siblings.process.wait(PATIENCE)
    assert siblings.calls()[0]["id"] == "m-1"


def test_a_rule_with_times_counts_for_each_id_apart(start: Callable[..., Siblings]) -> None:
    siblings = start("--rule", f"{SEND} match=fail-twice-* times=2 code=UNAVAILABLE")
    names = ["fail-twice-1", "fail-twice-1", "fail-twice-2", "other", "fail-twice-1", "fail-twice-2", "fail-twice-2"]
    codes = [siblings.code_of(name) for name in names]
    assert codes == ["UNAVAILABLE", "UNAVAILABLE", "UNAVAILABLE", "OK", "OK", "UNAVAILABLE", "OK"]
    assert [(call["id"], call["code"]) for call in siblings.stop()] == list(zip(names, codes, strict=True))


def test_a_rule_without_times_fails_for_good_and_the_first_that_fits_applies(start: Callable[..., Siblings]) -> None:
    siblings = start(
        "--rule", "messaging.* match=bad-* code=INVALID_ARGUMENT", "--rule", "* match=bad-1 code=UNAVAILABLE"
    )
    assert [siblings.code_of("bad-1") for _ in range(3)] == ["INVALID_ARGUMENT"] * 3


def test_a_delay_holds_the_answer_back(start: Callable[..., Siblings]) -> None:
    siblings = start("--rule", f"{SEND} match=slow delay=0.2")
    assert siblings.code_of("slow") == "OK"
    (call,) = siblings.stop()
    assert call["duration"] >= 0.2


def test_a_call_that_hangs_ends_when_its_caller_gives_up(start: Callable[..., Siblings]) -> None:
    siblings = start("--rule", f"{SEND} match=stuck hang")
    assert siblings.code_of("stuck", timeout=0.2) == "DEADLINE_EXCEEDED"
    (call,) = siblings.stop()
    assert call["code"] == "CANCELLED"


def test_only_the_services_that_were_asked_for_are_served(start: Callable[..., Siblings]) -> None:
    siblings = start("--services", "messaging,notification")
    health = health_pb2_grpc.HealthStub(siblings.channel)
    for service in ("", "messaging.MessagingService", "notification.NotificationService"):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as refused:
        user_pb2_grpc.UserServiceStub(siblings.channel).ResetDailyQuotas(  # type: ignore[no-untyped-call]
            user_pb2.ResetDailyQuotasRequest(), timeout=PATIENCE
        )
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_the_contracts_are_served_by_reflection(start: Callable[..., Siblings]) -> None:
    siblings = start()
    reflection = reflection_pb2_grpc.ServerReflectionStub(siblings.channel)
    ask = reflection_pb2.ServerReflectionRequest(file_containing_symbol="notification.NotificationService")
    (answer,) = reflection.ServerReflectionInfo(iter([ask]), timeout=PATIENCE)
    files = [FileDescriptorProto.FromString(data) for data in answer.file_descriptor_response.file_descriptor_proto]
    assert notification_pb2.DESCRIPTOR.name in {file.name for file in files}


def test_a_paged_list_is_walked_to_its_end_and_a_count_lists_nobody(start: Callable[..., Siblings]) -> None:
    siblings = start()
    stub = user_pb2_grpc.UserServiceStub(siblings.channel)  # type: ignore[no-untyped-call]
    request = user_pb2.ListActiveUsersRequest(active_within=Duration(seconds=60), page_size=90)
    users: list[str] = []
    while True:
        page = stub.ListActiveUsers(request, timeout=PATIENCE)
        users += [user.user_id for user in page.users]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert len(users) == len(set(users)) == page.total_size
    counted = stub.ListActiveUsers(
        user_pb2.ListActiveUsersRequest(active_within=Duration(seconds=60), count_only=True), timeout=PATIENCE
    )
    assert (len(counted.users), counted.total_size) == (0, page.total_size)


def test_a_dry_run_matches_and_deletes_nothing(start: Callable[..., Siblings]) -> None:
    stub = messaging_pb2_grpc.MessagingServiceStub(start().channel)  # type: ignore[no-untyped-call]
    dry, real = (
        stub.CleanupExpiredMessages(
            messaging_pb2.CleanupExpiredMessagesRequest(older_than=Duration(seconds=60), dry_run=dry_run),
            timeout=PATIENCE,
        )
        for dry_run in (True, False)
    )
    assert dry.matched_count > 0
    assert (dry.deleted_count, real.deleted_count) == (0, real.matched_count)


@pytest.mark.parametrize(
    "options",
    [["--services", "nowhere"], ["--rule", "x"], ["--rule", "x code=NOPE"], ["--rule", "x color=red"], ["--what"]],
)
def test_wrong_options_end_with_code_2(options: list[str], tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}  # noqa: TID251
    command = [sys.executable, "-m", "scheduling.demo.siblings", "--record", str(tmp_path / "calls.jsonl"), *options]
    assert subprocess.run(command, check=False, capture_output=True, env=environment).returncode == 2


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("a.B/C code=ABORTED", Rule("a.B/C", code=grpc.StatusCode.ABORTED)),
        ("* match='x y' times=3 delay=0.5 hang", Rule("*", match="x y", times=3, delay=0.5, hang=True)),
        ("a.* delay=1", Rule("a.*", delay=1.0)),
    ],
)
def test_a_rule_is_read_as_written(text: str, rule: Rule) -> None:
    assert parse_rule(text) == rule


@pytest.mark.parametrize(
    "text",
    ["", "code=OK", "x", "x times=-1 hang", "x delay=-1", "x delay=nan", "x hang=1", "x code=OK code=OK", "x 'y"],
)
def test_a_rule_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_rule(text)
