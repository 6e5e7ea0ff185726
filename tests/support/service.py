"""The whole service for acceptance tests: server, worker and demo siblings as processes of their own, called over real
gRPC as any caller would.
"""

from __future__ import annotations

import functools
import json
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

import grpc
import psycopg
from google.protobuf.any_pb2 import Any as PackedMessage
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from whispr.scheduling.v1 import operations_service_pb2_grpc, scheduling_service_pb2_grpc
from whispr.scheduling.v1.execution_pb2 import Execution
from whispr.scheduling.v1.job_pb2 import Job
from whispr.scheduling.v1.schedule_pb2 import Schedule
from whispr.scheduling.v1.scheduling_service_pb2 import CreateJobRequest, GetExecutionRequest, ListExecutionsRequest
from whispr.scheduling.v1.target_pb2 import RetryPolicy
from whispr.siblings import messaging_pb2

from tests.support.processes import Process, environment, sibling_settings, start_server, start_siblings, start_worker

#: Seconds for anything to happen that must happen. Generous: it only ends what would hang.
PATIENCE = 60.0
#: Between two looks at what must happen.
LOOK_PAUSE = 0.03

SEND = "messaging.MessagingService/SendScheduledMessage"
SCHEDULING = "whispr.scheduling.v1.SchedulingService"
OPERATIONS = "whispr.scheduling.v1.OperationsService"
#: Where nothing listens.
NOWHERE = "127.0.0.1:1"

T = TypeVar("T")


def monotonic() -> float:
    """Seconds since an arbitrary moment."""
    return time.monotonic()  # noqa: TID251 - these tests watch real processes


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)  # noqa: TID251 - these tests watch real processes


def eventually(look: Callable[[], T], holds: Callable[[T], bool], patience: float = PATIENCE) -> T:
    """The first thing seen that `holds`. AssertionError with the last one when none does."""
    deadline = monotonic() + patience
    while True:
        seen = look()
        if holds(seen):
            return seen
        assert monotonic() < deadline, f"not within {patience} s; last seen: {seen}"
        time.sleep(LOOK_PAUSE)


def tell(figure: str) -> None:
    """Shows a figure that was measured, to whoever runs the tests with `-s`."""
    sys.stdout.write(f"\n{figure}\n")


def metrics(process: Process | None) -> dict[str, float]:
    """What /metrics of a process says, by series, without the service's prefix."""
    assert process is not None
    events = [json.loads(line) for line in process.log.splitlines() if line.startswith("{")]
    port = next(event["port"] for event in events if event["event"] == "metrics_served")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE) as answer:
        text = answer.read().decode()
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name.removeprefix("whispr_scheduling_"): float(value) for name, _, value in lines}


class Calls:
    """A stub whose calls all end: `calls.GetJob(request)` has a deadline unless one is given."""

    def __init__(self, stub: Any) -> None:
        self._stub = stub

    def __getattr__(self, name: str) -> Any:
        return functools.partial(getattr(self._stub, name), timeout=PATIENCE)


