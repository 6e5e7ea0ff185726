"""Connections to PostgreSQL, and what its errors mean.

Two ways in: `hot()` lends a psycopg connection in autocommit for the hand-written statements of the hot paths,
where one statement is one transaction and one round trip; `begin()` opens a SQLAlchemy transaction for everything else.
Both have statement, lock and idle timeouts on the server and a bound on the client, so that a hung link ends as an
error too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self

import psycopg
import sqlalchemy as sa
from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolTimeout, TooManyRequests
from sqlalchemy.engine import Compiled, make_url
from sqlalchemy.ext.asyncio import AsyncConnection as SaConnection
from sqlalchemy.ext.asyncio import create_async_engine

from scheduling.domain.errors import StoreUnavailable
from scheduling.domain.kept import Kept
from scheduling.storage.binary import Encoded, EncodedDumper

#: The moment of a statement: the database's clock, or what a test has bound.
NOW = "coalesce(%(now)s::timestamptz, now())"

#: Seconds between two tries to connect. psycopg's pool would wait one, then two.
RECONNECT_SECONDS = 0.2

#: Bytes of SQLAlchemy's compiled statements that are kept. Callers make new ones with each new form of a filter: a list
#: of executions is 400 KB, or 900 with as many comparisons as there may be.
STATEMENTS_BYTES = 12 * 1024 * 1024
#: What a compiled statement holds for each character of its SQL: 25 to 75 bytes, as tracemalloc counts.
_BYTES_PER_CHARACTER = 60

#: The client gives a statement this much longer than the server does before it gives up on the link.
CLIENT_SLACK = timedelta(seconds=1)


def sqlalchemy_url(url: str) -> sa.URL:
    """A `postgresql://` URL with psycopg named as the driver."""
    return make_url(url).set(drivername="postgresql+psycopg")


#: For statements that look up a few rows by key in tables of any size: whatever the planner believes of a table that
#: has just grown or shrunk, no other plan is right, and one plan is made for each connection, not one each time.
_BY_KEY = " -c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off -c plan_cache_mode=force_generic_plan"


def _server_options(statement: timedelta) -> str:
    millis = int(statement.total_seconds() * 1000)
    return (
        f"-c statement_timeout={millis} -c lock_timeout={millis} -c idle_in_transaction_session_timeout={millis * 2} "
        "-c timezone=UTC -c jit=off"
    )


def _weigh(_key: object, compiled: Compiled) -> int:
    return _BYTES_PER_CHARACTER * len(str(compiled))


async def _grow_again(pool: AsyncConnectionPool[Any]) -> None:
    """Goes on trying to connect: whoever waits for a connection has no other way to get one."""
    await pool.check()


@dataclass(frozen=True, slots=True)
class ClockReading:
    """What the database's clock said, and the monotonic seconds around the round trip."""

    now: datetime
    sent: float
    received: float


async def read_clock(
    connection: AsyncConnection[TupleRow], database: Database, monotonic: Callable[[], float]
) -> ClockReading:
    """Reads the database's clock by itself, on a connection that is there already: no connecting, no commit in
    between.
    """
    sent = monotonic()
    cursor = await connection.execute(
        "SELECT coalesce(%(now)s::timestamptz, clock_timestamp())", {"now": database.now()}
    )
    received = monotonic()
    row = await cursor.fetchone()
    assert row is not None
    return ClockReading(row[0], sent, received)


@asynccontextmanager
async def store_errors(bound: timedelta) -> AsyncIterator[None]:
    """Turns everything that means "PostgreSQL cannot be used right now" into StoreUnavailable, after `bound` at the
    latest.

    A missing table counts as well: the migrations have not run yet. Errors of our own statements pass as they are.
    """
    with store_errors_sync():
        async with asyncio.timeout(bound.total_seconds()):
            yield


@contextmanager
def store_errors_sync() -> Iterator[None]:
    """`store_errors` without a bound, for code that is not async."""
    try:
        yield
    except (TimeoutError, PoolTimeout, TooManyRequests) as error:
        raise StoreUnavailable("the store did not answer in time") from error
    except sa.exc.DBAPIError as error:
        if isinstance(error.orig, Exception) and is_unavailable(error.orig):
            raise StoreUnavailable from error
        raise
    except sa.exc.TimeoutError as error:
        raise StoreUnavailable("no connection to the store was free in time") from error
    except psycopg.Error as error:
        if is_unavailable(error):
            raise StoreUnavailable from error
        raise


def is_unavailable(error: Exception) -> bool:
    """Whether the error says something of PostgreSQL's health or the link to it rather than of the statement."""
    if isinstance(error, psycopg.errors.UndefinedTable | psycopg.errors.UndefinedColumn):
        return True
    if isinstance(error, psycopg.errors.ReadOnlySqlTransaction) or is_stale(error):
        return True
    return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)


def is_stale(error: BaseException | None) -> bool:
    """Whether a statement was prepared on its connection before a migration changed what it returns ("cached plan must
    not change result type"). It fails there for ever, and on every other connection that is as old.
    """
    # The message is in the server's language; the function that raises it is not.
    return (
        isinstance(error, psycopg.errors.FeatureNotSupported) and error.diag.source_function == "RevalidateCachedQuery"
    )


def _give_up_stale(context: sa.engine.ExceptionContext) -> None:
    """Makes SQLAlchemy replace its connections, as it does for those that are lost."""
    if is_stale(context.original_exception):
        context.is_disconnect = True


