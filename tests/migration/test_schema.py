"""The schema: made by the migrations, the same as the tables in code, and in step with the life of an execution."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from psycopg.rows import dict_row
from sqlalchemy.dialects import postgresql

from scheduling.domain.lifecycle import FINAL, State
from scheduling.storage.maintaining import MaintenanceStore
from scheduling.storage.migrate import PARTITION_DAYS_AHEAD, head_revision, migrate
from scheduling.storage.tables import metadata
from tests.support.clock import ManualClock
from tests.support.run import run
from tests.support.stores import open_stores


def query(url: str, statement: str, *parameters: Any) -> list[dict[str, Any]]:
    with psycopg.connect(url, row_factory=dict_row) as connection:
        return connection.execute(statement, parameters).fetchall()


def revisions(url: str) -> list[str]:
    return [row["version_num"] for row in query(url, "SELECT version_num FROM alembic_version")]


def columns(url: str) -> set[tuple[str, str]]:
    rows = query(url, "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'")
    return {(row["table_name"], row["column_name"]) for row in rows}


def test_an_empty_database_is_brought_to_the_head_and_again_changes_nothing(empty_database_url: str) -> None:
    migrate(empty_database_url)
    assert revisions(empty_database_url) == [head_revision()]
    before = columns(empty_database_url)
    migrate(empty_database_url)
    assert revisions(empty_database_url) == [head_revision()]
    assert columns(empty_database_url) == before


def test_several_processes_may_migrate_at_once(empty_database_url: str) -> None:
    async def scenario() -> None:
        await asyncio.gather(*(asyncio.to_thread(migrate, empty_database_url) for _ in range(3)))

    run(scenario())
    assert revisions(empty_database_url) == [head_revision()]


def test_down_and_up_again_makes_the_same_schema(empty_database_url: str) -> None:
    from alembic import command

    from scheduling.storage.database import sqlalchemy_url
    from scheduling.storage.migrate import _config

    migrate(empty_database_url)
    before = columns(empty_database_url)
    engine = sa.create_engine(sqlalchemy_url(empty_database_url), poolclass=sa.NullPool)
    with engine.begin() as connection:
        config = _config()
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    engine.dispose()
    assert {table for table, _ in columns(empty_database_url)} == {"alembic_version"}
    migrate(empty_database_url)
    assert columns(empty_database_url) == before


def test_a_migration_that_fails_leaves_nothing_behind(empty_database_url: str) -> None:
    with psycopg.connect(empty_database_url) as connection:
        connection.execute("CREATE TABLE breakers (in_the_way int)")
    with pytest.raises(sa.exc.ProgrammingError):
        migrate(empty_database_url)
    assert {table for table, _ in columns(empty_database_url)} == {"breakers"}


#: PostgreSQL's names of the types that SQLAlchemy declares.
NAMES = {
    "TIMESTAMP WITH TIME ZONE": "timestamp with time zone",
    "DOUBLE PRECISION": "double precision",
    "BYTEA": "bytea",
    "TEXT[]": "ARRAY",
    "UUID[]": "ARRAY",
}


@pytest.mark.parametrize("table", metadata.sorted_tables, ids=lambda table: table.name)
def test_a_table_in_code_has_the_columns_and_types_of_the_migrations(database_url: str, table: sa.Table) -> None:
    rows = query(
        database_url,
        "SELECT column_name, data_type, is_nullable FROM information_schema.columns WHERE table_name = %s",
        table.name,
    )
    stored = {row["column_name"]: row["data_type"] for row in rows}
    dialect: Any = postgresql.dialect()  # type: ignore[no-untyped-call]  # the library left it untyped
    declared = {}
    for column in table.c:
        text = column.type.compile(dialect=dialect)
        declared[column.name] = NAMES.get(text, text.lower())
    assert declared == stored


@pytest.mark.parametrize("table", metadata.sorted_tables, ids=lambda table: table.name)
def test_a_primary_key_in_code_is_never_null_in_the_database(database_url: str, table: sa.Table) -> None:
    rows = query(
        database_url,
        "SELECT column_name FROM information_schema.columns WHERE table_name = %s AND is_nullable = 'NO'",
        table.name,
    )
    required = {row["column_name"] for row in rows}
    assert {column.name for column in table.primary_key} <= required


def test_no_table_of_the_database_is_missing_in_code(database_url: str) -> None:
    rows = query(
        database_url,
        "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition "
        "AND relnamespace = 'public'::regnamespace",
    )
    assert {row["relname"] for row in rows} == {table.name for table in metadata.sorted_tables} | {"alembic_version"}


def test_the_history_has_the_columns_of_the_live_table_that_it_takes_over(database_url: str) -> None:
    statement = (
        "SELECT column_name, data_type, is_nullable, column_default FROM information_schema.columns "
        "WHERE table_name = %s"
    )
    live = {row["column_name"]: row for row in query(database_url, statement, "executions")}
    for row in query(database_url, statement, "execution_history"):
        if row["column_name"] != "prune_day":
            assert live[row["column_name"]] == row


def states_of(url: str, constraint: str) -> set[State]:
    # Each partition has its own, word for word.
    statement = "SELECT DISTINCT pg_get_constraintdef(oid) AS text FROM pg_constraint WHERE conname = %s"
    (row,) = query(url, statement, constraint)
    return {State(word) for word in re.findall(r"'([A-Z]+)'", row["text"])}


def test_the_constraints_name_the_states_of_the_life_of_an_execution(database_url: str) -> None:
    assert states_of(database_url, "executions_state_check") == set(State)
    assert states_of(database_url, "executions_live_check") == set(State) - FINAL
    assert states_of(database_url, "execution_history_final_check") == FINAL | {State.FAILED}


@pytest.mark.parametrize(
    ("column", "enum"),
    [
        ("executions_origin_check", "scheduling.domain.execution:Origin"),
        ("executions_queue_check", "scheduling.domain.target:Queue"),
        ("jobs_queue_check", "scheduling.domain.target:Queue"),
        ("jobs_overlap_policy_check", "scheduling.domain.job:OverlapPolicy"),
        ("jobs_after_lost_worker_check", "scheduling.domain.target:AfterLostWorker"),
    ],
)
def test_a_constraint_of_words_names_those_of_its_enum(database_url: str, column: str, enum: str) -> None:
    from importlib import import_module

    module, _, name = enum.partition(":")
    (row,) = query(
        database_url, "SELECT pg_get_constraintdef(oid) AS text FROM pg_constraint WHERE conname = %s", column
    )
    words = set(re.findall(r"'([A-Z_]+)'", row["text"]))
    assert words == {member.value for member in getattr(import_module(module), name)}


def test_every_day_of_the_coming_weeks_has_its_partition(database_url: str) -> None:
    rows = query(database_url, "SELECT relid::text AS name FROM pg_partition_tree('execution_history') WHERE isleaf")
    names = {row["name"] for row in rows}
    today = datetime.now(UTC).date()  # noqa: TID251 - partitions are made by the real date
    for n in range(1, PARTITION_DAYS_AHEAD - 1):
        assert f"execution_history_{today + timedelta(days=n):%Y%m%d}" in names


def test_partitions_whose_day_has_passed_are_dropped_and_others_stay(database_url: str) -> None:
    async def scenario() -> None:
        today = datetime.now(UTC).date()  # noqa: TID251 - partitions are made by the real date
        old = today - timedelta(days=10)
        async with open_stores(database_url, ManualClock()) as stores:
            await stores.query(
                f"CREATE TABLE execution_history_{old:%Y%m%d} PARTITION OF execution_history "
                f"FOR VALUES FROM ('{old}') TO ('{old + timedelta(days=1)}')"
            )
            soon = today + timedelta(days=20)
            await stores.query(f"DROP TABLE execution_history_{soon:%Y%m%d}")
            store = MaintenanceStore(stores.database)
            assert await store.tend_history() == 1
            assert await store.tend_history() == 0
            names = {
                row["name"]
                for row in await stores.query(
                    "SELECT relid::text AS name FROM pg_partition_tree('execution_history') WHERE isleaf"
                )
            }
            assert f"execution_history_{old:%Y%m%d}" not in names
            assert f"execution_history_{soon:%Y%m%d}" in names
            assert "execution_history_permanent" in names

    run(scenario())