class Api:
    """What a caller has: a channel to the server."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.channel = grpc.insecure_channel(
            address, options=[("grpc.max_send_message_length", -1), ("grpc.enable_retries", 0)]
        )
        add: Any = scheduling_service_pb2_grpc.SchedulingServiceStub
        self.scheduling = Calls(add(self.channel))
        add = operations_service_pb2_grpc.OperationsServiceStub
        self.operations = Calls(add(self.channel))
        self._health = health_pb2_grpc.HealthStub(self.channel)

    def create(self, request: CreateJobRequest | None = None, **fields: Any) -> Job:
        """Creates a job: the one asked for, or a message with these fields of CreateJobRequest changed."""
        return cast("Job", self.scheduling.CreateJob(request or create_request(**fields)))

    def executions(self, job: str) -> list[Execution]:
        """The executions of a job, oldest first."""
        asked = ListExecutionsRequest(parent=job, page_size=1000, order_by="create_time")
        return list(self.scheduling.ListExecutions(asked).executions)

    def execution(self, name: str) -> Execution:
        """An execution as it is now."""
        return cast("Execution", self.scheduling.GetExecution(GetExecutionRequest(name=name)))

    def wait(self, job: str, *states: str, patience: float = PATIENCE) -> Execution:
        """The only execution of a job when it has come to one of these states; SUCCEEDED unless some are given."""
        wanted = {Execution.State.Value(state) for state in states or ("SUCCEEDED",)}
        found = eventually(
            lambda: self.executions(job), lambda them: len(them) == 1 and them[0].state in wanted, patience
        )
        return self.execution(found[0].name)

    def is_serving(self, service: str = "") -> bool:
        """Whether health says so; a server that cannot be reached is not."""
        try:
            answer = self._health.Check(health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def close(self) -> None:
        """Closes the channel."""
        self.channel.close()


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error as a caller sees it."""

    code: str
    message: str
    details: dict[str, Any]

    @property
    def reason(self) -> str:
        """The reason of ErrorInfo, which every error has."""
        return str(self.details["ErrorInfo"].reason)

    @property
    def violations(self) -> dict[str, str]:
        """The reasons by field path."""
        return {each.field: each.reason for each in self.details["BadRequest"].field_violations}

    @property
    def descriptions(self) -> str:
        """What is said of all fields together."""
        return "; ".join(each.description for each in self.details["BadRequest"].field_violations)


def refused(call: Callable[..., object], *arguments: object, **options: object) -> Refusal:
    """How a call is refused; AssertionError when it is not."""
    try:
        answer = call(*arguments, **options)
        if isinstance(answer, grpc.Future):
            list(cast("Any", answer))
    except grpc.RpcError as error:
        return _refusal(error)
    raise AssertionError(f"was accepted: {answer}")


def _refusal(error: Any) -> Refusal:
    details: dict[str, Any] = {}
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status = status_pb2.Status.FromString(value)
            assert status.code == error.code().value[0]
            for detail in status.details:
                name = detail.type_url.rpartition(".")[2]
                details[name] = getattr(error_details_pb2, name).FromString(detail.value)
    return Refusal(error.code().name, error.details() or "", details)


def packed(message: Message) -> PackedMessage:
    """The message as a job carries it."""
    value = PackedMessage()
    value.Pack(message)
    return value


def message(
    message_id: str = "message-1", content: str = "See you at eight."
) -> messaging_pb2.SendScheduledMessageRequest:
    """A valid request for SEND."""
    return messaging_pb2.SendScheduledMessageRequest(
        message_id=message_id, conversation_id="conversation-1", sender_id="user-1", content=content
    )


def send_job(message_id: str = "message-1", **fields: Any) -> Job:
    """A job that sends a message; further arguments are fields of Job."""
    fields.setdefault("request", packed(message(message_id)))
    return Job(target=SEND, **fields)


def after(span: timedelta | float = 0.0) -> Schedule:
    """A one-off, this long after the call."""
    made = Schedule()
    made.after.FromTimedelta(span if isinstance(span, timedelta) else timedelta(seconds=span))
    return made


def at(moment: datetime) -> Schedule:
    """A one-off at an instant."""
    made = Schedule()
    made.at_time.FromDatetime(moment)
    return made


def retries(attempts: int, backoff: timedelta | None = None) -> RetryPolicy:
    """A retry policy with so many attempts."""
    policy = RetryPolicy(max_attempts=attempts)
    if backoff is not None:
        policy.initial_backoff.FromTimedelta(backoff)
        policy.max_backoff.FromTimedelta(backoff)
    return policy


def create_request(message_id: str = "message-1", **fields: Any) -> CreateJobRequest:
    """A request to send a message, without a schedule unless one is given; arguments are fields of CreateJobRequest."""
    fields.setdefault("job", send_job(message_id))
    return CreateJobRequest(**fields)