class _Connection(AsyncConnection[TupleRow]):
    """Belongs to a generation of its pool, and is given up as soon as its statement is cancelled here.

    psycopg would ask the server to cancel it and wait for the end: ten seconds over a link that hangs, on top of every
    bound of ours. The server ends the statement by its own timeout.
    """

    #: How often its pool had been emptied when it was made.
    generation = 0

    async def _try_cancel(self, *, timeout: float = 5.0) -> None:  # noqa: ARG002 - psycopg's signature
        self.pgconn.finish()


async def _take_encoded(connection: AsyncConnection[TupleRow]) -> None:
    """Teaches a new connection the parameters of `binary`."""
    connection.adapters.register_dumper(Encoded, EncodedDumper)


class Database:
    """The pools of one process. `async with Database(...)` opens them without waiting for PostgreSQL to be there."""

    def __init__(
        self,
        url: str,
        *,
        application: str,
        size: int = 10,
        hot_timeout: timedelta = timedelta(seconds=2),
        maintenance_timeout: timedelta = timedelta(seconds=60),
        now: Callable[[], datetime] | None = None,
        by_key: bool = False,
    ) -> None:
        """`by_key` is for hot statements that find all their rows by key: it keeps the planner from anything else."""
        self._url = url
        self._now = now
        self.hot_timeout = hot_timeout
        self.maintenance_timeout = maintenance_timeout
        self.size = size
        link = {
            "application_name": application,
            "connect_timeout": 3,
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": 10_000,
        }
        self._generation = 0
        self._hot = AsyncConnectionPool[_Connection](
            url,
            connection_class=_Connection,
            kwargs={
                **link,
                "autocommit": True,
                "options": _server_options(hot_timeout) + (_BY_KEY if by_key else ""),
                "prepare_threshold": 1,
            },
            min_size=0 if size < 2 else 1,
            max_size=size,
            timeout=hot_timeout.total_seconds(),
            max_waiting=1000,
            max_idle=60,
            configure=self._prepare,
            reconnect_timeout=RECONNECT_SECONDS,
            reconnect_failed=_grow_again,
            open=False,
            name=application,
        )
        self._engine = create_async_engine(
            sqlalchemy_url(url),
            pool_size=max(2, size // 2),
            max_overflow=0,
            pool_timeout=hot_timeout.total_seconds(),
            pool_pre_ping=True,
            connect_args={
                **link,
                "options": _server_options(hot_timeout),
                "async_creator_fn": _Connection.connect,
            },
            execution_options={"compiled_cache": Kept[Any, Compiled](STATEMENTS_BYTES, _weigh)},
        )
        sa.event.listen(self._engine.sync_engine, "handle_error", _give_up_stale)

    async def __aenter__(self) -> Self:
        await self._hot.open(wait=False)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._hot.close(timeout=2)
        await self._engine.dispose()

    @asynccontextmanager
    async def hot(self) -> AsyncIterator[AsyncConnection[TupleRow]]:
        """A psycopg connection in autocommit. Raises StoreUnavailable."""
        async with store_errors(self.hot_timeout + CLIENT_SLACK), self._hot.connection() as connection:
            try:
                yield connection
            except psycopg.errors.FeatureNotSupported as error:
                if is_stale(error):
                    await self._hot.drain()
                raise
            finally:
                if connection.closed:
                    await self._purge(connection)

    async def _prepare(self, connection: _Connection) -> None:
        connection.generation = self._generation
        await _take_encoded(connection)

    async def _purge(self, broken: _Connection) -> None:
        """Gives all idle connections up when one has broken: the others have most probably too, and each would fail
        somebody else. Those made since the last time are left alone.
        """
        if broken.generation == self._generation:
            self._generation += 1
            await self._hot.drain()

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[SaConnection]:
        """A SQLAlchemy transaction, committed at the end. Raises StoreUnavailable."""
        async with store_errors(self.hot_timeout * 2 + CLIENT_SLACK), self._engine.begin() as connection:
            yield connection

    @asynccontextmanager
    async def maintain(self) -> AsyncIterator[SaConnection]:
        """Like `begin`, with the longer timeout of maintenance."""
        async with store_errors(self.maintenance_timeout + CLIENT_SLACK), self._engine.begin() as connection:
            millis = int(self.maintenance_timeout.total_seconds() * 1000)
            await connection.execute(sa.text(f"SET LOCAL statement_timeout = {millis}"))
            yield connection

    async def reach(self) -> None:
        """Connects once, before the pools are opened, which would try without end. Raises StoreUnavailable."""
        await (await self.connect_for_listening()).close()

    async def connect_for_listening(self) -> AsyncConnection[TupleRow]:
        """A connection of its own, for LISTEN. Raises StoreUnavailable."""
        async with store_errors(timedelta(seconds=5)):
            return await AsyncConnection.connect(self._url, autocommit=True, connect_timeout=3)

    def now(self) -> datetime | None:
        """What NOW is bound to: None, so that the database's clock counts, except in tests that hold the clock."""
        return None if self._now is None else self._now()

    def moment(self) -> sa.ColumnElement[datetime]:
        """NOW for SQLAlchemy's statements."""
        return sa.func.now() if self._now is None else sa.literal(self._now(), sa.DateTime(timezone=True))

    def moment_after_waiting(self) -> sa.ColumnElement[datetime]:
        """The moment of the statement rather than of its transaction, which may have waited for a lock since."""
        return sa.func.clock_timestamp() if self._now is None else self.moment()

    def stats(self) -> tuple[int, int]:
        """Hot connections in use, and how many there may be."""
        stats = self._hot.get_stats()
        return int(stats.get("pool_size", 0)) - int(stats.get("pool_available", 0)), self.size
