"""What the two sidecars between a worker and a sibling add to an execution.

    .venv/bin/python -m bench.mesh --runs 2 --windows 3 --seconds 6 --rate 100

Messages and notifications are due by turns; those of one kind are called through a pair of real Envoys with mutual TLS,
configured from the chart's resources, those of the other directly. Each run changes which. So both ways share one
worker, one sibling and one moment, and their difference is the sidecars'.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import click
from google.protobuf import any_pb2
from google.protobuf.message import Message
from whispr.scheduling.v1 import execution_pb2, scheduling_service_pb2
from whispr.siblings import messaging_pb2, notification_pb2

from bench.load import create_all, percentile
from bench.stack import Api, api
from scheduling.app import SystemClock, service_names
from scheduling.cli.up import Stack, data_folder
from scheduling.delivery.channels import Channels
from scheduling.delivery.targets import TargetTable
from scheduling.domain.retry import Code
from scheduling.settings import address_variable, load_settings
from tests.support.mesh import istio
from tests.support.mesh.certificates import Authority, SecretFiles, spiffe
from tests.support.mesh.envoy import Envoy
from tests.support.mesh.room import PORT, WORKER, host_of, rendered, sibling
from tests.support.mesh.sidecar import Inbound, Outbound, configuration

MESSAGING, NOTIFICATION = "messaging", "notification"
TEXT = "The quick brown fox jumps over the lazy dog. " * 3
_CLOCK = SystemClock()


@dataclass(frozen=True)
class Running:
    """A stack of which one sibling is called through the sidecars. `ways` are the addresses by either way."""

    address: str
    through: str
    ways: dict[bool, str]
    envoys: tuple[Envoy, Envoy]

    def cpu_seconds(self) -> float:
        """Processor time of both sidecars."""
        return sum(envoy.cpu_seconds() for envoy in self.envoys)


@contextlib.contextmanager
def running(through: str) -> Iterator[Running]:
    """Starts everything in a temporary folder, and takes it down again."""
    with tempfile.TemporaryDirectory(prefix="whispr-bench-") as folder, contextlib.ExitStack() as stack:
        # Outcomes are recorded as they come: waiting for others would hide what the sidecars add.
        alone = {"SCHEDULING_RECORD_GAP": "0s"}
        free = {"SCHEDULING_GRPC_LISTEN": "127.0.0.1:0", "SCHEDULING_METRICS_LISTEN": "", **alone}
        path, environment = stack.enter_context(data_folder(load_settings({}), folder))
        parts = Stack({**environment, **free}, path / "logs")
        stack.callback(parts.stop)
        port = int(
            parts.start("siblings", ["scheduling.demo.siblings", "--record", str(path / "calls")]).said.split()[1]
        )
        mesh, authority = istio.read(rendered()), Authority()

        def secrets(account: str) -> SecretFiles:
            return SecretFiles(path / account, authority.issue(spiffe(account)), authority.root)

        theirs = sibling(through)
        inbound = Inbound("in", theirs, PORT, secrets(theirs.account), ("127.0.0.1", port))
        first = stack.enter_context(Envoy(configuration([(mesh, [inbound])]), path, "inbound")).wait_ready()
        endpoint = ("127.0.0.1", first.port("in"))
        own = secrets(WORKER.account)
        outbound = Outbound("out", WORKER, host_of(through), PORT, [endpoint], [theirs.account], own)
        second = stack.enter_context(Envoy(configuration([(mesh, [outbound])]), path, "outbound")).wait_ready()
        addresses = {address_variable(name): f"127.0.0.1:{port}" for name in service_names()}
        addresses[address_variable(through)] = second.address("out")
        parts.start("worker", ["scheduling", "worker"], addresses)
        server = parts.start("server", ["scheduling", "server"], addresses).said.split()[1]
        ways = {True: second.address("out"), False: f"127.0.0.1:{port}"}
        yield Running(f"127.0.0.1:{server}", through, ways, (first, second))


def request(number: int, due: datetime) -> scheduling_service_pb2.CreateJobRequest:
    """One execution: a message if `number` is even, else a notification of the same size."""
    message: Message
    if number % 2 == 0:
        target = "messaging.MessagingService/SendScheduledMessage"
        message = messaging_pb2.SendScheduledMessageRequest(
            message_id=f"m-{number}", conversation_id="c-1", sender_id="u-1", content=TEXT
        )
    else:
        target = "notification.NotificationService/SendDelayedNotification"
        message = notification_pb2.SendDelayedNotificationRequest(
            notification_id=f"n-{number}",
            user_id="u-1",
            kind=notification_pb2.NOTIFICATION_KIND_REMINDER,
            title="Hello",
            body=TEXT,
        )
    packed = any_pb2.Any()
    packed.Pack(message)
    made = scheduling_service_pb2.CreateJobRequest()
    made.job.target, made.job.owner = target, f"u-{number % 1000}"
    made.job.request.CopyFrom(packed)
    made.schedule.at_time.FromDatetime(due)
    return made


async def executions(client: Api) -> AsyncIterator[execution_pb2.Execution]:
    """All that have succeeded."""
    asked = scheduling_service_pb2.ListExecutionsRequest(parent="jobs/-", page_size=1000, filter="state = SUCCEEDED")
    while True:
        page = await client.scheduling.ListExecutions(asked, timeout=60)
        for each in page.executions:
            yield each
        if not page.next_page_token:
            return
        asked.page_token = page.next_page_token


async def calls(stack: Running, count: int = 500) -> dict[bool, list[float]]:
    """Milliseconds of bare calls, one after the other, by turns through the sidecars and directly."""
    table = TargetTable()
    ways = {way: Channels(table, {stack.through: address}) for way, address in stack.ways.items()}
    found: dict[bool, list[float]] = {True: [], False: []}
    job = request(0 if stack.through == MESSAGING else 1, _CLOCK.now()).job
    for n in range(count + 100):
        for way, channels in ways.items():
            began = _CLOCK.monotonic()
            answer = await channels.call(job.target, job.request.value, timedelta(seconds=30), ())
            if answer.code is not Code.OK:
                raise click.ClickException(f"{answer.code.name}: {answer.message}")
            if n >= 100:
                found[way].append(1000 * (_CLOCK.monotonic() - began))
    for channels in ways.values():
        await channels.close()
    return found


async def measure(stack: Running, rate: int, seconds: int) -> dict[str, float]:
    """Milliseconds of bare calls, and of executions from start to durable outcome, both ways."""
    times: dict[bool, list[float]] = {True: [], False: []}
    async with api(stack.address) as client:
        start = _CLOCK.now() + timedelta(seconds=3)
        await create_all(client, (request(n, start + timedelta(seconds=n / rate)) for n in range(rate * seconds)))
        await _CLOCK.sleep((start - _CLOCK.now()).total_seconds() - 0.2)
        before = stack.cpu_seconds()
        await _CLOCK.sleep(seconds + 0.7)
        spent = stack.cpu_seconds() - before
        async for each in executions(client):
            if each.nominal_time.ToDatetime() >= start.replace(tzinfo=None):
                span = each.finish_time.ToDatetime() - each.start_time.ToDatetime()
                times[each.target.startswith(stack.through)].append(span / timedelta(milliseconds=1))
    found: dict[str, float] = {"executions": len(times[True]) + len(times[False])}
    for name, values in (("call", await calls(stack)), ("execution", times)):
        for share in (50, 99):
            direct, through = (percentile(values[way], share / 100) for way in (False, True))
            found |= {
                f"{name}_p{share}_direct_ms": direct,
                f"{name}_p{share}_mesh_ms": through,
                f"{name}_p{share}_added_ms": through - direct,
            }
    found["sidecars_cpu_ms_per_call"] = 1000 * spent / max(1, len(times[True]))
    return {key: round(value, 3) for key, value in found.items()}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rate", default=100, show_default=True, help="Executions a second, half of them through the sidecars.")
@click.option("--seconds", default=8, show_default=True, help="How long.")
@click.option("--windows", default=3, show_default=True, help="How often with one stack.")
@click.option("--runs", default=2, show_default=True, help="How many stacks, by turns with the one or the other way.")
def main(*, rate: int, seconds: int, windows: int, runs: int) -> None:
    """Milliseconds that the two sidecars add to a call and to an execution: medians and ranges of all windows."""
    found: list[dict[str, float]] = []
    for run in range(runs):
        through = (MESSAGING, NOTIFICATION)[run % 2]
        with running(through) as stack:
            asyncio.run(measure(stack, rate, 2))
            for window in range(windows):
                found.append(asyncio.run(measure(stack, rate, seconds)))
                click.echo(
                    f"run {run + 1}, {through} through the sidecars, window {window + 1}: {json.dumps(found[-1])}"
                )
    for name in found[0]:
        values = sorted(each[name] for each in found)
        click.echo(f"{name}: {statistics.median(values):.3f} ({values[0]:.3f} to {values[-1]:.3f})")


if __name__ == "__main__":
    main()
