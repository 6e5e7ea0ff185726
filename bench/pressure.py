"""What floods and dead targets do to everybody else: `python -m bench.pressure flood|dead|breaker`.

Each starts a stack of its own. Lateness is start minus due time by the database's clock, of messages that come due at a
steady rate all the while.
"""

from __future__ import annotations

import contextlib
import json
import socket
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import click
import psycopg

from scheduling.cli.up import Stack, data_folder, sibling_addresses
from scheduling.settings import load_settings

MESSAGE = "messaging.MessagingService/SendScheduledMessage"
NOTIFICATION = "notification.NotificationService/SendDelayedNotification"
CLEANUP = "media.MediaService/CleanupTempFiles"
OWNERS = 1000
#: A request that each takes: an id, or an age of a second.
REQUESTS = {MESSAGE: b"\x0a\x011", NOTIFICATION: b"\x0a\x011", CLEANUP: b"\x0a\x02\x08\x01"}

# Stored as creation stores them, without going through the API a million times.
_CREATE = """
WITH made AS (
    INSERT INTO jobs (uid, job_id, display_name, target, request, request_type, queue, max_attempts, initial_backoff,
        backoff_multiplier, max_backoff, max_age, after_lost_worker, timeout, owner, principal, labels)
    SELECT gen_random_uuid(), %(name)s || '-' || n, '', %(target)s, %(request)s, 't', %(queue)s, 4, '1 min', 2,
           '30 min', '1 day', 'RETRY_NOW', '15 s', %(name)s || '-' || n %% %(owners)s, 'p', '{}'
    FROM generate_series(%(first)s::int, %(last)s::int) AS n
    RETURNING uid, job_id, owner
)
INSERT INTO executions (uid, job_uid, origin, target, queue, owner, state, nominal_time, due_time, ready_time,
    expire_time)
SELECT gen_random_uuid(), uid, 'MANUAL', %(target)s, %(queue)s, owner, 'PENDING', t, t, t, t + interval '1 day'
FROM made, LATERAL (SELECT %(start)s + (split_part(job_id, '-', 2)::int * %(step)s) * interval '1 second') AS x (t)
"""
_LATENESS = """
SELECT count(*), percentile_cont(0.5) WITHIN GROUP (ORDER BY late), percentile_cont(0.99) WITHIN GROUP (ORDER BY late),
       max(late)
FROM (SELECT extract(epoch FROM start_time - due_time) * 1000 AS late FROM execution_history
      WHERE target = %s AND state = 'SUCCEEDED' AND due_time >= %s AND due_time < %s) AS done
"""
_ATTEMPTS = """
SELECT coalesce(sum(jsonb_array_length(attempts)), 0) FROM (
    SELECT attempts FROM executions WHERE target = %(target)s UNION ALL
    SELECT attempts FROM execution_history WHERE target = %(target)s
) AS e
"""


@dataclass(frozen=True)
class Pressed:
    """The running parts and a connection to their database."""

    stack: Stack
    addresses: Mapping[str, str]
    record: Path
    connection: psycopg.Connection[tuple[Any, ...]]

    def one(self, statement: str, parameters: Any = None) -> Any:
        """The first row."""
        row = self.connection.execute(statement.encode(), parameters).fetchone()
        assert row is not None
        return row

    def now(self, ahead: float = 0.0) -> Any:
        """The database's clock, so many seconds ahead."""
        return self.one("SELECT now() + %s * interval '1 second'", (ahead,))[0]

    def create(self, name: str, target: str, queue: str, count: int, start: Any, step: float = 0.0) -> None:
        """So many due executions of OWNERS owners, `step` seconds apart."""
        for first in range(0, count, 50_000):
            last = min(first + 50_000, count) - 1
            of_jobs = {
                "name": name,
                "target": target,
                "request": REQUESTS[target],
                "queue": queue,
                "owners": OWNERS,
                "first": first,
                "last": last,
            }
            self.connection.execute(_CREATE, {**of_jobs, "start": start, "step": step})

    def beside(self, mass: tuple[str, str, int], rate: int, seconds: int) -> Mapping[str, Any]:
        """Lateness of `rate` messages a second, for so long before `mass` (target, queue, count) comes due at once, and
        for as long after. Everything is there and at rest before the first comes due.
        """
        target, queue, count = mass
        middle = self.now(20 + count / 8000 + seconds)
        self.create("mass", target, queue, count, middle)
        before = timedelta(seconds=seconds)
        self.create("high", MESSAGE, "HIGH", 2 * seconds * rate, middle - before, 1 / rate)
        for settle in ("VACUUM ANALYZE", "CHECKPOINT"):
            self.connection.execute(settle.encode())
        if self.now() > middle - before:
            raise click.ClickException("creating what comes due took too long")
        _wait(self, middle + before)
        sleep(3)
        return {
            "before": self.lateness(MESSAGE, middle - before, middle),
            "during": self.lateness(MESSAGE, middle, middle + before),
        }

    def lateness(self, target: str, since: Any, until: Any) -> dict[str, float]:
        """Of what succeeded and was due in between, in milliseconds."""
        count, *values = self.one(_LATENESS, (target, since, until))
        named = zip(("p50_ms", "p99_ms", "max_ms"), values, strict=True)
        return {"count": count, **{name: round(float(value or 0), 2) for name, value in named}}