@dataclass(slots=True)
class Service:
    """The running parts. What is stopped or killed in a test may be started again by `start_…`."""

    folder: Path
    database_url: str
    settings: dict[str, str]
    siblings: Process | None = None
    server: Process | None = None
    workers: list[Process] = field(default_factory=list)
    _api: Api | None = None
    _count: int = 0
    _connection: psycopg.Connection[tuple[Any, ...]] | None = None

    @property
    def env(self) -> dict[str, str]:
        """The environment of server and workers."""
        return environment(**self.settings)

    @property
    def api(self) -> Api:
        """A caller of the server."""
        assert self._api is not None
        return self._api

    @property
    def worker(self) -> Process:
        """The worker that was started last."""
        return self.workers[-1]

    def start_siblings(self, *rules: str) -> Process:
        """The demo siblings; processes that start after this know where they are."""
        self.siblings = start_siblings(self.folder, *rules)
        address = f"127.0.0.1:{self.siblings.wait_ready()}"
        self.settings |= _named(sibling_settings(address))
        return self.siblings

    def start_worker(self) -> Process:
        """One more worker; does not wait for it."""
        self._count += 1
        self.workers.append(start_worker(self.env, self.folder, f"worker-{self._count}"))
        return self.worker

    def start_server(self) -> Process:
        """The server; does not wait for it."""
        self._count += 1
        self.server = start_server(self.env, self.folder, f"server-{self._count}")
        return self.server

    def connect(self) -> Api:
        """Waits until the server listens, and calls it from now on."""
        assert self.server is not None
        if self._api is not None:
            self._api.close()
        self._api = Api(f"127.0.0.1:{self.server.wait_ready()}")
        return self._api

    def received(self, **fields: Any) -> list[dict[str, Any]]:
        """The calls that the siblings have answered or seen given up, those with these values in the record."""
        path = self.folder / "siblings.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        calls = [json.loads(line) for line in lines]
        return [call for call in calls if all(call[name] == value for name, value in fields.items())]

    def query(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """The rows of a statement of the test."""
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(self.database_url, autocommit=True)
        cursor = self._connection.execute(statement.encode(), parameters)
        return cursor.fetchall() if cursor.description else []

    def count(self) -> dict[str, int]:
        """How many rows the tables have that callers' requests write to."""
        tables = ("jobs", "schedules", "executions", "execution_history", "request_ids", "owner_days", "operations")
        ((*counts,),) = self.query(f"SELECT {', '.join(f'(SELECT count(*) FROM {table})' for table in tables)}")
        return dict(zip(tables, counts, strict=True))

    def close(self) -> None:
        """Ends everything by force."""
        if self._api is not None:
            self._api.close()
        if self._connection is not None:
            self._connection.close()
        for process in (*self.workers, self.server, self.siblings):
            if process is not None and process.code is None:
                process.kill()


def _named(variables: dict[str, str]) -> dict[str, str]:
    return {name.removeprefix("SCHEDULING_").lower(): value for name, value in variables.items()}


@contextmanager
def service(folder: Path, database_url: str, redis_url: str | None, name: str, **settings: str) -> Iterator[Service]:
    """A service of which nothing runs yet. `name` keeps it apart from others in Redis."""
    settings = {"database_url": database_url, "environment": name, "server_drain": "0s", **settings}
    if redis_url is not None:
        settings["redis_url"] = redis_url
    made = Service(folder, database_url, settings)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def running_service(
    folder: Path, database_url: str, redis_url: str, name: str, rules: Sequence[str] = (), **settings: str
) -> Iterator[Service]:
    """A service with siblings, server and one worker, ready to be called."""
    with service(folder, database_url, redis_url, name, **settings) as made:
        made.start_siblings(*rules)
        made.start_server()
        made.start_worker()
        made.connect()
        made.worker.wait_ready()
        eventually(made.api.is_serving, bool)
        yield made
