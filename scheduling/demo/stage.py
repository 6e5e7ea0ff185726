"""The stage: a fresh data folder with PostgreSQL and Valkey, the API server, two workers and the siblings, each a
process of its own. Taken down completely, however the demo ends.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from scheduling import app
from scheduling.cli.up import Part, Stack, data_folder, sibling_addresses
from scheduling.demo.load import RULES
from scheduling.demo.verdict import Call
from scheduling.settings import PREFIX, address_variable, load_settings

#: Which siblings live in the first process; all others are in the second.
FIRST_SIBLINGS = ("messaging", "notification")
#: Any free port, so that demos run beside each other, and quick endings.
_SETTINGS = {
    f"{PREFIX}GRPC_LISTEN": "127.0.0.1:0",
    f"{PREFIX}METRICS_LISTEN": "127.0.0.1:0",
    f"{PREFIX}SERVER_DRAIN": "0s",
    f"{PREFIX}WORKER_DRAIN": "1s",
}
#: Lines of a log that are shown when something went wrong.
_LOG_LINES = 5
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Stage:
    """What runs. `workers` are the living ones by their ids."""

    def __init__(self, folder: Path, stack: Stack, siblings: Stack, records: tuple[Path, ...]) -> None:
        self.folder = folder
        self.address = ""
        self.workers: dict[str, Part] = {}
        self._stack = stack
        self._siblings = siblings
        self._records = records
        self._addresses: dict[str, str] = {}
        self._numbers = itertools.count(1)
        self._is_closing = False

    def start_server(self) -> None:
        """Starts the API server; `address` is where it listens. Raises UpError."""
        self.address = f"127.0.0.1:{self._stack.start('server', ['scheduling', 'server'], _SETTINGS).said.split()[1]}"

    def start_worker(self) -> str:
        """Starts one more worker and returns its id. Raises UpError."""
        part = self._stack.start(
            f"worker-{next(self._numbers)}", ["scheduling", "worker"], {**_SETTINGS, **self._addresses}
        )
        worker = part.said.split()[1]
        self.workers[worker] = part
        return worker

    def connect_siblings(self, first: Part, second: Part) -> None:
        """Tells the workers to come where the siblings are."""
        self._addresses = sibling_addresses(int(second.said.split()[1]))
        self._addresses |= {
            address_variable(service): f"127.0.0.1:{first.said.split()[1]}" for service in FIRST_SIBLINGS
        }

    def kill_worker(self, worker: str) -> Part:
        """Kills a worker with SIGKILL."""
        part = self.workers.pop(worker)
        part.process.kill()
        part.process.wait()
        return part

    def ended(self) -> list[str]:
        """The parts that have ended by themselves, each with the end of its log."""
        if self._is_closing:
            return []
        killed = {part.name for part in self._stack.parts if part.name.startswith("worker")}
        killed -= {part.name for part in self.workers.values()}
        return [
            f"{part.name} has ended by itself\n{self.log_tail(part.name)}"
            for part in (*self._stack.parts, *self._siblings.parts)
            if part.process.poll() is not None and part.name not in killed
        ]

    def log_tail(self, name: str) -> str:
        """The last lines of a part's log."""
        path = self.folder / "logs" / f"{name}.log"
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
        return "\n".join(f"    {line}" for line in lines[-_LOG_LINES:])

    def complaints(self) -> list[str]:
        """What the logs warn of, the most frequent first; executions that failed as they should are left out."""
        found: Counter[str] = Counter()
        for path in sorted((self.folder / "logs").glob("*.log")):
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    entry = json.loads(line)
                except ValueError:
                    found[f"{path.stem}: {line}"] += 1
                    continue
                if entry.get("level") != "info" and entry.get("event") != "execution_recorded":
                    told = {name: entry[name] for name in ("event", "error", "exception") if name in entry}
                    found[f"{path.stem}: {' '.join(str(value) for value in told.values())[-300:]}"] += 1
        return [f"{count} x {text}" for text, count in found.most_common(_LOG_LINES)]

    def received(self) -> list[Call]:
        """Stops the siblings, so that their records are complete, and returns all calls that they received."""
        self._is_closing = True
        self._siblings.stop()
        return [
            _call(json.loads(line))
            for record in self._records
            if record.exists()
            for line in record.read_text(encoding="utf-8").splitlines()
        ]


@contextlib.contextmanager
def set_up(told: Callable[[str], None], *, keep: bool) -> Iterator[Stage]:
    """Everything running, and gone at the end; the folder stays with `keep`. Raises EmbeddedError, UpError."""
    # The demo is the same whatever the surroundings say: servers, limits and addresses are its own.
    for name in [name for name in os.environ if name.startswith(PREFIX)]:  # noqa: TID251 - what the parts inherit
        told(f"{name} is set, and not used by the demo")
        del os.environ[name]  # noqa: TID251 - what the parts inherit
    with contextlib.ExitStack() as undo:
        folder = Path(tempfile.mkdtemp(prefix="whispr-demo-"))
        if not keep:
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
        if os.geteuid() == 0:
            # The servers of root run as somebody else, who has to get through.
            folder.chmod(0o711)
        logs = folder / "logs"
        logs.mkdir()
        environ = os.environ  # noqa: TID251 - what the parts inherit
        records = (folder / "siblings-1.jsonl", folder / "siblings-2.jsonl")
        siblings = Stack(environ, logs)
        undo.callback(siblings.stop)
        # Leaving the pool waits for what is starting; only then is it known and can be stopped. Threads also see no
        # Ctrl-C, which would lose a process between its start and its name in the list.
        with ThreadPoolExecutor() as pool:
            others = tuple(service for service in app.service_names() if service not in FIRST_SIBLINGS)
            first = pool.submit(siblings.start, "siblings-1", _sibling_arguments(records[0], FIRST_SIBLINGS))
            second = pool.submit(siblings.start, "siblings-2", _sibling_arguments(records[1], others))
            _, environment = undo.enter_context(data_folder(load_settings({}, app.service_names()), str(folder)))
            told("PostgreSQL and Valkey are ready, the schema is migrated")
            stack = Stack(environment, logs)
            undo.callback(stack.stop)
            stage = Stage(folder, stack, siblings, records)
            stage.connect_siblings(first.result(), second.result())
            told("siblings are ready in two processes")
        with ThreadPoolExecutor() as pool:
            server = pool.submit(stage.start_server)
            workers = [pool.submit(stage.start_worker) for _ in range(2)]
            server.result()
            for worker in workers:
                worker.result()
        told(f"the API is ready at {stage.address}, and two workers")
        yield stage


def _sibling_arguments(record: Path, services: tuple[str, ...]) -> list[str]:
    rules = [word for rule in RULES for word in ("--rule", rule)]
    return ["scheduling.demo.siblings", "--record", str(record), "--services", ",".join(services), *rules]


def _call(entry: dict[str, Any]) -> Call:
    return Call(
        received=_EPOCH + timedelta(seconds=entry["received"]),
        method=entry["method"],
        recorded_id=entry["id"],
        key=entry["idempotency_key"] or "",
        attempt=entry["attempt"] or 0,
        job=entry["job"] or "",
        nominal=entry["nominal_time"] or "",
        code=entry["code"],
    )
