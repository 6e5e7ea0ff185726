"""`scheduling verify`."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import click

from scheduling.app import SystemClock
from scheduling.cli.processes import BAD_SETTINGS, FAILED, read_settings, require
from scheduling.domain.accounting import Account, audit
from scheduling.domain.errors import StoreUnavailable
from scheduling.domain.pause import Pause, Scope
from scheduling.storage.controls import ControlStore
from scheduling.storage.database import Database
from scheduling.storage.restoring import RestoringStore
from scheduling.storage.verifying import VerifyingStore

#: Times shown of each problem.
SHOWN = 5
FIRST = UUID(int=0)


def run_verify(since_text: str | None) -> int:
    """Verifies and prints what is wrong; returns the exit code."""
    settings = read_settings()
    require(settings, "database_url")
    assert settings.database_url is not None
    try:
        since = SystemClock().now() - timedelta(days=30) if since_text is None else datetime.fromisoformat(since_text)
    except ValueError:
        click.echo(f"--since: {since_text!r} is no time; expected one such as 2030-01-31T12:00:00Z", err=True)
        return BAD_SETTINGS
    if since.tzinfo is None:
        since = since.replace(tzinfo=UTC)
    try:
        return asyncio.run(_verify(settings.database_url, since))
    except StoreUnavailable as error:
        click.echo(f"scheduling verify: {error}: {error.__cause__}", err=True)
        return FAILED


async def _verify(url: str, since: datetime) -> int:
    # Nobody waits for it: a long history may take its time.
    patience = timedelta(minutes=5)
    verifying = Database(url, application="whispr-scheduling-verify", size=2, hot_timeout=patience)
    await verifying.reach()
    async with verifying as database:
        store = VerifyingStore(database)
        accounts = [audit(ledger, now) async for ledger, now in store.ledgers(since)]
        lost, stuck = await store.lost_one_offs(), await store.stuck()
        # Paused, it may have been restored: what is due may have been called in the time that is lost.
        pauses = await ControlStore(database).pauses()
        waiting = await RestoringStore(database).repeatable(since, FIRST) if any(map(_is_all, pauses)) else ()
    for account in accounts:
        if not account.is_sound:
            click.echo(f"{account.name}: {_problems(account)}")
    for name in lost:
        click.echo(f"{name}: there is no trace of its execution")
    for each in waiting:
        click.echo(f"{each.name}: {each.state}, due {each.ready_time.isoformat()}, may be sent again")
    for name in stuck:
        click.echo(f"{name}: has been standing still for five minutes")
    unsound = sum(not account.is_sound for account in accounts)
    click.echo(
        f"{len(accounts)} recurring schedules with {sum(a.expected for a in accounts)} firings: "
        f"{sum(len(a.unaccounted) for a in accounts)} unaccounted, {sum(len(a.doubled) for a in accounts)} doubled, "
        f"{sum(len(a.unexpected) for a in accounts)} unexpected; {len(lost)} one-offs lost; {len(stuck)} stuck"
    )
    return FAILED if unsound or lost or stuck else 0


def _is_all(pause: Pause) -> bool:
    return pause.scope is Scope.SERVICE


def _problems(account: Account) -> str:
    kinds = (
        ("unaccounted", account.unaccounted),
        ("doubled", account.doubled),
        ("unexpected", account.unexpected),
    )
    return "; ".join(f"{len(times)} {kind} ({_shown(times)})" for kind, times in kinds if times)


def _shown(times: tuple[datetime, ...]) -> str:
    more = " …" if len(times) > SHOWN else ""
    return ", ".join(time.isoformat() for time in times[:SHOWN]) + more
