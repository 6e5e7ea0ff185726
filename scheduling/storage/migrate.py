"""Brings a database to the revision that this version of the service needs.

Migrations run in one transaction under an advisory lock, so that several processes may start at once.
"""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from scheduling.storage.database import sqlalchemy_url

_LOCK = 0x57484953  # "WHIS": one migration at a time per database

#: History partitions are made this many days beyond the longest retention of a target.
PARTITION_DAYS_AHEAD = 45


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def head_revision() -> str:
    """The schema revision that this version of the service needs."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None
    return head


def migrate(url: str, revision: str = "head") -> None:
    """Upgrades the database at `url`; does nothing when it is there already."""
    engine = sa.create_engine(sqlalchemy_url(url), poolclass=sa.NullPool)
    try:
        with engine.connect() as connection:
            with connection.begin():
                connection.execute(sa.text("SET LOCAL lock_timeout = '10s'"))
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
                config = _config()
                config.attributes["connection"] = connection
                command.upgrade(config, revision)
            with connection.begin():
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
                today: date = connection.execute(sa.text("SELECT (now() AT TIME ZONE 'UTC')::date")).scalar_one()
                for statement in partition_statements(today):
                    connection.execute(sa.text(statement))
    finally:
        engine.dispose()


def partition_statements(today: date) -> list[str]:
    """The statements that make the history partitions from `today` on; each is harmless when repeated."""
    days = [today + timedelta(days=n) for n in range(PARTITION_DAYS_AHEAD)]
    return [
        f"CREATE TABLE IF NOT EXISTS execution_history_{day:%Y%m%d} PARTITION OF execution_history "
        f"FOR VALUES FROM ('{day}') TO ('{day + timedelta(days=1)}')"
        for day in days
    ]
