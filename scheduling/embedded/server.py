"""The life of one embedded server: claim the folder, stop leftovers, start, watch, stop. Both servers share it."""

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from scheduling.embedded.account import Account
from scheduling.embedded.claim import Claim, Owner, look, read
from scheduling.embedded.errors import AlreadyRunning, EmbeddedError

#: The only address that anything listens on.
HOST = "127.0.0.1"
#: Seconds between two looks at a server that starts, or at a leftover that ends: neither of them tells.
_LOOK = 0.01
#: Seconds until a server must be ready. Long, as PostgreSQL may first have to replay its log.
_START = 60.0
#: Starts that may fail for a passing reason, and seconds between: backends of a killed PostgreSQL take a moment to go.
_ATTEMPTS, _AGAIN = 20, 0.25
#: Bytes of the log that an error shows.
_TAIL = 2000
#: Ends server $1 by signal $2 when its owner is gone: its standard input, a pipe, then ends without a line of farewell.
_WATCHER = 'read -r farewell || kill -s "$2" "$1"'
#: Becomes the server once told to, or ends if its owner does before: no server runs that is not watched and recorded.
_GATE = 'read -r go && exec "$@" </dev/null'


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """Whether a folder has a living owner, its process id, and the URL, which is None while the server is starting."""

    running: bool
    pid: int | None = None
    url: str | None = None


class EmbeddedServer(ABC):
    """A server in a folder of its own, used by `start` and `stop` or as a context manager.

    `settings` are the server's own settings by name, and win over the room's defaults; those that the room needs to
    keep its promises (address, port, folders) raise ValueError. `port` is a TCP port of 127.0.0.1; without it the port
    of the last run if it is free, or any free one. Not safe for use by two threads at once.
    """

    #: For people.
    name: ClassVar[str]
    #: Settings that the caller may not give.
    reserved: ClassVar[frozenset[str]]
    #: How to end the server: a signal and the seconds it has, from polite to certain.
    endings: ClassVar[Sequence[tuple[signal.Signals, float]]]
    #: Texts in the log of a failed start that say that another try may succeed.
    passing: ClassVar[Sequence[str]]

    def __init__(self, folder: Path, *, settings: Mapping[str, str] | None = None, port: int | None = None) -> None:
        self.folder = folder.expanduser().resolve()
        self.settings = dict(settings or {})
        if refused := sorted(name for name in self.settings if name.lower() in self.reserved):
            raise ValueError(f"{self.name} settings that cannot be changed here: {', '.join(refused)}")
        self._wanted_port = port
        self._port: int | None = None
        self._held: ExitStack | None = None

    @property
    def log(self) -> Path:
        """The log of the present run; the one before is beside it, with the suffix `.1`."""
        return self.folder / "server.log"

    @property
    def url(self) -> str:
        """The URL for clients in any process of this user. Raises EmbeddedError unless started."""
        if self._port is None:
            raise EmbeddedError(f"{self.name} in {self.folder} is not started")
        return self._url(self._port)

    def start(self) -> None:
        """Starts the server and returns once it answers.

        Raises AlreadyRunning if the folder has a living owner, EmbeddedError if the server does not come up.
        """
        with ExitStack() as undo:
            try:
                claim = self._claim()
                undo.callback(claim.release)
                last = self._end_leftover()
                account = Account.for_folder(self._data)
                claim.write(Owner(os.getpid()))
                self._prepare(account)
                with contextlib.suppress(FileNotFoundError):
                    self.log.replace(self.log.with_suffix(".log.1"))
                self.log.touch(0o600)
                owner = self._launch(account, claim, last.port, undo)
            except OSError as error:
                raise EmbeddedError(f"{self.name} cannot use {self.folder}: {error}") from error
            claim.write(owner)
            self._port = owner.port
            self._held = undo.pop_all()

    def stop(self) -> None:
        """Stops the server in the orderly way, or by force after a bounded wait. Does nothing unless started."""
        held, self._held, self._port = self._held, None, None
        if held is not None:
            held.close()

    def status(self) -> ServerStatus:
        """Returns whether the folder has a living owner, this process or another."""
        owner = look(self._lock)
        if owner is None:
            return ServerStatus(running=False)
        return ServerStatus(running=True, pid=owner.pid, url=self._url(owner.port) if owner.port else None)

    def remove(self) -> None:
        """Deletes the server's data for good. Deletes nothing that the room has not made itself.

        Raises AlreadyRunning if the folder has a living owner.
        """
        if not self.folder.exists():
            return
        claim = self._claim()
        try:
            self._end_leftover()
            for path in self._made():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
        finally:
            claim.release()
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    @property
    def _lock(self) -> Path:
        return self.folder / "lock"

    def _made(self) -> Sequence[Path]:
        return (self._data, self.log, self.log.with_suffix(".log.1"), self._lock)

    @abstractmethod
    def _url(self, port: int) -> str: ...

    @abstractmethod
    def _prepare(self, account: Account) -> None:
        """Makes the data folder ready for a start."""

    @abstractmethod
    def _command(self, port: int) -> Sequence[str]:
        """Returns the command line. It names the data folder, by which a leftover is known."""

    @abstractmethod
    def _ready(self, pid: int, port: int) -> bool:
        """Tells whether the server with this process id takes connections."""

    def _claim(self) -> Claim:
        make_folder(self.folder)
        claim = Claim.take(self._lock)
        if claim is None:
            status = self.status()
            raise AlreadyRunning(self.name, self.folder, status.pid, status.url)
        return claim

    def _end_leftover(self) -> Owner:
        """Ends a server that outlived its owner, who is returned: what the folder's last one wrote."""
        last = read(self._lock)
        if last.server is not None and self._serves(last.server):
            _end(last.server, self._has_left(last.server), self.endings)
        return last

    def _serves(self, pid: int) -> bool:
        """Tells whether a process is a server of this folder, rather than a stranger with the id of one that ended."""
        return str(self._data) in _command_line(pid)

    def _has_left(self, pid: int) -> Callable[[float], bool]:
        def ended(seconds: float) -> bool:
            for _ in range(round(seconds / _LOOK)):
                if not self._serves(pid):
                    return True
                time.sleep(_LOOK)
            return False

        return ended

    def _launch(self, account: Account, claim: Claim, last_port: int | None, undo: ExitStack) -> Owner:
        for attempt in range(1, _ATTEMPTS + 1):
            port = self._choose_port(last_port)
            command = self._command(port)
            with ExitStack() as failed, self.log.open("wb") as log:
                process = account.spawn(
                    ["/bin/sh", "-c", _GATE, "gate", *command],
                    uses=[self._data, Path(command[0])],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
                running = _Running(process, self.endings)
                failed.callback(running.end)
                running.watch(account)
                claim.write(Owner(os.getpid(), process.pid))
                _tell(process, b"go\n")
                if self._wait_until_ready(process, port):
                    undo.callback(failed.pop_all().close)
                    return Owner(os.getpid(), process.pid, port)
            text = self._tail()
            if attempt == _ATTEMPTS or not any(part in text for part in self.passing):
                break
            time.sleep(_AGAIN)
        raise EmbeddedError(f"{self.name} in {self.folder} did not start; {self.log} ends:\n{text}")

    def _choose_port(self, last_port: int | None) -> int:
        for port in (self._wanted_port,) if self._wanted_port else (last_port, 0):
            if port is None:
                continue
            with socket.socket() as probe, contextlib.suppress(OSError):
                # As the servers do, or the port of the last run would seem taken for a minute.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((HOST, port))
                return int(probe.getsockname()[1])
        raise EmbeddedError(f"{self.name} cannot have TCP port {self._wanted_port or ''} of {HOST}: it is taken")

    def _wait_until_ready(self, process: "subprocess.Popen[bytes]", port: int) -> bool:
        for _ in range(round(_START / _LOOK)):
            if self._ready(process.pid, port):
                return True
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_LOOK)
                return False
        return False

    def _tail(self) -> str:
        return self.log.read_bytes()[-_TAIL:].decode(errors="replace")


