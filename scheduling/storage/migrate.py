"""Brings a database to the revision that this version of the service needs.

Migrations run in one transaction under an advisory lock, so that several processes may start at once.
"""

from __future__ import annotations

import re
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import sqlalchemy as sa

from scheduling.storage.database import sqlalchemy_url

if TYPE_CHECKING:
    from alembic.config import Config

_LOCK = 0x57484953  # "WHIS": one migration at a time per database

#: History partitions are made this many days beyond the longest retention of a target.
PARTITION_DAYS_AHEAD = 45

#: How long making or dropping a partition waits for a lock, in milliseconds. Whoever records or reads waits behind it.
PARTITION_LOCK_MS = 50

#: The partitions that there are.
PARTITIONS = "SELECT relid::text FROM pg_partition_tree('execution_history') WHERE isleaf"

# Attaching locks the history against other changes of the table only, where CREATE TABLE … PARTITION OF would lock it
# against recording too. The default partition is locked against everybody while it is searched for rows of that day;
# those move first, since no partition can be made for a day of which the default one has a row.
_MOVE_STRAYS = """
    WITH strays AS (
        DELETE FROM execution_history_other WHERE prune_day >= '{day}' AND prune_day < '{next}' RETURNING *
    )
    INSERT INTO {name} SELECT * FROM strays;
"""
_MAKE_PARTITION = f"""
DO $make$
BEGIN
    LOCK TABLE ONLY execution_history IN SHARE UPDATE EXCLUSIVE MODE;
    IF to_regclass('{{name}}') IS NOT NULL THEN
        RETURN;
    END IF;
    CREATE TABLE {{name}} (LIKE execution_history INCLUDING ALL);
    {_MOVE_STRAYS}
    LOCK TABLE execution_history_other IN ACCESS EXCLUSIVE MODE;
    -- What was recorded while the others moved.
    {_MOVE_STRAYS}
    ALTER TABLE execution_history ATTACH PARTITION {{name}} FOR VALUES FROM ('{{day}}') TO ('{{next}}');
END
$make$
"""


_MIGRATIONS = Path(__file__).parent / "migrations"
_REVISION = re.compile(r'^(down_)?revision = "(.+)"$', re.MULTILINE)


def _config() -> Config:
    from alembic.config import Config  # noqa: PLC0415 - dear, and only needed here

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    return config


def head_revision() -> str:
    """The schema revision that this version of the service needs: the one that no other migration follows.

    Read from the files' text: every server and worker asks, and Alembic with all that it imports would make a seventh
    of their start.
    """
    found = [_REVISION.findall(path.read_text("utf-8")) for path in (_MIGRATIONS / "versions").glob("*.py")]
    revisions = {name for each in found for down, name in each if not down}
    head: str
    (head,) = revisions - {name for each in found for down, name in each if down}
    return head


def migrate(url: str, revision: str = "head") -> None:
    """Upgrades the database at `url`; does nothing when it is there already."""
    from alembic import command  # noqa: PLC0415 - dear, and only needed here

    engine = sa.create_engine(sqlalchemy_url(url), poolclass=sa.NullPool)
    try:
        with engine.connect() as connection:
            with connection.begin():
                connection.execute(sa.text("SET LOCAL lock_timeout = '10s'"))
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
                config = _config()
                config.attributes["connection"] = connection
                command.upgrade(config, revision)
            _make_partitions(connection)
    finally:
        engine.dispose()


def _make_partitions(connection: sa.Connection) -> None:
    """Makes those that can be made at once. Housekeeping makes the others, and until then the default one serves."""
    with connection.begin():
        today: date = connection.execute(sa.text("SELECT (now() AT TIME ZONE 'UTC')::date")).scalar_one()
        existing = set(connection.scalars(sa.text(PARTITIONS)))
    for name, statement in partition_statements(today):
        if name in existing:
            continue
        try:
            with connection.begin():
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
                connection.execute(sa.text(f"SET LOCAL lock_timeout = {PARTITION_LOCK_MS}"))
                connection.execute(sa.text(statement))
        except sa.exc.OperationalError as error:
            if not isinstance(error.orig, psycopg.errors.LockNotAvailable):
                raise
            return


def partition_statements(today: date) -> list[tuple[str, str]]:
    """The history partitions from `today` on: the name of each and the statement that makes it, which is harmless when
    repeated. Each is for a transaction of its own.
    """
    days = [today + timedelta(days=n) for n in range(PARTITION_DAYS_AHEAD)]
    return [
        (name, _MAKE_PARTITION.format(name=name, day=day, next=day + timedelta(days=1)))
        for day, name in ((day, f"execution_history_{day:%Y%m%d}") for day in days)
    ]
