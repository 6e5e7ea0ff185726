"""Connections to PostgreSQL: what a break costs, and that whoever waits gets one again."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import psycopg
import pytest

from scheduling.domain.errors import StoreUnavailable
from scheduling.storage.database import Database
from tests.support.proxy import Proxy
from tests.support.run import run

CONNECTIONS = 5


async def ask(database: Database, statement: str = "SELECT 1") -> None:
    async with database.hot() as connection:
        await connection.execute(statement.encode())


async def fill(database: Database) -> None:
    """Makes all connections, and leaves them idle."""
    barrier = asyncio.Barrier(CONNECTIONS)

    async def hold() -> None:
        async with database.hot():
            await barrier.wait()

    await asyncio.gather(*(hold() for _ in range(CONNECTIONS)))


def test_one_broken_connection_is_enough_to_give_up_all_that_broke_with_it(database_url: str) -> None:
    async def scenario() -> None:
        async with Database(database_url, application="purged", size=CONNECTIONS) as database:
            await fill(database)
            with psycopg.connect(database_url, autocommit=True) as other:
                ended = (
                    "SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity WHERE application_name = 'purged'"
                )
                assert len(other.execute(ended).fetchall()) == CONNECTIONS
            with pytest.raises(StoreUnavailable):
                await ask(database)
            for _ in range(CONNECTIONS):
                await ask(database)

    run(scenario())


def test_statements_that_break_together_give_up_the_others_once(database_url: str) -> None:
    async def scenario() -> None:
        async with Proxy(database_url) as proxy, Database(proxy.url, application="once", size=CONNECTIONS) as database:
            await fill(database)
            asked = [asyncio.create_task(ask(database, "SELECT pg_sleep(1)")) for _ in range(2)]
            with psycopg.connect(database_url, autocommit=True) as other:
                running = (
                    "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(1)' AND state = 'active'"
                )
                while other.execute(running).fetchall() != [(2,)]:  # noqa: ASYNC110 - PostgreSQL tells nobody
                    await asyncio.sleep(0)  # noqa: TID251 - lets the statements reach it
            proxy.cut()
            assert [type(each) for each in await asyncio.gather(*asked, return_exceptions=True)] == [
                StoreUnavailable
            ] * 2
            for _ in range(CONNECTIONS):
                await ask(database)
            # Those that were idle and those that broke, once each, beside the first ones.
            assert proxy.connections <= 2 * CONNECTIONS

    run(scenario())


def test_whoever_waits_while_postgresql_is_away_gets_a_connection_when_it_is_back(database_url: str) -> None:
    async def scenario() -> None:
        async with Proxy(database_url) as proxy:
            proxy.refuse()
            async with Database(
                proxy.url, application="waiting", size=2, hot_timeout=timedelta(seconds=30)
            ) as database:
                waiting = asyncio.create_task(ask(database))
                # Several tries have failed; nobody else asks.
                await proxy.changed.until(lambda: proxy.connections >= 6)
                proxy.restore()
                await waiting

    run(scenario())
