"""One run: a server and a worker of their own, so many requests, what came of it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.checks import stored_halves
from tests.fuzz.drive import Driver, Tally
from tests.support.service import NOWHERE, Service, eventually, monotonic, service

#: Requests after which the server has seen everything once: memory is compared from here on.
WARM = 0.3


@dataclass(slots=True)
class Report:
    """What a run found. `memory` holds (share of the requests, resident MiB of the server)."""

    tally: Tally
    halves: list[str] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)
    seconds: float = 0.0
    unhealthy: str = ""

    @property
    def problems(self) -> list[str]:
        """Everything that must not be, in words."""
        found = [*self.tally.wrong, *self.halves]
        return [*found, self.unhealthy] if self.unhealthy else found

    def memory_at(self, share: float) -> float:
        """The resident MiB at the first look at or after this share of the requests."""
        return next((mib for at, mib in self.memory if at >= share), self.memory[-1][1])

    @property
    def growth(self) -> float:
        """Memory in the last tenth of the run divided by that in the tenth after the server was warm; of each the least
        that was seen, since messages of 8 MiB come and go.
        """
        return self._least(0.9, 1.0) / self._least(WARM, WARM + 0.1)

    @property
    def growth_at_a_look(self) -> float:
        """Memory at the last look divided by that when the server was warm."""
        return self.memory_at(1.0) / self.memory_at(WARM)

    def _least(self, after: float, until: float) -> float:
        return min((mib for at, mib in self.memory if after <= at <= until), default=self.memory[-1][1])


def resident_mib(pid: int) -> float:
    """The resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def fuzz(
    folder: Path,
    database_url: str,
    redis_url: str,
    name: str,
    *,
    count: int,
    seed: int,
    told: Callable[[Report], None] = lambda _: None,
) -> Report:
    """Sends `count` generated requests to a fresh service and looks at what it left behind."""
    addresses = {f"{sibling}_address": NOWHERE for sibling in ("messaging", "notification")}
    with service(folder, database_url, redis_url, name, log_level="warning", **addresses) as made:
        made.start_server()
        made.start_worker()
        made.connect()
        eventually(made.api.is_serving, bool)
        return asyncio.run(_run(made, count, seed, told))


async def _run(made: Service, count: int, seed: int, told: Callable[[Report], None]) -> Report:
    assert made.server is not None
    pid = made.server.pid
    driver = Driver(made.api.address, seed)
    report = Report(driver.tally)
    began = monotonic()

    def look(tally: Tally) -> None:
        report.memory.append((tally.count / count, resident_mib(pid)))
        report.seconds = monotonic() - began
        told(report)

    report.memory.append((0.0, resident_mib(pid)))
    await driver.run(count, look)
    look(driver.tally)
    await driver.close()
    if made.server.code is not None:
        report.unhealthy = f"the server ended with {made.server.code}"
    elif not await asyncio.to_thread(eventually, made.api.is_serving, bool):
        report.unhealthy = "the server does not serve any more"
    report.halves = stored_halves(made.query, report.tally.probes)
    verified = await asyncio.to_thread(_verify, made)
    if verified.returncode != 0:
        report.halves.append(f"verify: {verified.stdout[-1000:]}{verified.stderr[-1000:]}")
    return report


def _verify(made: Service) -> subprocess.CompletedProcess[str]:
    """What `scheduling verify` says of the database."""
    return subprocess.run(
        [sys.executable, "-m", "scheduling", "verify"],
        env=made.env,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
