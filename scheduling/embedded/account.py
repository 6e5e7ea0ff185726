"""Under which user a server runs: ourselves, or somebody else if we are root, which PostgreSQL refuses."""

import os
import pwd
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from scheduling.embedded import reach

#: All of the environment that a server sees: no secret, language or time zone of the person at the keyboard.
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


@dataclass(frozen=True, slots=True)
class Account:
    """A user and group to run as; both None for the ones that we have."""

    uid: int | None = None
    gid: int | None = None

    @classmethod
    def for_folder(cls, data: Path) -> "Account":
        """Returns ourselves or, if we are root, the folder's owner, or `nobody` if it is new or root's."""
        if os.geteuid() != 0:
            return cls()
        if data.exists() and data.stat().st_uid != 0:
            return cls(data.stat().st_uid, data.stat().st_gid)
        nobody = pwd.getpwnam("nobody")
        return cls(nobody.pw_uid, nobody.pw_gid)

    def own(self, path: Path) -> None:
        """Hands a file or folder over to this user."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def spawn(self, command: Sequence[str], *, uses: Sequence[Path], **options: Any) -> "subprocess.Popen[bytes]":
        """Starts a program as this user, in a session of its own so that no terminal signals it.

        `uses` are the paths that it must reach. Where a parent of one is closed to this user (root's home, mode 0700),
        the program gets the one capability that opens it: changing the mode of folders is not ours to do.
        """
        if self.uid is not None and self.gid is not None:
            if all(self._reaches(path) for path in (*uses, Path(command[0]))):
                options |= {"user": self.uid, "group": self.gid, "extra_groups": []}
            else:
                through = [sys.executable, "-I", "-S", reach.__file__, str(self.uid), str(self.gid)]
                command = [*through, *command]
        return subprocess.Popen(  # noqa: S603 - programs of the wheels, and no shell
            command, cwd="/", env=_ENVIRONMENT, start_new_session=True, **options
        )

    def run(self, command: Sequence[str], *, uses: Sequence[Path], log: IO[bytes], seconds: float) -> int:
        """Runs a program to its end and returns its exit code; one that takes longer than `seconds` is killed."""
        process = self.spawn(command, uses=uses, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        try:
            return process.wait(seconds)
        finally:
            process.kill()
            process.wait()

    def _reaches(self, path: Path) -> bool:
        for step in (path, *path.parents):
            status = step.stat()
            needed = 0o5 if step == path else 0o1
            if status.st_uid == self.uid:
                needed <<= 6
            if status.st_mode & needed != needed:
                return False
        return True
