"""Fixtures for all rooms. Servers start when the first test asks for them, so unit tests pay nothing."""

from __future__ import annotations

from collections.abc import Iterator
from secrets import token_hex

import pytest
from hypothesis import settings

from scheduling.delivery.targets import TargetTable
from tests.support.servers import Databases, databases, redis_server

# How long an example takes says more about the machine than about the code; speed is measured in `bench/`.
settings.register_profile("whispr", deadline=None)
settings.load_profile("whispr")


@pytest.fixture(scope="session")
def database_server() -> Iterator[Databases]:
    """Real PostgreSQL, for the whole run."""
    with databases() as made:
        yield made


@pytest.fixture
def database_url(database_server: Databases) -> Iterator[str]:
    """A fresh database with the schema of this version, for one test."""
    url = database_server.migrated()
    yield url
    database_server.drop(url)


@pytest.fixture
def empty_database_url(database_server: Databases) -> Iterator[str]:
    """A fresh database without any schema, for one test."""
    url = database_server.empty()
    yield url
    database_server.drop(url)


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Real Valkey, for the whole run. Tests keep apart by `environment`."""
    with redis_server(tmp_path_factory.mktemp("valkey")) as url:
        yield url


@pytest.fixture
def environment() -> str:
    """A name for `SCHEDULING_ENVIRONMENT` that no other test uses: it is part of every name in Redis."""
    return f"test-{token_hex(6)}"


@pytest.fixture(scope="session")
def targets() -> TargetTable:
    """The real target table."""
    return TargetTable()
