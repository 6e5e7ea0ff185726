"""Outages of PostgreSQL, of Redis and of the API server: how they are told, and that they heal by themselves."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
from whispr.scheduling.v1.execution_pb2 import Execution
from whispr.scheduling.v1.operations_service_pb2 import GetStatusRequest, ListQueuesRequest, ListTargetsRequest
from whispr.scheduling.v1.scheduling_service_pb2 import (
    CancelJobRequest,
    GetJobRequest,
    ListJobsRequest,
    RunJobRequest,
    WatchExecutionsRequest,
)

from scheduling.storage.migrate import migrate
from tests.support.proxy import Proxy
from tests.support.servers import Databases
from tests.support.service import (
    NOWHERE,
    OPERATIONS,
    PATIENCE,
    SCHEDULING,
    Api,
    Refusal,
    Service,
    after,
    create_request,
    eventually,
    monotonic,
    refused,
    running_service,
    service,
    tell,
)

T = TypeVar("T")


class Link:
    """A proxy on an event loop in a thread, so that tests that wait can break it."""

    def __init__(self, url: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.proxy = Proxy(url)
        self._run(self.proxy.__aenter__())

    @property
    def url(self) -> str:
        """The URL of the server, by way of the link."""
        return self.proxy.url

    def do(self, change: Callable[[], None]) -> None:
        """Changes the proxy, such as `link.do(link.proxy.refuse)`."""

        async def changed() -> None:
            change()

        self._run(changed())

    def close(self) -> None:
        """Ends all connections."""
        self._run(self.proxy.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)


@contextmanager
def linked(url: str) -> Iterator[Link]:
    link = Link(url)
    try:
        yield link
    finally:
        link.close()


@pytest.fixture(scope="module")
def parts(
    database_server: Databases, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Service, Link]]:
    """A service that reaches PostgreSQL by a link that can be broken."""
    folder = tmp_path_factory.mktemp("outages")
    with (
        linked(database_server.migrated()) as link,
        running_service(folder, link.url, redis_url, "outages", hot_timeout="500ms") as made,
    ):
        yield made, link


def unavailable(refusal: Refusal) -> None:
    """Asserts that a refusal tells of the outage and when to come back."""
    assert (refusal.code, refusal.reason) == ("UNAVAILABLE", "STORE_UNAVAILABLE")
    assert refusal.details["RetryInfo"].retry_delay.ToTimedelta().total_seconds() > 0


def healed(made: Service) -> None:
    """Waits until all is well, and sees a job through; asserts that no process was replaced."""
    eventually(made.api.is_serving, bool)
    made.api.wait(made.api.create(schedule=after(0)).name)
    assert made.server is not None
    assert (made.server.code, made.worker.code) == (None, None)


@pytest.mark.parametrize("kind", ["refuse", "hang"])
def test_an_outage_of_postgresql_is_told_and_heals_by_itself(parts: tuple[Service, Link], kind: str) -> None:
    made, link = parts
    api = made.api
    due_within = api.create(schedule=after(1.0))
    link.do(getattr(link.proxy, kind))
    calls: list[tuple[Any, Any]] = [
        (api.scheduling.CreateJob, create_request(request_id="during-the-outage")),
        (api.scheduling.GetJob, GetJobRequest(name=due_within.name)),
        (api.scheduling.ListJobs, ListJobsRequest()),
        (api.scheduling.RunJob, RunJobRequest(name=due_within.name)),
        (api.scheduling.CancelJob, CancelJobRequest(name=due_within.name)),
        (api.operations.GetStatus, GetStatusRequest()),
        (api.operations.ListQueues, ListQueuesRequest()),
        (api.operations.ListTargets, ListTargetsRequest()),
    ]
    with ThreadPoolExecutor(len(calls) + 1) as threads:
        asked = [threads.submit(refused, call, request) for call, request in calls]
        watch = threads.submit(refused, api.scheduling.WatchExecutions, WatchExecutionsRequest(parent="jobs/-"))
        for each in (*asked, watch):
            unavailable(each.result())
    began = monotonic()
    for name in ("", SCHEDULING, OPERATIONS):
        eventually(lambda name=name: api.is_serving(name), lambda serving: not serving)  # type: ignore[misc]
    assert monotonic() - began < 10

    link.do(link.proxy.restore)
    done = api.wait(due_within.name)
    assert (done.state, done.attempt_count) == (Execution.SUCCEEDED, 1)
    healed(made)


def test_a_commit_whose_answer_was_lost_is_found_by_the_repeat(parts: tuple[Service, Link]) -> None:
    made, link = parts
    request = create_request(job_id="answer-lost", request_id="answer-lost", schedule=after(0))
    link.do(lambda: link.proxy.lose_next_answer(b"answer-lost"))
    unavailable(refused(made.api.create, request))
    assert link.proxy.lost >= 1
    first = made.api.create(request)
    assert first.name == "jobs/answer-lost"
    assert made.api.wait(first.name).attempt_count == 1
    assert made.query("SELECT count(*) FROM jobs WHERE job_id = 'answer-lost'") == [(1,)]


def test_connections_that_are_cut_are_made_anew(parts: tuple[Service, Link]) -> None:
    made, link = parts
    for _ in range(3):
        link.do(link.proxy.cut)
        eventually(lambda: _accepted(made.api), bool)
    healed(made)


def _accepted(api: Api) -> bool:
    try:
        api.create()
    except grpc.RpcError as error:
        known: Any = error
        assert known.code() is grpc.StatusCode.UNAVAILABLE
        return False
    return True


def test_a_database_without_migrations_is_not_served_until_it_has_them(
    empty_database_url: str, redis_url: str, environment: str, tmp_path: Path
) -> None:
    with service(tmp_path, empty_database_url, redis_url, environment) as made:
        made.start_siblings()
        made.start_server()
        made.start_worker()
        api = made.connect()
        made.worker.wait_ready()
        assert not api.is_serving()
        unavailable(refused(api.create))
        unavailable(refused(api.operations.GetStatus, GetStatusRequest()))
        migrate(empty_database_url)
        healed(made)


def test_without_redis_what_is_due_is_delivered_within_about_a_second(
    database_url: str, environment: str, tmp_path: Path
) -> None:
    url = f"redis://{NOWHERE}/0"
    with running_service(tmp_path, database_url, url, environment) as made:
        jobs = [made.api.create(schedule=after(0.6 * n)) for n in range(3)]
        late = [made.api.wait(job.name).lateness.ToTimedelta().total_seconds() for job in jobs]
        tell(f"without Redis: latest start {max(late):.3f} s after its time")
        # About a second is the promise; the rest is for a busy machine.
        assert max(late) < 3
        status = made.api.operations.GetStatus(GetStatusRequest())
        assert "REDIS_DOWN" in status.degraded_modes


def test_calls_that_a_killed_server_did_not_answer_can_be_repeated(
    database_url: str, redis_url: str, environment: str, tmp_path: Path
) -> None:
    with service(tmp_path, database_url, redis_url, environment) as made:
        made.start_server()
        api = made.connect()
        eventually(api.is_serving, bool)
        count = 150
        requests = [
            create_request(f"m-{n}", job_id=f"killed-{n}", request_id=f"killed-{n}", schedule=after(3600))
            for n in range(count)
        ]
        futures = [api.scheduling.CreateJob.func.future(request, timeout=PATIENCE) for request in requests]
        # The first answer has come; most of the others are under way.
        futures[0].result()
        assert made.server is not None
        made.server.kill()
        answered = [future.exception() is None for future in futures]
        for future in futures:
            if future.exception() is not None:
                assert future.exception().code() is grpc.StatusCode.UNAVAILABLE

        made.start_server()
        api = made.connect()
        eventually(api.is_serving, bool)
        again = [api.scheduling.CreateJob.func.future(request, timeout=PATIENCE) for request in requests]
        for number, job in enumerate(future.result() for future in again):
            assert job.name == f"jobs/killed-{number}"
            if answered[number]:
                assert job.uid == futures[number].result().uid
        tell(f"killed server: {sum(answered)} of {count} calls were answered before")
        counts = made.count()
        assert (counts["jobs"], counts["schedules"], counts["executions"]) == (count, count, count)
        assert made.query("SELECT jobs FROM owner_days") in ([], [(count,)])
