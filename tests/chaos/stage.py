"""The stage of a chaos run: servers, API servers, workers and siblings as processes of their own, with links between
them that can be broken.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psycopg

from scheduling.embedded import EmbeddedPostgres, EmbeddedValkey
from scheduling.embedded.server import EmbeddedServer
from scheduling.settings import PREFIX
from scheduling.storage.migrate import migrate
from tests.support.processes import Process, environment, sibling_settings
from tests.support.proxy import Proxy

#: What the siblings do with the calls of the mix, by the beginning of their ids; see `mix.py`.
SIBLING_RULES = (
    "* match=slow-* delay=2",
    "* match=long-* delay=8",
    "* match=wait-* delay=4",
    "* match=flaky-* times=1 code=UNAVAILABLE",
)
#: The schema of the previous version, and the first migration of this one.
PREVIOUS_REVISION, FIRST_OF_OURS = "0003", "0005_gates.py"
POSTGRES_SETTINGS = {"max_connections": "200", "shared_buffers": "64MB", "track_activity_query_size": "16384"}
#: Seconds from the end of a process to the start of the next, as whatever supervises it would take.
SUPERVISOR_SECONDS = 1.0

T = TypeVar("T")


def now() -> float:
    """The wall clock, in seconds since the Unix epoch, as the siblings record it."""
    return time.time()  # noqa: TID251 - real processes are watched


async def pause(seconds: float) -> None:
    """Waits."""
    await asyncio.sleep(max(seconds, 0.0))  # noqa: TID251 - real processes are watched


@dataclass(frozen=True, slots=True)
class Cut:
    """When calls were cut off or left alone: the moment of a kill, or the time for which a process stood still."""

    start: float
    end: float
    what: str


@dataclass(slots=True)
class Stage:
    """What runs. `cuts` are the kills and halts so far, `leader_lost` is when the leader was killed or halted, `notes`
    hold what else there is to tell of the run.
    """

    folder: Path
    direct_url: str
    database: Proxy
    redis: Proxy
    settings: dict[str, str]
    postgres: EmbeddedPostgres | None = None
    valkey: EmbeddedValkey | None = None
    target: Proxy | None = None
    servers: list[Process] = field(default_factory=list)
    workers: dict[str, Process] = field(default_factory=dict)
    siblings: list[Process] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    cuts: list[Cut] = field(default_factory=list)
    led_by: str = ""
    leader_lost: float | None = None
    notes: dict[str, Any] = field(default_factory=dict)
    #: What makes processes run other code than ours; empty for ours.
    code: dict[str, str] = field(default_factory=dict)
    _count: int = 0
    _watch: psycopg.AsyncConnection[tuple[Any, ...]] | None = None

    # --- processes ----------------------------------------------------------------------------------------------------

    def _start(self, module: Sequence[str], name: str, extra: Mapping[str, str]) -> Process:
        self._count += 1
        env = environment(**self.settings) | {f"{PREFIX}METRICS_LISTEN": ""} | self.code | dict(extra)
        return Process(module, env, self.folder / f"{name}-{self._count}.log")

    async def start_worker(self, entry: str = "scheduling", **extra: str) -> str:
        """One more worker; returns its id."""
        process = self._start([entry, "worker"], "worker", extra)
        worker = await asyncio.to_thread(process.wait_ready)
        self.workers[worker] = process
        return worker

    async def start_server(self, number: int | None = None) -> None:
        """An API server: a further one, or that of this number again, where it was before."""
        address = f"127.0.0.1:{free_port()}" if number is None else self.addresses[number]
        process = self._start(["scheduling", "server"], "server", {f"{PREFIX}GRPC_LISTEN": address})
        if number is None:
            self.servers.append(process)
            self.addresses.append(address)
        else:
            self.servers[number] = process
        await asyncio.to_thread(process.wait_ready)

    def start_sibling(self, name: str, services: str) -> Process:
        """Demo siblings of these packages; `set_rules` changes how they answer."""
        arguments = ["scheduling.demo.siblings", "--record", str(self.folder / f"{name}.jsonl"), "--services", services]
        for rule in SIBLING_RULES:
            arguments += ["--rule", rule]
        arguments += ["--rules", str(self.folder / "rules")]
        process = Process(arguments, environment(), self.folder / f"{name}.log")
        self.siblings.append(process)
        return process

    def set_rules(self, *rules: str) -> None:
        """How the siblings answer from now on."""
        (self.folder / "rules").write_text("\n".join(rules), encoding="utf-8")
        for process in self.siblings:
            os.kill(process.pid, signal.SIGHUP)

    async def kill_worker(self, worker: str) -> None:
        """kill -9."""
        process = self.workers.pop(worker)
        self.cuts.append(Cut(now(), now(), "kill"))
        if self.led_by == worker:
            self.leader_lost = now()
        await asyncio.to_thread(process.kill)

    async def stop_worker(self, worker: str) -> None:
        """SIGTERM, and waits for its end."""
        process = self.workers.pop(worker)
        code = await asyncio.to_thread(process.stop)
        assert code == 0, f"a worker ended with {code}:\n{process.log[-2000:]}"

    async def halt(self, worker: str, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after so many seconds."""
        pid, start = self.workers[worker].pid, now()
        if self.led_by == worker:
            self.leader_lost = start
        os.kill(pid, signal.SIGSTOP)
        await pause(seconds)
        # Noted before it goes on, so that nothing of what it does then lies outside.
        self.cuts.append(Cut(start, now() + 1.0, "halt"))
        os.kill(pid, signal.SIGCONT)

    async def restart(self, server: EmbeddedServer, down: float = 0.0) -> float:
        """Stops PostgreSQL or Valkey and starts it again after so many seconds; returns for how long it was away."""
        start = now()
        await asyncio.to_thread(server.stop)
        await pause(down)
        await asyncio.to_thread(server.start)
        return round(now() - start, 1)

    # --- the database, directly ---------------------------------------------------------------------------------------

    async def query(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """The rows of a statement, past the proxy. Raises psycopg.Error while PostgreSQL is away."""
        if self._watch is None or self._watch.closed:
            self._watch = await psycopg.AsyncConnection.connect(
                self.direct_url, autocommit=True, application_name="chaos", connect_timeout=3
            )
        cursor = await self._watch.execute(statement.encode(), parameters)
        return await cursor.fetchall() if cursor.description else []

    async def leader(self) -> tuple[str, int] | None:
        """Who leads, and under which term; None while nobody does or nobody can tell."""
        with contextlib.suppress(psycopg.Error, TimeoutError):
            found = await self.query("SELECT holder, term FROM leadership WHERE expire_time >= clock_timestamp()")
            if found:
                self.led_by = str(found[0][0])
                return self.led_by, int(found[0][1])
        return None

    async def follower(self) -> str:
        """A worker that does not lead."""
        leader = await self.leader()
        return next(worker for worker in self.workers if leader is None or worker != leader[0])

    # --- the end ------------------------------------------------------------------------------------------------------

    async def received(self) -> list[dict[str, Any]]:
        """Stops the siblings, so that their records are complete, and returns all calls that they received."""
        await asyncio.gather(*(asyncio.to_thread(process.stop) for process in self.siblings))
        return [
            json.loads(line)
            for path in sorted(self.folder.glob("siblings*.jsonl"))
            for line in path.read_text(encoding="utf-8").splitlines()
        ]

    async def close(self) -> None:
        """Ends everything by force."""
        if self._watch is not None:
            await self._watch.close()
        for process in (*self.workers.values(), *self.servers, *self.siblings):
            if process.code is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGCONT)
                await asyncio.to_thread(process.kill)


