"""Both servers in one folder: everything that the service needs on one machine."""

import contextlib
import os
import pwd
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from scheduling.embedded.postgres import EmbeddedPostgres
from scheduling.embedded.server import ServerStatus, make_folder
from scheduling.embedded.valkey import EmbeddedValkey


@dataclass(frozen=True, slots=True)
class StackStatus:
    """What runs in the folder, whoever owns it."""

    postgres: ServerStatus
    valkey: ServerStatus

    @property
    def running(self) -> bool:
        """True if both servers have a living owner."""
        return self.postgres.running and self.valkey.running


class EmbeddedStack:
    """PostgreSQL and Valkey in `<folder>/postgres` and `<folder>/valkey`; started and stopped together."""

    def __init__(
        self,
        folder: Path,
        *,
        postgres_settings: Mapping[str, str] | None = None,
        valkey_settings: Mapping[str, str] | None = None,
        postgres_port: int | None = None,
        valkey_port: int | None = None,
    ) -> None:
        self.folder = folder.expanduser().resolve()
        self.postgres = EmbeddedPostgres(self.folder / "postgres", settings=postgres_settings, port=postgres_port)
        self.valkey = EmbeddedValkey(self.folder / "valkey", settings=valkey_settings, port=valkey_port)
        self._held: ExitStack | None = None

    @property
    def database_url(self) -> str:
        """PostgreSQL's URL. Raises EmbeddedError unless started."""
        return self.postgres.url

    @property
    def redis_url(self) -> str:
        """Valkey's URL. Raises EmbeddedError unless started."""
        return self.valkey.url

    def start(self) -> None:
        """Starts both, or none. Raises AlreadyRunning if either has a living owner, EmbeddedError if one fails."""
        make_folder(self.folder)
        with ExitStack() as undo:
            undo.enter_context(self.postgres)
            undo.enter_context(self.valkey)
            self._held = undo.pop_all()

    def stop(self) -> None:
        """Stops both, Valkey first. Does nothing unless started."""
        held, self._held = self._held, None
        if held is not None:
            held.close()

    def status(self) -> StackStatus:
        """Returns what runs in the folder, by this process or another."""
        return StackStatus(postgres=self.postgres.status(), valkey=self.valkey.status())

    def remove(self) -> None:
        """Deletes both servers' data for good, and the folder if then empty. Raises AlreadyRunning if either lives."""
        self.valkey.remove()
        self.postgres.remove()
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def default_data_dir(environment: Mapping[str, str]) -> Path:
    """Returns the service's folder in the user's data directory, the one place to delete; it is not made here.

    `environment` gives XDG_DATA_HOME (used if absolute, as the XDG Base Directory specification says) and HOME.
    """
    given = Path(environment.get("XDG_DATA_HOME", ""))
    home = Path(environment.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir)
    usual = home / ("Library/Application Support" if sys.platform == "darwin" else ".local/share")
    return (given if given.is_absolute() else usual) / "whispr-scheduling"
