"""Real PostgreSQL and Valkey for a run of the tests, started when the first test asks.

Servers named by SCHEDULING_TEST_DATABASE_URL and SCHEDULING_TEST_REDIS_URL are used in place of the embedded ones. The
former must be allowed to create databases; the latter is only written to below names that no other run uses.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex

import psycopg
from psycopg import sql
from sqlalchemy.engine import make_url

from scheduling.embedded import EmbeddedPostgres, EmbeddedValkey
from scheduling.storage.migrate import migrate

DATABASE_VARIABLE = "SCHEDULING_TEST_DATABASE_URL"
REDIS_VARIABLE = "SCHEDULING_TEST_REDIS_URL"

#: The data of a test run may be lost with the machine. Commits stay synchronous, as those of the service are.
POSTGRES_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "autovacuum": "off",
    "min_wal_size": "32MB",
    "max_wal_size": "256MB",
}

#: A file system in memory, used when it has this many bytes to spare: a database per test is many small files.
MEMORY, ROOMY = Path("/dev/shm"), 2 * 1024**3


class Databases:
    """Makes databases on one server; each test has one of its own."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._run = token_hex(4)
        self._count = 0
        self._template: str | None = None

    def migrated(self) -> str:
        """The URL of a fresh database with the schema of this version: a copy of one that was migrated once."""
        if self._template is None:
            template = f"test_{self._run}_template"
            self._execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(template)))
            migrate(self._url_of(template))
            self._template = template
        return self._create(self._template)

    def empty(self) -> str:
        """The URL of a fresh database without a schema."""
        return self._create(None)

    def drop(self, url: str) -> None:
        """Drops a database of this run, ending the connections to it."""
        name = make_url(url).database
        assert name is not None
        assert name.startswith(f"test_{self._run}_")
        self._execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def close(self) -> None:
        """Drops the template."""
        if self._template is not None:
            self.drop(self._url_of(self._template))

    def _create(self, template: str | None) -> str:
        self._count += 1
        name = f"test_{self._run}_{self._count}"
        copy = sql.SQL("TEMPLATE {} STRATEGY FILE_COPY").format(sql.Identifier(template)) if template else sql.SQL("")
        self._execute(sql.SQL("CREATE DATABASE {} {}").format(sql.Identifier(name), copy))
        return self._url_of(name)

    def _url_of(self, name: str) -> str:
        return make_url(self._url).set(database=name).render_as_string(hide_password=False)

    def _execute(self, statement: sql.Composed) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(statement)


@contextmanager
def databases() -> Iterator[Databases]:
    """Databases on the server that is named, or on an embedded one in a temporary folder."""
    named = os.environ.get(DATABASE_VARIABLE)  # noqa: TID251 - the variables of the test suite
    if named:
        made = Databases(named)
        try:
            yield made
        finally:
            made.close()
        return
    place = MEMORY if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= ROOMY else None
    with (
        tempfile.TemporaryDirectory(prefix="scheduling-tests-", dir=place) as folder,
        EmbeddedPostgres(Path(folder) / "postgres", settings=POSTGRES_SETTINGS) as server,
    ):
        yield Databases(server.url)


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """The URL of the Redis that is named, or of an embedded Valkey in `folder`."""
    named = os.environ.get(REDIS_VARIABLE)  # noqa: TID251 - the variables of the test suite
    if named:
        yield named
        return
    with EmbeddedValkey(folder) as server:
        yield server.url
