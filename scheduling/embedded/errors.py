"""What can go wrong with an embedded server."""

from pathlib import Path


class EmbeddedError(Exception):
    """A server could not be prepared, started or stopped; the text says why and where its log is."""


class AlreadyRunning(EmbeddedError):
    """The folder has a living owner. `pid` is that process, `url` its server's URL, or None while it is starting.

    The text leaves the URL out, since it holds a password.
    """

    def __init__(self, name: str, folder: Path, pid: int | None, url: str | None) -> None:
        how = f"by process {pid}; stop it with `kill {pid}`" if pid else "by another process; stop that one"
        super().__init__(f"{name} in {folder} is already running, started {how}, or use it by its URL")
        self.folder = folder
        self.pid = pid
        self.url = url
