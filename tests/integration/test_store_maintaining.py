"""Upkeep of the tables: nobody who records or reads waits for it, and what it cannot do now it does later."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
import pytest

from scheduling.domain.errors import StoreUnavailable
from scheduling.domain.lifecycle import State
from scheduling.storage.database import Database
from scheduling.storage.maintaining import MaintenanceStore
from scheduling.storage.migrate import migrate, partition_statements
from tests.support.run import run
from tests.support.stores import Stores, open_stores

DAY = timedelta(days=1)


def today() -> date:
    return datetime.now(UTC).date()  # noqa: TID251 - partitions are made by the real date


def name_of(day: date) -> str:
    return f"execution_history_{day:%Y%m%d}"


@asynccontextmanager
async def holding(url: str, statement: str) -> AsyncIterator[None]:
    """Somebody else's transaction that has run `statement` and stays open."""
    async with await psycopg.AsyncConnection.connect(url) as connection:
        await connection.execute(statement)
        yield
        await connection.rollback()


async def partitions(stores: Stores) -> set[str]:
    found = await stores.query("SELECT relid::text AS name FROM pg_partition_tree('execution_history') WHERE isleaf")
    return {row["name"] for row in found}


async def put_into_history(stores: Stores, day: date) -> Any:
    """Ends an execution, and makes it go on `day`."""
    uid = await stores.one_off()
    (claim,) = await stores.running(await stores.worker(), uid)
    assert await stores.record(claim, State.SUCCEEDED)
    await stores.query("UPDATE execution_history SET prune_day = %s WHERE uid = %s", day, uid)
    return uid


async def make_old(stores: Stores, day: date) -> None:
    await stores.query(
        f"CREATE TABLE {name_of(day)} PARTITION OF execution_history FOR VALUES FROM ('{day}') TO ('{day + DAY}')"
    )


async def shape(stores: Stores, table: str) -> tuple[list[Any], list[Any], list[Any]]:
    columns = await stores.query(
        "SELECT attname, atttypid, attnotnull, attcompression, attstorage FROM pg_attribute "
        "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        table,
    )
    checks = await stores.query(
        "SELECT conname, pg_get_constraintdef(oid) AS definition FROM pg_constraint "
        "WHERE conrelid = %s::regclass AND contype = 'c' ORDER BY conname",
        table,
    )
    indexes = await stores.query(
        "SELECT regexp_replace(pg_get_indexdef(i.indexrelid), 'INDEX .* USING', 'INDEX USING') AS definition "
        "FROM pg_index i JOIN pg_inherits h ON h.inhrelid = i.indexrelid WHERE i.indrelid = %s::regclass ORDER BY 1",
        table,
    )
    return columns, checks, indexes


def test_a_partition_that_is_made_is_like_the_others(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            made = await shape(stores, name_of(today() + DAY * 20))
            assert made == await shape(stores, "execution_history_permanent")
            assert all(made)

    run(scenario())


def test_a_partition_is_made_while_others_record(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            soon, kept = today() + DAY * 20, today() + DAY * 19
            await put_into_history(stores, kept)
            await stores.query(f"DROP TABLE {name_of(soon)}")
            columns = ", ".join(row["attname"] for row in (await shape(stores, "execution_history"))[0])
            recording = (
                f"INSERT INTO execution_history ({columns}) SELECT {columns} FROM {name_of(kept)} "
                f"WHERE prune_day = '{kept}'"
            )
            async with holding(database_url, recording):
                await MaintenanceStore(stores.database).tend_history()
                assert name_of(soon) in await partitions(stores)

    run(scenario())


@pytest.mark.parametrize("what", ["make", "drop"])
def test_upkeep_that_gets_no_lock_is_put_off_without_an_error(database_url: str, what: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            store = MaintenanceStore(stores.database)
            soon, old = today() + DAY * 20, today() - DAY * 10
            if what == "make":
                await stores.query(f"DROP TABLE {name_of(soon)}, {name_of(soon + DAY)}")
            else:
                await make_old(stores, old)
                await make_old(stores, old + DAY)
            before = await partitions(stores)
            async with holding(database_url, "SELECT count(*) FROM execution_history"):
                assert await store.tend_history() == 0
                assert await partitions(stores) == before
            assert await store.tend_history() == (0 if what == "make" else 2)
            after = await partitions(stores)
            assert {name_of(soon), name_of(soon + DAY)} <= after
            assert not {name_of(old), name_of(old + DAY)} & after

    run(scenario())


def test_a_process_starts_although_a_partition_cannot_be_made_now(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            soon = today() + DAY * 20
            await stores.query(f"DROP TABLE {name_of(soon)}")
            async with holding(database_url, "SELECT count(*) FROM execution_history"):
                migrate(database_url)
            assert name_of(soon) not in await partitions(stores)
            migrate(database_url)
            assert name_of(soon) in await partitions(stores)

    run(scenario())


def test_rows_of_a_day_without_a_partition_move_into_it_when_it_is_made(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            soon, far = today() + DAY * 20, today() + DAY * 400
            await stores.query(f"DROP TABLE {name_of(soon)}")
            uids = [await put_into_history(stores, day) for day in (soon, soon, far)]
            before = [await stores.ended(uid) for uid in uids]

            async def places() -> list[str]:
                select = "SELECT tableoid::regclass::text AS name FROM execution_history WHERE uid = %s"
                return [row["name"] for uid in uids for row in await stores.query(select, uid)]

            assert await places() == ["execution_history_other"] * 3
            await MaintenanceStore(stores.database).tend_history()
            assert await places() == [name_of(soon), name_of(soon), "execution_history_other"]
            assert [await stores.ended(uid) for uid in uids] == before

    run(scenario())


def test_a_partition_that_cannot_be_made_for_another_reason_keeps_none_from_being_dropped(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            soon, old = today() + DAY * 20, today() - DAY * 10
            await stores.query(f"DROP TABLE {name_of(soon)}")
            # Its range is taken by one of another name.
            await stores.query(
                f"CREATE TABLE taken PARTITION OF execution_history FOR VALUES FROM ('{soon}') TO ('{soon + DAY}')"
            )
            await make_old(stores, old)
            assert await MaintenanceStore(stores.database).tend_history() == 1
            assert name_of(soon) not in await partitions(stores)

    run(scenario())


def test_making_partitions_again_changes_nothing(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            before = await partitions(stores)
            for name, statement in partition_statements(today())[:3]:
                assert name in before
                await stores.query(statement)
            assert await partitions(stores) == before

    run(scenario())


def test_a_statement_prepared_before_a_migration_fails_once_and_then_works(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores, Database(database_url, application="tests", size=2) as database:

            async def hot() -> int:
                async with database.hot() as connection:
                    cursor = await connection.execute("SELECT * FROM calendars")
                    return len(cursor.description or ())

            async def cold() -> int:
                async with database.begin() as connection:
                    return len((await connection.exec_driver_sql("SELECT * FROM calendars")).keys())

            for n, ask in enumerate((hot, cold)):
                (before,) = {await ask() for _ in range(8)}
                await stores.query(f"ALTER TABLE calendars ADD COLUMN added_{n} text")
                with pytest.raises(StoreUnavailable):
                    await ask()
                assert await ask() == before + 1

    run(scenario())


def test_a_statement_of_ours_that_is_not_supported_is_no_outage(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            with pytest.raises(psycopg.errors.FeatureNotSupported):
                async with stores.database.hot() as connection:
                    await connection.execute("SELECT count(DISTINCT uid) OVER () FROM jobs")

    run(scenario())
