"""The previous version keeps running while and after the migrations run: its statements work on this version's schema,
and each version goes on with what the other has begun.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from scheduling.domain.lifecycle import State
from scheduling.storage.migrate import migrate
from tests.support.builders import SEND, new_job, once, send_request
from tests.support.clock import FlowingClock
from tests.support.run import run
from tests.support.stores import Stores, open_stores

TTL = timedelta(seconds=30)
LEAD = timedelta(seconds=1)


def statements() -> dict[str, str]:
    text = (Path(__file__).parent / "statements_of_0003.sql").read_text(encoding="utf-8")
    return {name: sql for name, _, sql in (part.partition("\n") for part in text.split("-- name: ")[1:])}


STATEMENTS = statements()


class Previous:
    """A process of the previous version, by its statements."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True)
        self.worker = uuid4()

    def execute(self, name: str, **parameters: Any) -> list[tuple[Any, ...]]:
        cursor = self._connection.execute(STATEMENTS[name].encode(), {"now": None, **parameters})
        return cursor.fetchall() if cursor.description else []

    def beat(self) -> list[tuple[Any, ...]]:
        identity = {"uid": self.worker, "host": "h", "pid": 1, "version": "0.0.9", "queues": ["HIGH"]}
        return self.execute("beat", **identity, ttl=TTL, last_start=None)

    def create(self, owner: str = "u") -> UUID:
        """A one-off that is due now; returns its execution's uid."""
        job, schedule, execution, now = uuid4(), uuid4(), uuid4(), datetime.now(UTC)  # noqa: TID251 - another version
        job_columns = {
            "uid": job,
            "job_id": f"j-{job}",
            "display_name": "",
            "target": SEND,
            "request": send_request(),
            "request_type": "messaging.SendScheduledMessageRequest",
            "queue": "HIGH",
            "max_attempts": 4,
            "initial_backoff": LEAD,
            "backoff_multiplier": 2.0,
            "max_backoff": LEAD,
            "max_age": timedelta(days=1),
            "after_lost_worker": "RETRY_NOW",
            "timeout": TTL,
            "overlap_policy": None,
            "owner": owner,
            "principal": "spiffe://cluster.local/ns/whispr/sa/a",
            "labels": "{}",
            "retention_days": 30,
        }
        schedule_columns = {
            "uid": schedule,
            "job_uid": job,
            "schedule_id": "s",
            "display_name": "",
            "kind": "ONCE",
            "spec": json.dumps({"time": now.isoformat()}),
            "time_zone": "UTC",
            "start_time": None,
            "end_time": None,
            "max_firings": None,
            "jitter": timedelta(0),
            "dst_policy": "SPRING_FORWARD_FALL_BACK_ONCE",
            "catchup_policy": "LATEST",
            "catchup_window": None,
            "request": None,
            "request_type": "",
            "evaluated_until": "infinity",
            "zone_version": "",
            "exclusions": "[]",
            "calendar_ids": "",
            "timing_time": now,
        }
        plan_columns = {
            "uid": execution,
            "job_uid": job,
            "schedule_uid": schedule,
            "schedule_id": "s",
            "origin": "SCHEDULED",
            "target": SEND,
            "queue": "HIGH",
            "owner": owner,
            "state": "PENDING",
            "nominal_time": now,
            "due_time": now,
            "ready_time": now,
            "expire_time": now + timedelta(days=1),
            "request": None,
            "request_type": "",
            "retention_days": 30,
            "recurring": False,
            "overlap": None,
        }
        arrays = {
            f"{prefix}_{name}": [value]
            for prefix, columns in (("j", job_columns), ("s", schedule_columns), ("e", plan_columns))
            for name, value in columns.items()
        }
        request = {"r_principal": ["p"], "r_request_id": [str(job)], "r_digest": [b"d"], "r_answer": [str(job)]}
        self.execute("create", **arrays, **request, q_owner=[owner], q_jobs=[1], limit=1000, first=now)
        return execution

    def release(self) -> list[UUID]:
        """A round of releasing; returns what was released."""
        with self._connection.transaction():
            ((is_mine, now),) = self.execute("try lock")
            assert is_mine
            self.execute("expire")
            assert len(self.execute("room", depth=100)) == 3
            bounds = {"queue": "HIGH", "until": now + LEAD, "shut": [], "probes": [], "room": 100}
            return [row[0] for row in self.execute("release", **bounds)]

    def claim(self, *uids: UUID) -> list[UUID]:
        """Claims; returns the tokens of what was claimed."""
        tokens = [uuid4() for _ in uids]
        self.execute("claim", worker=self.worker, uids=list(uids), tokens=tokens, lead=LEAD, targets=[SEND])
        return [row[2] for row in self.beat() if row[2] in tokens]

    def sweep(self) -> int:
        """Claims what is overdue; returns how much."""
        tokens = [uuid4() for _ in range(5)]
        found = self.execute(
            "sweep", worker=self.worker, queue="HIGH", tokens=tokens, after=timedelta(0), targets=[SEND]
        )
        return len(found)

    def record(self, uid: UUID, token: UUID, state: str = "SUCCEEDED") -> list[tuple[Any, ...]]:
        """Records an outcome."""
        now = datetime.now(UTC)  # noqa: TID251 - another version
        outcome = {
            "uid": uid,
            "token": token,
            "state": state,
            "reason": "",
            "ready_time": now if state == "PENDING" else None,
            "begun": True,
            "counted": True,
            "start_time": now,
            "code": 0 if state == "SUCCEEDED" else 14,
            "message": "",
            "attempts": None,
            "response": None,
            "response_type": "",
        }
        return self.execute("record", **{name: [value] for name, value in outcome.items()})