def make_folder(folder: Path) -> None:
    """Makes the folder and missing parents, for their owner alone; root's let the servers' user pass through."""
    mode = 0o711 if os.geteuid() == 0 else 0o700
    for step in reversed((folder, *folder.parents)):
        if not step.exists():
            step.mkdir(mode, exist_ok=True)
            step.chmod(mode)


def program(package: str, pattern: str) -> Path:
    """Returns a file of an installed wheel, without the wheel's import, which writes files and reads the environment.

    Raises EmbeddedError if the wheel is not installed, or has nothing for this kind of machine.
    """
    spec = importlib.util.find_spec(package)
    found = [file for place in (spec and spec.submodule_search_locations) or () for file in Path(place).glob(pattern)]
    if not found:
        raise EmbeddedError(f"no {package}/{pattern} on this machine: pip install 'whispr-scheduling[embedded]'")
    return found[0].resolve()


class _Running:
    """Our child, and the watcher that ends it should we die."""

    def __init__(self, process: "subprocess.Popen[bytes]", endings: Sequence[tuple[signal.Signals, float]]) -> None:
        self._process = process
        self._endings = endings
        self._watcher: subprocess.Popen[bytes] | None = None

    def watch(self, account: Account) -> None:
        """Starts the watcher. A pipe tells it: PR_SET_PDEATHSIG follows the thread that started the server, not us."""
        name = self._endings[0][0].name.removeprefix("SIG")
        self._watcher = account.spawn(
            ["/bin/sh", "-c", _WATCHER, "watcher", str(self._process.pid), name],
            uses=[],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def end(self) -> None:
        """Ends the server, then the watcher. If interrupted, the watcher does the rest."""
        try:
            if self._process.poll() is None:
                _end(self._process.pid, self._has_ended, self._endings)
        finally:
            self._dismiss()

    def _has_ended(self, seconds: float) -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self._process.returncode is not None

    def _dismiss(self) -> None:
        _tell(self._process, b"")
        if self._watcher is not None:
            _tell(self._watcher, b"farewell\n" if self._process.returncode is not None else b"")
            self._watcher.wait()


def _tell(process: "subprocess.Popen[bytes]", line: bytes) -> None:
    """Writes to a process that may have ended, and closes its input."""
    with contextlib.suppress(OSError):
        if process.stdin is not None and not process.stdin.closed:
            with process.stdin:
                process.stdin.write(line)


def _end(pid: int, ended: Callable[[float], bool], endings: Sequence[tuple[signal.Signals, float]]) -> None:
    for ending, seconds in endings:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, ending)
        if ended(seconds):
            return
    raise EmbeddedError(f"process {pid} does not end, not even by {endings[-1][0].name}")


def _command_line(pid: int) -> str:
    """Returns the command line of a process, empty if it has ended, reaped or not."""
    file = Path(f"/proc/{pid}/cmdline")
    if Path("/proc/self").exists():
        try:
            return file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return ""
    command = ["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout  # noqa: S603 - no outside input
