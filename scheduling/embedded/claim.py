"""Who owns a folder: a lock that the kernel takes back when its holder dies."""

import fcntl
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

#: Tries for the lock, and seconds between them: `look` holds it for an instant, and must not make a start fail.
_TRIES, _PAUSE = 10, 0.02


@dataclass(frozen=True, slots=True)
class Owner:
    """What the lock file says: the owner's process id, its server's, and the server's TCP port once it is ready."""

    pid: int | None = None
    server: int | None = None
    port: int | None = None


class Claim:
    """The lock on one folder, held from `take` to `release`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def take(cls, path: Path) -> "Claim | None":
        """Locks the file, made if missing, or returns None if another holder lives."""
        for _ in range(_TRIES):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _same_file(descriptor, path):
                    return cls(descriptor)
            except BlockingIOError:
                pass
            os.close(descriptor)
            time.sleep(_PAUSE)
        return None

    def write(self, owner: Owner) -> None:
        """Says who holds the lock, in one write, so that a reader never sees half of it."""
        text = json.dumps(asdict(owner)).encode()
        os.ftruncate(self._descriptor, os.pwrite(self._descriptor, text, 0))

    def release(self) -> None:
        """Gives the folder back. The file stays: its port is the first choice of the next start."""
        os.close(self._descriptor)


def look(path: Path) -> Owner | None:
    """Returns the living owner, or None if nobody holds the lock."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return read(path)
    finally:
        os.close(descriptor)
    return None


def read(path: Path) -> Owner:
    """Returns what the last owner wrote, living or not."""
    try:
        values = json.loads(path.read_bytes())
        return Owner(pid=values["pid"], server=values["server"], port=values["port"])
    except (OSError, ValueError, KeyError, TypeError):
        return Owner()


def _same_file(descriptor: int, path: Path) -> bool:
    """False if the file was deleted, and perhaps made anew, between opening and locking it."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
