"""What lists, counts and release read of large tables: pages and heads of indexes, never all that there is.

Speed is measured elsewhere; here the plans are looked at, and how many rows they touch.
"""

from __future__ import annotations

import gc
import json
import tracemalloc
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import psycopg

from scheduling.domain.errors import InvalidRequest
from scheduling.domain.filters import parse_filter
from scheduling.domain.job import Job, OverlapPolicy
from scheduling.domain.kept import Kept
from scheduling.operations import executions as execution_cases
from scheduling.operations import jobs as job_cases
from scheduling.operations.drafts import ListQuery
from scheduling.operations.ports import PageRequest
from scheduling.storage import calendars, database, gating, jobs, releasing, schedules, status, tables
from scheduling.storage.database import STATEMENTS_BYTES
from tests.support.builders import SEND, new_job, once
from tests.support.clock import START
from tests.support.run import run
from tests.support.stores import Stores, open_stores

NOW = START
MANY = 20_000


async def fill(stores: Stores, job_count: int, state: str = "PENDING", **columns: Any) -> None:
    """So many jobs, and MANY executions that are due, shared among them in turn."""
    (model,) = await stores.create(new_job(NOW, job_id="model"))
    names = ", ".join(
        row["column_name"]
        for row in await stores.query(
            "SELECT column_name FROM information_schema.columns WHERE table_name = 'jobs' "
            "AND column_name NOT IN ('uid', 'job_id')"
        )
    )
    made = await stores.query(
        f"INSERT INTO jobs (uid, job_id, {names}) SELECT gen_random_uuid(), 'many-' || n, {names} "
        "FROM jobs, generate_series(1, %s) AS n WHERE uid = %s RETURNING uid",
        job_count,
        model.uid,
    )
    more = "".join(f", {name}" for name in columns)
    await stores.query(
        "INSERT INTO executions (uid, job_uid, origin, target, queue, owner, state, nominal_time, due_time, "
        f"ready_time, expire_time{more}) SELECT gen_random_uuid(), (%s::uuid[])[n %% %s + 1], 'MANUAL', %s, 'HIGH', "
        f"'o', %s, t, t, t, t + interval '1 day'{', %s' * len(columns)} "
        "FROM generate_series(1, %s) AS n, LATERAL (SELECT %s - n * interval '1 ms') AS x (t)",
        *([row["uid"] for row in made], job_count, SEND, state, *columns.values(), MANY, NOW),
    )
    await stores.query("VACUUM ANALYZE executions")
    await stores.query("VACUUM ANALYZE jobs")


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes(inner)


async def rows_read(stores: Stores, statement: str, parameters: dict[str, Any] | None = None) -> int:
    """Rows that the statement takes from tables, those that it then leaves out included."""
    async with stores.database.hot() as connection, connection.transaction(force_rollback=True):
        cursor = await connection.execute("EXPLAIN (ANALYZE, FORMAT JSON) " + statement, parameters)
        row = await cursor.fetchone()
    assert row is not None
    (found,) = row[0] if isinstance(row[0], list) else json.loads(row[0])
    total: float = sum(
        (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        for node in nodes(found["Plan"])
        if "Scan" in node["Node Type"] and ("Relation Name" in node or "Index Name" in node)
    )
    return round(total)


def sql_of(select: sa.Select[Any]) -> str:
    dialect: Any = psycopg.dialect(paramstyle="named")  # type: ignore[no-untyped-call]  # the library left it untyped
    return str(select.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))


def page_sql(order: str, filter_: str = "") -> str:
    page = PageRequest(50, order, descending=True, filter=parse_filter(filter_, job_cases.JOB_FIELDS))
    return sql_of(jobs.select_page(page))


