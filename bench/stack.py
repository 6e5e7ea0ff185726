"""The stack that is measured: embedded servers, one API server, one worker, one sibling, each a process of its own."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
from whispr.scheduling.v1 import operations_service_pb2_grpc, scheduling_service_pb2_grpc

from bench import processes
from scheduling.cli.up import Stack, data_folder, sibling_addresses
from scheduling.settings import load_settings


@dataclass(frozen=True)
class Running:
    """A running stack."""

    address: str
    sibling: str
    record: Path
    database_url: str
    redis_url: str
    folder: Path
    stack: Stack
    addresses: Mapping[str, str]

    def received(self) -> Iterator[dict[str, Any]]:
        """The calls that the sibling has recorded so far."""
        if not self.record.exists():
            return
        with self.record.open(encoding="utf-8") as lines:
            for line in lines:
                if line.endswith("\n"):
                    yield json.loads(line)

    def pid(self, name: str) -> int:
        """The process id of a part."""
        if name == "postgres":
            return processes.find(str(self.folder / "postgres"), "postgres")
        if name == "valkey":
            return processes.find(str(self.folder / "valkey"), "valkey-server")
        return next(part.process.pid for part in self.stack.parts if part.name == name)

    def cpu(self) -> dict[str, float]:
        """Processor seconds used so far, by part."""
        names = ("postgres", "valkey", *(part.name for part in self.stack.parts))
        return {name: processes.cpu_seconds(self.pid(name)) for name in names}

    def start_worker(self) -> None:
        """Starts the worker, in a stack that was started without."""
        self.stack.start("worker", ["scheduling", "worker"], self.addresses)


@contextlib.contextmanager
def running(
    settings: Mapping[str, str] | None = None, *, worker: bool = True, data: str | None = None
) -> Iterator[Running]:
    """Starts a stack with default settings but for L1 and those given, and takes it down again: a fresh one in a
    temporary folder, or the one whose data is in the folder `data`. Without `worker`, the worker is started later by
    `start_worker`.
    """
    with contextlib.ExitStack() as kept:
        folder = data or kept.enter_context(tempfile.TemporaryDirectory(prefix="whispr-bench-"))
        free = {
            # As it is installed: pip compiles what it installs, and a checkout is compiled by its first start.
            "PYTHONDONTWRITEBYTECODE": "",
            "SCHEDULING_GRPC_LISTEN": "127.0.0.1:0",
            "SCHEDULING_METRICS_LISTEN": "127.0.0.1:0",
            "SCHEDULING_LIMIT_OWNER_DAILY_JOBS": "1000000",
        }
        with data_folder(load_settings({}), folder) as (path, environment):
            stack = Stack({**environment, **free, **(settings or {})}, path / "logs")
            try:
                record = path / "siblings.jsonl"
                record.unlink(missing_ok=True)
                sibling = stack.start("siblings", ["scheduling.demo.siblings", "--record", str(record)]).said.split()[1]
                addresses = sibling_addresses(int(sibling))
                if worker:
                    stack.start("worker", ["scheduling", "worker"], addresses)
                port = stack.start("server", ["scheduling", "server"], addresses).said.split()[1]
                yield Running(
                    f"127.0.0.1:{port}",
                    f"127.0.0.1:{sibling}",
                    record,
                    environment["SCHEDULING_DATABASE_URL"],
                    environment["SCHEDULING_REDIS_URL"],
                    path.resolve(),
                    stack,
                    addresses,
                )
            finally:
                stack.stop()


@dataclass(frozen=True)
class Api:
    """The stubs of the API."""

    scheduling: scheduling_service_pb2_grpc.SchedulingServiceStub
    operations: operations_service_pb2_grpc.OperationsServiceStub


@contextlib.asynccontextmanager
async def api(address: str) -> AsyncIterator[Api]:
    """A client of the API at `address`."""
    stubs: Any = scheduling_service_pb2_grpc
    operations: Any = operations_service_pb2_grpc
    options = (
        ("grpc.max_receive_message_length", 16 * 1024 * 1024),
        ("grpc.max_send_message_length", 16 * 1024 * 1024),
    )
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        yield Api(
            stubs.SchedulingServiceStub(channel),
            operations.OperationsServiceStub(channel),
        )
