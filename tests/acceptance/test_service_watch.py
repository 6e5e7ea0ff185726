"""WatchExecutions on a running service: what it tells, how it goes on after a break, how it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import grpc
import pytest
from whispr.scheduling.v1.execution_pb2 import Execution
from whispr.scheduling.v1.job_pb2 import Job
from whispr.scheduling.v1.scheduling_service_pb2 import WatchExecutionsRequest, WatchExecutionsResponse

from tests.support.servers import Databases
from tests.support.service import (
    Api,
    Service,
    after,
    eventually,
    refused,
    retries,
    running_service,
    send_job,
)

HOUR = timedelta(hours=1)
RULES = (
    "messaging.MessagingService/SendScheduledMessage match=slow-* delay=0.7",
    "messaging.MessagingService/SendScheduledMessage match=wrong-* code=NOT_FOUND",
)


@pytest.fixture(scope="module")
def service(database_server: Databases, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("watch")
    with running_service(folder, database_server.migrated(), redis_url, "watch", RULES) as made:
        yield made


@pytest.fixture
def api(service: Service) -> Api:
    return service.api


class Watch:
    """An open watch, with what it has told so far."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.told: list[Execution] = []
        self.token = ""

    def states(self, name: str) -> list[str]:
        """What was told of one execution, in order."""
        return [Execution.State.Name(each.state) for each in self.told if each.name == name]

    def until(self, holds: Callable[[], bool]) -> None:
        """Reads on until `holds()`; the stream's deadline ends what would hang."""
        while not holds():
            answer: WatchExecutionsResponse = next(self._stream)
            self.told += answer.executions
            self.token = answer.resume_token

    def until_ended(self, *names: str) -> None:
        """Reads on until each of these has succeeded."""
        self.until(lambda: all("SUCCEEDED" in self.states(name) for name in names))


@contextmanager
def watching(api: Api, parent: str, **more: Any) -> Iterator[Watch]:
    stream = api.scheduling.WatchExecutions(WatchExecutionsRequest(parent=parent, **more))
    try:
        yield Watch(stream)
    finally:
        stream.cancel()


def only(api: Api, job: Job) -> str:
    """The name of the only execution of a job."""
    (execution,) = api.executions(job.name)
    return execution.name


def test_a_watch_of_a_job_tells_its_executions_from_plan_to_success(api: Api) -> None:
    job = api.create(job=send_job("slow-watched"), schedule=after(2.0))
    name = only(api, job)
    with watching(api, job.name) as watch:
        watch.until_ended(name)
    states = watch.states(name)
    assert (states[0], states[-1]) == ("PENDING", "SUCCEEDED")
    assert "RUNNING" in states
    order = ["PENDING", "QUEUED", "RUNNING", "SUCCEEDED"]
    assert [order.index(state) for state in states] == sorted(order.index(state) for state in states)
    assert not any(each.HasField("response") for each in watch.told)


def test_a_watch_says_at_once_that_it_is_there(api: Api) -> None:
    with watching(api, api.create().name) as watch:
        watch.until(lambda: watch.token != "")
    assert watch.told == []


def test_a_watch_of_all_jobs_tells_what_is_released(api: Api) -> None:
    later = only(api, api.create(schedule=after(HOUR)))
    with watching(api, "jobs/-", view="FULL") as watch:
        watch.until(lambda: watch.token != "")
        name = only(api, api.create(schedule=after(0)))
        watch.until_ended(name)
    assert any(each.HasField("response") for each in watch.told if each.name == name)
    assert watch.states(later) == []


def test_a_watch_tells_only_what_its_filter_lets_through(api: Api) -> None:
    with watching(api, "jobs/-", filter='owner = "seen" AND state = SUCCEEDED') as watch:
        watch.until(lambda: watch.token != "")
        other = only(api, api.create(job=send_job(owner="unseen"), schedule=after(0)))
        api.wait(other.partition("/executions")[0])
        name = only(api, api.create(job=send_job(owner="seen"), schedule=after(0)))
        watch.until_ended(name)
    assert watch.states(name) == ["SUCCEEDED"]
    assert watch.states(other) == []


@pytest.mark.parametrize("parent", ["all jobs", "one job"])
def test_a_watch_that_goes_on_misses_nothing_that_ended_in_the_break(api: Api, parent: str) -> None:
    jobs = [api.create(job=send_job(f"break-{n}"), schedule=after(0.3)) for n in range(10)]
    wrong = api.create(job=send_job("wrong-one", retry_policy=retries(1)), schedule=after(0.3))
    watched = "jobs/-" if parent == "all jobs" else jobs[0].name
    names = [only(api, job) for job in (jobs if parent == "all jobs" else jobs[:1])]
    with watching(api, watched) as watch:
        watch.until(lambda: watch.token != "")
        token = watch.token
    for job in jobs:
        api.wait(job.name)
    failed = api.wait(wrong.name, "FAILED").name
    with watching(api, watched, resume_token=token) as resumed:
        resumed.until_ended(*names)
        if parent == "all jobs":
            resumed.until(lambda: "FAILED" in resumed.states(failed))


def test_a_token_of_another_watch_is_refused(api: Api) -> None:
    job, other = api.create(), api.create()
    with watching(api, job.name) as watch:
        watch.until(lambda: watch.token != "")
    for wrong in (
        WatchExecutionsRequest(parent=other.name, resume_token=watch.token),
        WatchExecutionsRequest(parent=job.name, filter="state = FAILED", resume_token=watch.token),
        WatchExecutionsRequest(parent=job.name, resume_token="nonsense"),
    ):
        refusal = refused(api.scheduling.WatchExecutions, wrong)
        assert refusal.code == "INVALID_ARGUMENT"
        assert refusal.details["BadRequest"].field_violations[0].field in {"page_token", "resume_token"}


def test_a_watch_of_a_job_that_does_not_exist_is_refused(api: Api) -> None:
    assert refused(api.scheduling.WatchExecutions, WatchExecutionsRequest(parent="jobs/nobody")).code == "NOT_FOUND"


def test_a_watch_ends_with_unavailable_when_the_server_stops_and_goes_on_at_the_next(service: Service) -> None:
    name = only(service.api, service.api.create(schedule=after(1)))
    server = service.server
    assert server is not None
    with watching(service.api, "jobs/-") as watch:
        watch.until(lambda: watch.token != "")
        token = watch.token
        service.start_server()
        assert server.stop() == 0
        with pytest.raises(grpc.RpcError) as caught:
            watch.until(lambda: False)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    api = service.connect()
    eventually(api.is_serving, bool)
    with watching(api, "jobs/-", resume_token=watch.token or token) as resumed:
        resumed.until_ended(name)