@pytest.fixture
def previous(empty_database_url: str) -> Iterator[Previous]:
    """A process that began on its own schema, and finds itself on ours."""
    migrate(empty_database_url, "0003")
    made = Previous(empty_database_url)
    made.beat()
    made.before = made.create()  # type: ignore[attr-defined]
    migrate(empty_database_url)
    yield made
    made._connection.close()


def test_the_previous_version_works_on_this_version_s_schema(previous: Previous, empty_database_url: str) -> None:
    leader = uuid4()
    ((term,),) = previous.execute("acquire", holder=leader, ttl=TTL)
    assert previous.execute("renew", holder=leader, term=term, ttl=TTL) == [(term,)]
    assert previous.execute("look ahead")[0][0] is not None
    uids = {previous.create(), previous.create(), previous.before}  # type: ignore[attr-defined]
    assert set(previous.release()) == uids
    first, second, third = uids
    (token,) = previous.claim(first)
    assert previous.record(first, token) == [(first,)]
    (token,) = previous.claim(second)
    assert previous.record(second, token, "PENDING") == [(second,)]
    assert previous.release() == [second]
    assert previous.sweep() == 2
    assert previous.execute("cancellations", worker=previous.worker) == []
    assert previous.execute("lost", term=term, grace=TTL, limit=10) == []
    assert {row[1] for row in previous.beat()} == {second, third}


def test_each_version_goes_on_with_what_the_other_has_begun(previous: Previous, empty_database_url: str) -> None:
    async def release(stores: Stores) -> set[UUID]:
        released = await stores.releasing.release(LEAD)
        return {uid for each in released.by_queue.values() for uid, _ in each}

    async def scenario() -> None:
        async with open_stores(empty_database_url, FlowingClock(), real_now=True) as stores:
            now = stores.clock.now()
            schedule = once(now)
            await stores.create(new_job(now, schedule=schedule))
            ours, theirs = schedule.plan_uid, previous.create()
            worker = await stores.worker()
            # Ours releases what theirs has made, and theirs calls; and the other way round.
            assert await release(stores) == {ours, theirs, previous.before}  # type: ignore[attr-defined]
            (token,) = previous.claim(ours)
            assert previous.record(ours, token) == [(ours,)]
            (claim,) = await stores.claim(worker, theirs)
            assert await stores.record(claim)
            assert [await stores.state(uid) for uid in (ours, theirs)] == [State.SUCCEEDED] * 2
            later = previous.create()
            assert previous.release() == [later]
            (claim,) = await stores.claim(worker, later)
            assert await stores.record(claim)
            assert await stores.state(later) is State.SUCCEEDED

    run(scenario())
