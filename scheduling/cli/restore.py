"""`scheduling restore`: what an operator does after the database was restored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import click

from scheduling.app import own_principal
from scheduling.cli.processes import BAD_SETTINGS, FAILED, read_settings, require
from scheduling.domain.audit import Actor, acting
from scheduling.domain.errors import StoreUnavailable, WrongState
from scheduling.domain.ids import parse_execution_id
from scheduling.domain.pause import Scope
from scheduling.storage.controls import ControlStore
from scheduling.storage.database import Database
from scheduling.storage.restoring import PAGE, Repeatable, RestoringStore

_PATIENCE = timedelta(minutes=5)
_EVER = datetime(1970, 1, 1, tzinfo=UTC)


def run_restore(step: str, since_text: str | None, names: Sequence[str], *, everything: bool = False) -> int:
    """Takes one step, prints what it found; returns the exit code."""
    settings = read_settings()
    require(settings, "database_url")
    assert settings.database_url is not None
    try:
        since = _EVER if since_text is None else datetime.fromisoformat(since_text)
    except ValueError:
        click.echo(f"--since: {since_text!r} is no time; expected one such as 2030-01-31T12:00:00Z", err=True)
        return BAD_SETTINGS
    since = since if since.tzinfo is not None else since.replace(tzinfo=UTC)
    uids = [parse_execution_id(name.rpartition("/")[2]) for name in names]
    for name, uid in zip(names, uids, strict=True):
        if uid is None:
            click.echo(f"{name!r} names no execution; expected jobs/{{job}}/executions/{{execution}}", err=True)
            return BAD_SETTINGS
    chosen = None if everything else [uid for uid in uids if uid is not None]
    try:
        return asyncio.run(_run(settings.database_url, own_principal(settings), step, since, chosen))
    except StoreUnavailable as error:
        click.echo(f"scheduling restore {step}: {error}: {error.__cause__}", err=True)
        return FAILED
    except WrongState as error:
        click.echo(f"scheduling restore {step}: {error}", err=True)
        return FAILED


async def _run(url: str, principal: str, step: str, since: datetime, chosen: Sequence[UUID] | None) -> int:
    acting.set(Actor(principal, f"scheduling restore {step}"))
    restoring = Database(url, application="whispr-scheduling-restore", size=2, hot_timeout=_PATIENCE)
    await restoring.reach()
    async with restoring as database:
        store = RestoringStore(database)
        if step == "mark":
            await ControlStore(database).pause(Scope.SERVICE, "", principal, "the database was restored")
            click.echo("paused; `scheduling restore list` tells what may be called again, ResumeService lets it go")
            return 0
        if step == "list":
            count = 0
            async for page in _pages(store, since):
                count += len(page)
                for each in page:
                    click.echo(
                        f"{each.name} {each.state} due {each.ready_time.isoformat()} {each.target} "
                        f"attempts {each.attempt}"
                    )
            click.echo(f"{count} executions may be called again")
            return 0
        skipped = 0
        if chosen is None:
            async for page in _pages(store, since):
                skipped += await store.skip([each.uid for each in page])
        else:
            skipped = await store.skip(chosen)
        click.echo(f"{skipped} executions skipped")
        return 0


async def _pages(store: RestoringStore, since: datetime) -> AsyncIterator[Sequence[Repeatable]]:
    after = UUID(int=0)
    while True:
        page = await store.repeatable(since, after)
        yield page
        if len(page) < PAGE:
            return
        after = page[-1].uid