@contextlib.contextmanager
def pressed(dead: str = "", own_siblings: bool = False) -> Iterator[Pressed]:
    """A fresh stack. `dead` names a sibling service whose address leads nowhere."""
    with tempfile.TemporaryDirectory(prefix="whispr-bench-") as folder:
        free = {"SCHEDULING_GRPC_LISTEN": "127.0.0.1:0", "SCHEDULING_METRICS_LISTEN": "127.0.0.1:0"}
        with data_folder(load_settings({}), folder) as (path, environment):
            stack = Stack({**environment, **free}, path / "logs")
            record = path / "siblings.jsonl"
            try:
                if own_siblings:
                    port = _free_port()
                else:
                    said = stack.start("siblings", ["scheduling.demo.siblings", "--record", str(record)]).said
                    port = int(said.split()[1])
                addresses = dict(sibling_addresses(port))
                if dead:
                    addresses[f"SCHEDULING_{dead.upper()}_ADDRESS"] = "127.0.0.1:1"
                stack.start("worker", ["scheduling", "worker"], addresses)
                with psycopg.connect(environment["SCHEDULING_DATABASE_URL"], autocommit=True) as connection:
                    yield Pressed(stack, addresses, record, connection)
            finally:
                stack.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait(pressed_: Pressed, moment: Any) -> None:
    left = (moment - pressed_.now()).total_seconds()
    sleep(max(left, 0))


@click.group()
def main() -> None:
    """Floods, dead targets, breakers."""


@main.command()
@click.option("--count", default=50_000, help="LOW executions due at once.")
@click.option("--rate", default=100, help="HIGH executions a second.")
@click.option("--seconds", default=30, help="Seconds before the flood, and seconds of it.")
def flood(count: int, rate: int, seconds: int) -> None:
    """A flood of LOW: lateness of HIGH before and during."""
    with pressed() as it:
        told = it.beside((CLEANUP, "LOW", count), rate, seconds)
        (done,) = it.one("SELECT count(*) FROM execution_history WHERE target = %s AND state = 'SUCCEEDED'", (CLEANUP,))
        click.echo(json.dumps({**told, "low_done": done, "low_per_s": round(done / (seconds + 3))}, indent=2))


@main.command()
@click.option("--count", default=1_000_000, help="Executions due at once for a target that is not there.")
@click.option("--rate", default=100, help="HIGH executions a second for one that is.")
@click.option("--seconds", default=60, help="Seconds before they come due, and seconds after.")
def dead(count: int, rate: int, seconds: int) -> None:
    """A dead target's backlog: lateness of others before, while it is held, attempts spent."""
    with pressed(dead="notification") as it:
        told = it.beside((NOTIFICATION, "HIGH", count), rate, seconds)
        (held,) = it.one("SELECT count(*) FROM executions WHERE held_by LIKE 'BREAKER:%%'")
        attempts = it.one(_ATTEMPTS, {"target": NOTIFICATION})[0]
        click.echo(json.dumps({**told, "attempts": attempts, "held": held}, indent=2))


@main.command()
@click.option("--rate", default=200, help="Executions a second.")
@click.option("--down", default=30, help="Seconds that the target is away.")
def breaker(rate: int, down: int) -> None:
    """A target that goes away under load and comes back."""
    with pressed(own_siblings=True) as it:
        address = it.addresses["SCHEDULING_MESSAGING_ADDRESS"]
        arguments = ["scheduling.demo.siblings", "--listen", address, "--record", str(it.record)]
        siblings = it.stack.start("siblings", arguments)
        begin = it.now(3)
        it.create("high", MESSAGE, "HIGH", rate * (down + 50), begin, 1 / rate)
        _wait(it, begin)
        sleep(10)
        click.echo(json.dumps({"before": it.lateness(MESSAGE, begin, it.now(-1))}))
        siblings.process.kill()
        siblings.process.wait()
        gone, clock = it.now(), monotonic()
        seen: list[tuple[float, str, int]] = []
        while monotonic() - clock < down:
            seen.append(_look(it, clock))
            sleep(0.2)
        siblings = it.stack.start("siblings-again", arguments)
        back, returned = it.now(), monotonic()
        full = drained = 0.0
        while monotonic() - returned < 40:
            seen.append(_look(it, clock))
            (done,) = it.one(
                "SELECT count(*) FROM execution_history WHERE target = %s AND start_time > now() - interval '1 s'",
                (MESSAGE,),
            )
            (waiting,) = it.one("SELECT count(*) FROM executions WHERE held_by LIKE 'BREAKER:%%'")
            if not full and done >= rate:
                full = monotonic() - returned
            if full and not waiting:
                drained = monotonic() - returned
                break
            sleep(0.1)
        counted = it.one(
            "SELECT count(*) FROM (SELECT a FROM executions, jsonb_array_elements(attempts) AS a UNION ALL "
            "SELECT a FROM execution_history, jsonb_array_elements(attempts) AS a) AS e WHERE a ->> 'c' = '14'"
        )[0]
        click.echo("\n".join(f"{at:6.1f} s  {state}  failed calls {spent}" for at, state, spent in _changes(seen)))
        told = {
            "attempts_spent": counted,
            "down_s": round((back - gone).total_seconds(), 1),
            "seconds_to_full_rate": round(full, 1),
            "seconds_until_nothing_waits": round(drained, 1),
        }
        click.echo(json.dumps(told, indent=2))


def _look(it: Pressed, clock: float) -> tuple[float, str, int]:
    row = it.connection.execute("SELECT state, failures FROM breakers").fetchone()
    state = "CLOSED" if row is None else f"{row[0]} probes failed {row[1]}"
    spent = it.one("SELECT count(*) FROM executions WHERE attempt > 0 AND state = 'PENDING'")[0]
    return monotonic() - clock, state, int(spent)


def _changes(seen: list[tuple[float, str, int]]) -> Iterator[tuple[float, str, int]]:
    before: tuple[str, int] | None = None
    for at, state, spent in seen:
        if (state, spent) != before:
            yield at, state, spent
        before = state, spent


if __name__ == "__main__":
    main()