def test_a_page_of_jobs_reads_a_page_of_jobs(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            await fill(stores, MANY)
            # Each row of the page: itself twice, and a few probes.
            for order in ("create_time", "job_id"):
                for filter_ in ("", "state = ACTIVE", "queue = HIGH"):
                    assert await rows_read(stores, page_sql(order, filter_)) < 51 * 10, (order, filter_)

    run(scenario())


def test_a_schedule_is_read_without_the_executions_of_others(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            await fill(stores, MANY)
            job = await stores.recurring()
            select = schedules.select_schedules().where(tables.schedules.c.job_uid == job.uid)
            assert 0 < await rows_read(stores, sql_of(select)) < 20

    run(scenario())


def test_schedules_of_another_zone_version_are_looked_for_among_the_recurring_ones(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            await stores.create(*(new_job(NOW, schedule=once(NOW)) for _ in range(1000)))
            await stores.recurring()
            await stores.query("UPDATE schedules SET zone_version = '1999z'")
            await stores.query("VACUUM ANALYZE schedules")
            term = await stores.lead()
            page = {"version": "2000a", "term": term, "limit": 1000}
            assert 0 < await rows_read(stores, calendars._MARK_ZONES, {"now": NOW, **page}) < 20

    run(scenario())


def test_the_queues_are_counted_by_indexes_and_not_beyond_the_limit(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "_QUEUES", status._QUEUES.replace(str(status.COUNT_LIMIT), "100"))

    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            await fill(stores, 10)
            for change, field in {
                "attempt = 1": "retrying",
                "attempt = 0, held_by = 'OVERLAP'": "waiting",
                "held_by = NULL, state = 'QUEUED'": "queued",
                "state = 'FAILED'": "failed",
                "state = 'PENDING'": "waiting",
            }.items():
                await stores.query(f"UPDATE executions SET {change}")
                await stores.query("VACUUM ANALYZE executions")
                found = (await stores.store.queues())[0]
                assert getattr(found, field) == 100
                assert await rows_read(stores, status._QUEUES, {"now": stores.clock.now()}) < 1000, change

    run(scenario())


def test_release_reads_little_of_what_is_held_and_nothing_of_a_plain_backlog(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            await fill(stores, 100, held_by="OVERLAP", overlap="BUFFER_ALL")
            await stores.query(
                "INSERT INTO executions (uid, job_uid, origin, target, queue, owner, state, nominal_time, due_time, "
                "ready_time, expire_time, claim_token) SELECT gen_random_uuid(), uid, 'MANUAL', 't', 'HIGH', 'o', "
                "'RUNNING', now(), now(), now(), now(), gen_random_uuid() FROM jobs"
            )
            bounds: dict[str, Any] = {"queue": "HIGH", "until": NOW, "probes": [], "room": 1000}
            walk = {"queue": "HIGH", "after": UUID(int=0), "count": 1000}
            assert await rows_read(stores, releasing._BUFFERED, walk) <= 100
            owners = [row["job_uid"] for row in await stores.query("SELECT DISTINCT job_uid FROM executions")]
            assert await rows_read(stores, releasing._UNHELD, {**bounds, "jobs": owners}) <= 300
            await stores.query("DELETE FROM executions WHERE state = 'RUNNING'")
            assert await rows_read(stores, releasing._UNHELD, {**bounds, "jobs": owners}) <= 300
            await stores.query("UPDATE executions SET held_by = NULL, overlap = NULL")
            await stores.query("VACUUM ANALYZE executions")
            assert await rows_read(stores, releasing._GATED, bounds) == 0
            # Nor does what may run read anything of what may not.
            parameters = {"lanes": [], "caps": [], "untils": [], "limit": 10, "exempt": "", "now": NOW, **bounds}
            assert await rows_read(stores, gating.RELEASE_PLAIN, parameters) == 0
            assert await rows_read(stores, gating._LANES, {"until": NOW}) <= 10

    run(scenario())


def test_release_goes_by_its_indexes_on_a_table_that_was_never_analyzed(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            await fill(stores, 1)
            # As when a new database gets its first thousands: the planner knows nothing.
            await stores.query("CREATE TABLE kept AS SELECT * FROM executions")
            await stores.query("TRUNCATE executions")
            await stores.query("ALTER TABLE executions SET (autovacuum_enabled = false)")
            await stores.query("INSERT INTO executions SELECT * FROM kept")
            (lane,) = await stores.query("SELECT hashtext(%s) AS n", SEND)
            parameters = {"lanes": [lane["n"]], "caps": [100], "untils": [NOW], "limit": 1000, "exempt": "", "now": NOW}
            for mode in ("force_generic_plan", "force_custom_plan"):
                await stores.query(f"ALTER DATABASE {database_url.rpartition('/')[2]} SET plan_cache_mode = {mode}")
                async with open_stores(database_url) as fresh:
                    bounds = {"queue": "HIGH", "probes": [], "room": 100, **parameters}
                    assert await rows_read(fresh, gating.RELEASE_PLAIN, bounds) <= 1000, mode

    run(scenario())


def test_every_job_with_something_held_gets_its_turn_however_many_there_are(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(releasing, "BUFFERED_JOBS", 3)

    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            worker = await stores.worker()
            claims: dict[UUID, Any] = {}
            made: list[Job] = []
            for _ in range(10):
                schedule = once(NOW)
                made += await stores.create(new_job(NOW, schedule=schedule, overlap=OverlapPolicy.BUFFER_ALL))
                claims[made[-1].uid] = schedule.plan_uid
            first = await stores.running(worker, *claims.values())
            await stores.query(
                "INSERT INTO executions (uid, job_uid, origin, target, queue, owner, state, nominal_time, due_time, "
                "ready_time, expire_time, overlap, held_by) SELECT gen_random_uuid(), job_uid, origin, target, queue, "
                "owner, 'PENDING', nominal_time, due_time, ready_time, expire_time, overlap, 'OVERLAP' FROM executions"
            )
            assert [await stores.released() for _ in range(5)] == [[]] * 5
            for claim in first:
                await stores.record(claim)
            released = [await stores.released() for _ in range(5)]
            assert sum(len(each) for each in released) == 10
            assert all(len(each) <= 3 for each in released)

    run(scenario())


def test_what_is_due_for_a_service_that_is_shut_is_held_in_pieces_and_in_nobodys_way(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gating, "HOLD_PIECE", 2)

    async def scenario() -> None:
        async with open_stores(database_url, batch=4) as stores:
            await stores.query("INSERT INTO breakers (service, state) VALUES ('messaging.MessagingService', 'OPEN')")
            dead = [await stores.one_off() for _ in range(5)]
            live = [await stores.one_off(target="media.MediaService/CleanupTempFiles") for _ in range(30)]
            dead += [await stores.one_off() for _ in range(5)]
            await stores.query(
                "UPDATE executions SET ready_time = %s - interval '1 s' WHERE uid = ANY(%s)", NOW, dead[:5]
            )
            await stores.query(
                "UPDATE executions SET ready_time = %s + interval '1 s' WHERE uid = ANY(%s)", NOW, dead[5:]
            )
            stores.clock.advance(2)
            released: list[UUID] = []
            for _ in range(12):
                released += await stores.released()
            assert sorted(released) == sorted(live)
            rows = await stores.query("SELECT held_by FROM executions WHERE uid = ANY(%s)", dead)
            assert {row["held_by"] for row in rows} == {"BREAKER:messaging.MessagingService"}

    run(scenario())


def test_the_executions_of_all_jobs_are_not_ordered_by_nominal_time(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            ports: Any = type("Ports", (), {"store": stores.store})
            for order in ("nominal_time", " nominal_time  desc"):
                query = ListQuery(page_size=10, page_token="", filter="", order_by=order, with_payload=False)
                with pytest.raises(InvalidRequest) as refused:
                    await execution_cases.list_executions(ports, None, query)
                (violation,) = refused.value.violations
                assert violation.field == "order_by"
                assert "create_time" in violation.description

    run(scenario())


def test_filters_of_any_form_do_not_fill_the_statements_that_are_kept(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            engine = stores.database._engine.sync_engine
            kept = engine.get_execution_options()["compiled_cache"]
            for count in range(30, 90, 4):
                for op in ("=", "!="):
                    text = " ".join([f'owner {op} "x"'] * count)
                    filter_ = parse_filter(text, execution_cases.EXECUTION_FIELDS)
                    await stores.store.list_executions(None, PageRequest(1, "create_time", True, filter_))
            assert len(kept) > 10
            assert STATEMENTS_BYTES / 2 < kept.weight <= STATEMENTS_BYTES
            assert not engine._compiled_cache

    run(scenario())


def test_a_statement_is_weighed_about_right() -> None:
    dialect: Any = psycopg.dialect()  # type: ignore[no-untyped-call]  # the library left it untyped
    kept = Kept[Any, sa.Compiled](1 << 30, database._weigh)
    for text in ("", 'owner = "x" ' * 90):
        page = PageRequest(50, "create_time", descending=True, filter=parse_filter(text, job_cases.JOB_FIELDS))
        jobs.select_page(page)._compile_w_cache(dialect, compiled_cache=None, column_keys=[])
        gc.collect()
        tracemalloc.start()
        select: Any = jobs.select_page(page)
        select._compile_w_cache(dialect, compiled_cache=kept, column_keys=[])
        del select
        gc.collect()
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert held / 3 < kept.weight < held * 3
        kept.clear()
