"""Faults of PostgreSQL that no proxy can make: a backend that dies in the middle of a given statement, a disk that is
full, connections that are all taken.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import psycopg

from tests.chaos.stage import now, pause

#: Seconds that a kind of statement is waited for, while what it touches is locked.
CATCH_SECONDS = 2.5
#: Seconds more for kinds of statements that none was caught of.
MORE_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of statement: how its text is known, and the table and lock on which it has to wait."""

    name: str
    pattern: str
    table: str
    mode: str = "EXCLUSIVE"


#: Each matches statements of the storage room, and none matches those of another; a unit test sees to both.
KINDS = (
    Kind("create", r"^WITH\s+(requests|quota) AS .*INSERT INTO owner_days ", "owner_days"),
    Kind("advance", r"FROM schedules s\s+WHERE s.evaluated_until .* FOR UPDATE OF s SKIP LOCKED", "schedules"),
    Kind(
        "release", r"WITH waiting AS \(.*FOR UPDATE SKIP LOCKED.*SET state = 'FAILED', reason = 'EXPIRED'", "executions"
    ),
    Kind("claim", r"WITH mine AS \(.*FROM executions.*SET state = 'RUNNING', claim_token", "executions"),
    Kind("sweep", r"WITH overdue AS \(.*SET state = 'RUNNING', claim_token", "executions"),
    Kind("record", r"WITH held AS MATERIALIZED .*DELETE FROM executions", "executions"),
    Kind("heartbeat", r"INSERT INTO workers AS w .*ON CONFLICT", "workers"),
    Kind("renewal of the leader", r"UPDATE leadership SET expire_time = .*RETURNING term", "leadership"),
    Kind("look ahead", r"SELECT min\(ready_time\), bool_or\(held\)", "executions", "ACCESS EXCLUSIVE"),
)


def is_kind(kind: Kind, statement: str) -> bool:
    """Whether a statement is one of the kind."""
    return re.search(kind.pattern, statement, re.DOTALL) is not None


async def kill_under(url: str, kind: Kind) -> bool:
    """Ends the backend that is in the middle of a statement of this kind; False when none came in time.

    What the statement touches is locked until one waits for it, so that it is under way for certain.
    """
    async with (
        await psycopg.AsyncConnection.connect(url, application_name="chaos") as holder,
        await psycopg.AsyncConnection.connect(url, application_name="chaos", autocommit=True) as killer,
    ):
        await holder.execute(f"LOCK TABLE {kind.table} IN {kind.mode} MODE".encode())
        deadline = now() + CATCH_SECONDS
        while now() < deadline:
            cursor = await killer.execute(
                "SELECT pid, query FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
                "AND application_name <> 'chaos' AND datname = current_database()"
            )
            for pid, query in await cursor.fetchall():
                if is_kind(kind, query):
                    await killer.execute("SELECT pg_terminate_backend(%s)", (pid,))
                    return True
            await pause(0.01)
    return False


async def kill_in_turn(url: str, seconds: float) -> Counter[str]:
    """Kills under each kind of statement in turn, for so long and until each has been met; returns how often under
    which.
    """
    killed: Counter[str] = Counter({kind.name: 0 for kind in KINDS})
    deadline = now() + seconds
    kinds: list[Kind] = list(KINDS)
    while kinds and now() < deadline + MORE_SECONDS:
        for kind in kinds:
            killed[kind.name] += await kill_under(url, kind)
            await pause(0.3)
        if now() > deadline:
            kinds = [kind for kind in KINDS if not killed[kind.name]]
    return killed


_FULL = """
CREATE OR REPLACE FUNCTION chaos_disk_full() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100';
END $$
"""
_WRITTEN = ("executions", "execution_history", "jobs", "schedules", "workers", "leadership", "request_ids")


@contextlib.asynccontextmanager
async def disk_full(url: str) -> AsyncIterator[None]:
    """Every write fails as on a full disk (SQLSTATE 53100)."""
    async with await psycopg.AsyncConnection.connect(url, application_name="chaos", autocommit=True) as connection:
        await connection.execute(_FULL)
        for table in _WRITTEN:
            await connection.execute(
                f"CREATE TRIGGER chaos_disk_full BEFORE INSERT OR UPDATE OR DELETE ON {table} "
                "FOR EACH STATEMENT EXECUTE FUNCTION chaos_disk_full()".encode()
            )
        try:
            yield
        finally:
            for table in _WRITTEN:
                await connection.execute(f"DROP TRIGGER chaos_disk_full ON {table}".encode())


@contextlib.asynccontextmanager
async def connections_taken(url: str) -> AsyncIterator[int]:
    """All connections that PostgreSQL has are somebody else's: those of the service are ended, and none is to have.
    Yields how many were ended.
    """
    taken: list[psycopg.AsyncConnection[Any]] = []

    async def take() -> None:
        with contextlib.suppress(psycopg.OperationalError):
            while True:
                connection = await psycopg.AsyncConnection.connect(url, application_name="chaos", autocommit=True)
                taken.append(connection)

    await take()
    assert taken, "PostgreSQL had no connection for the fault itself"
    ended = 0
    for _ in range(20):
        cursor = await taken[0].execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            "WHERE backend_type = 'client backend' AND application_name <> 'chaos'"
        )
        row = await cursor.fetchone()
        assert row is not None
        ended += row[0]
        await asyncio.gather(*(take() for _ in range(10)))
        if not row[0]:
            break
    try:
        yield ended
    finally:
        await asyncio.gather(*(connection.close() for connection in taken))