def previous_code(folder: Path) -> dict[str, str]:
    """Unpacks the previous version from this repository's history; returns the variables that make Python run it."""

    def git(*arguments: str) -> bytes:
        return subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parents[2], check=True, capture_output=True
        ).stdout

    versions = "scheduling/storage/migrations/versions"
    added = git("log", "--diff-filter=A", "--format=%H", "--", f"{versions}/{FIRST_OF_OURS}").decode().split()
    assert added, "the history does not reach back to the previous version"
    with tarfile.open(fileobj=io.BytesIO(git("archive", f"{added[-1]}^", "scheduling", "generated"))) as archive:
        archive.extractall(folder, filter="data")
    return {"PYTHONSAFEPATH": "1", "PYTHONPATH": f"{folder}{os.pathsep}{folder / 'generated'}"}


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.asynccontextmanager
async def set_up(
    told: Callable[[str], None],
    *,
    servers: tuple[str, str] | None = None,
    settings: Mapping[str, str] | None = None,
    workers: int = 3,
    apis: int = 2,
    target_link: bool = False,
    previous: bool = False,
    keep: bool = False,
) -> AsyncIterator[Stage]:
    """Everything running, and gone at the end; the folder stays with `keep`.

    `servers` names a PostgreSQL with the schema and a Redis to use in place of embedded ones. With `target_link` the
    calls to the messaging service go by a link that can be broken. With `previous` the schema and all processes are
    those of the previous version.
    """
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="whispr-chaos-"))
        if not keep:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        os.chmod(folder, 0o711)  # noqa: PTH101 - the servers of root run as somebody else
        postgres, valkey = None, None
        if servers is None:
            postgres = EmbeddedPostgres(folder / "postgres", settings=POSTGRES_SETTINGS)
            valkey = EmbeddedValkey(folder / "valkey")
            for server in (postgres, valkey):
                await asyncio.to_thread(server.start)
                stack.push_async_callback(asyncio.to_thread, server.stop)
            await asyncio.to_thread(migrate, postgres.url, PREVIOUS_REVISION if previous else "head")
            servers = postgres.url, valkey.url
        database = await stack.enter_async_context(Proxy(servers[0]))
        redis = await stack.enter_async_context(Proxy(servers[1]))
        base = {"database_url": database.url, "redis_url": redis.url, "environment": f"chaos-{os.getpid()}"}
        base |= {"server_drain": "500ms", "log_level": "info"}
        stage = Stage(folder, servers[0], database, redis, base | dict(settings or {}), postgres, valkey)
        stack.push_async_callback(stage.close)
        if previous:
            stage.code = await asyncio.to_thread(previous_code, folder / "previous")
        first = stage.start_sibling("siblings-messaging", "messaging")
        others = stage.start_sibling("siblings-others", "notification,media,user,auth,moderation,matching,content")
        port = await asyncio.to_thread(first.wait_ready)
        other_port = await asyncio.to_thread(others.wait_ready)
        if target_link:
            stage.target = await stack.enter_async_context(Proxy(f"grpc://127.0.0.1:{port}"))
            port = str(stage.target.port)
        addresses = sibling_settings(f"127.0.0.1:{other_port}") | {
            f"{PREFIX}MESSAGING_ADDRESS": f"127.0.0.1:{port}",
        }
        stage.settings |= {name.removeprefix(PREFIX).lower(): value for name, value in addresses.items()}
        await asyncio.gather(
            *(stage.start_worker() for _ in range(workers)), *(stage.start_server() for _ in range(apis))
        )
        told(f"{apis} servers, {workers} workers and siblings are ready in {folder}")
        yield stage
