"""The examples of docs/time.md, each of them as it stands there."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import pytest

from scheduling.domain import accounting, backfill, job, overlap
from scheduling.domain.advance import DEFAULT_CATCHUP_WINDOW, MISSED_AFTER, advance
from scheduling.domain.recurrence import MAX_FIRINGS_PER_MINUTE, check_timing, checks, fires_between
from scheduling.domain.recurrence.zones import FIRST_YEAR, LAST_YEAR, known_zone
from scheduling.domain.timing import (
    CatchupPolicy,
    Cron,
    DstPolicy,
    ExcludedCron,
    ExcludedDates,
    ExcludedWindow,
    Timing,
)
from scheduling.operations import previews

PAGE = (Path(__file__).parents[2] / "docs" / "time.md").read_text(encoding="utf-8")
PARIS = "Europe/Paris"


def table(*header: str) -> list[list[str]]:
    """The rows of the table with that header; backquotes are taken off."""
    lines = PAGE.splitlines()
    head = f"| {' | '.join(header)} |"
    start = lines.index(head) + 2
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().strip("`") for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    assert rows
    return rows


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(("expression", "listed"), table("cron", "next firings"))
def test_cron_fires_as_the_page_says(expression: str, listed: str) -> None:
    times = [moment(text) for text in listed.split(", ")]
    now = moment("2026-11-22 12:00")
    assert now.strftime("Sunday, %Y-%m-%d %H:%M") in PAGE
    assert fires_between(Timing(Cron(expression)), now, moment("2100-01-01"), len(times)) == times


@pytest.mark.parametrize(("expression", "said"), table("cron", "said"))
def test_malformed_cron_is_refused_as_the_page_says(expression: str, said: str) -> None:
    (violation,) = check_timing(Timing(Cron(expression)), moment("2026-11-22 12:00"))
    assert violation.description == said


@pytest.mark.parametrize(("expression", "policy", "day", "listed"), table("cron", "policy", "day", "fires, local"))
def test_clock_changes_do_what_the_page_says(expression: str, policy: str, day: str, listed: str) -> None:
    zone = known_zone(PARIS).info
    start = datetime.combine(date.fromisoformat(day), time(0), zone)
    end = datetime.combine(date.fromisoformat(day) + timedelta(days=1), time(0), zone)
    timing = Timing(Cron(expression), PARIS, dst_policy=DstPolicy(policy))
    found = fires_between(timing, start - timedelta(seconds=1), end - timedelta(seconds=1), 100)
    shown = [at.astimezone(zone).strftime("%H:%M%z") for at in found]
    assert ", ".join(f"{text[:-2]}:{text[-2:]}" for text in shown) == listed.replace("–", "")


@pytest.mark.parametrize(("excluded", "listed"), table("excluded", "fires"))
def test_exclusions_take_away_what_the_page_says(excluded: str, listed: str) -> None:
    kind, _, rest = excluded.partition(" ")
    rest = rest.strip("`")
    exclusion: ExcludedDates | ExcludedWindow | ExcludedCron
    match kind:
        case "dates":
            exclusion = ExcludedDates(frozenset({date.fromisoformat(rest)}))
        case "window":
            opens, closes = (time.fromisoformat(text) for text in rest.split("–"))
            exclusion = ExcludedWindow(opens, closes)
        case _:
            exclusion = ExcludedCron(rest)
    timing = Timing(Cron("0 6,12,18 * * *"), exclusions=(exclusion,))
    found = fires_between(timing, moment("2026-12-24 00:00"), moment("2026-12-26 00:00"), 100)
    assert ", ".join(at.strftime("%d %H:%M") for at in found) == listed


def test_overlap_and_catch_up_list_every_policy() -> None:
    rows = table("policy", "the one that comes due", "the open ones")
    assert {row[0] for row in rows} == set(job.OverlapPolicy)
    assert {row[0].split()[0] for row in table("policy", "of the missed firings")} == set(CatchupPolicy)
    assert f"the {overlap.BUFFER_LIMIT + 1:,}st is skipped" in PAGE


@pytest.mark.parametrize(
    ("policy", "window", "made_up"),
    [
        (CatchupPolicy.SKIP_MISSED, None, []),
        (CatchupPolicy.FIRE_ONCE_LATEST, None, ["15:15"]),
        (CatchupPolicy.FIRE_ALL, timedelta(hours=1), ["14:30", "14:45", "15:00", "15:15"]),
    ],
)
def test_the_outage_of_the_page(policy: CatchupPolicy, window: timedelta | None, made_up: list[str]) -> None:
    text = "12:45 to 15:15 as a gap of 11, FIRE_ONCE_LATEST runs\n15:15, and FIRE_ALL with a window of 1 h runs"
    assert f"{text} 14:30, 14:45, 15:00 and 15:15" in PAGE
    timing = Timing(Cron("*/15 * * * *"), catchup_policy=policy, catchup_window=window)
    step = advance(timing, moment("2026-12-24 12:30"), moment("2026-12-24 15:30"), timedelta(seconds=1))
    assert [at.strftime("%H:%M") for at in step.plans] == made_up
    assert sum(gap.firings for gap in step.gaps) == 11 - len(made_up)
    follow = advance(timing, step.until or moment("2026-12-24"), moment("2026-12-24 15:30"), timedelta(seconds=1))
    assert [at.strftime("%H:%M") for at in follow.plans] == ["15:30", "15:45"]


def test_the_limits_are_those_of_the_code() -> None:
    limits = dict(table("what", "limit"))
    assert limits["firings of one schedule"] == f"{MAX_FIRINGS_PER_MINUTE} a minute"
    assert limits["specifications of a union, exclusions of a schedule"] == (
        f"{checks.MAX_SPECS}, {checks.MAX_EXCLUSIONS}"
    )
    assert limits["interval"] == f"{checks.MIN_INTERVAL.seconds} s to {checks.MAX_INTERVAL.days:,} days"
    assert limits["jitter, delay after a deployment"] == "24 h"
    assert checks.MAX_JITTER == checks.MAX_DEPLOYMENT_DELAY == timedelta(hours=24)
    assert limits["catch-up window"] == f"{checks.MAX_CATCHUP_WINDOW.days} days"
    assert limits["firings of one preview, of one backfill"] == f"{previews.MAX_SIZE:,}, {backfill.MAX_FIRINGS:,}"
    assert limits["years that are searched"] == f"{FIRST_YEAR + 1} to {LAST_YEAR - 1}"
    assert checks.MAX_AHEAD.days // 365 == 10
    assert f"more than {accounting.MAX_FIRINGS:,} firings at the latest {accounting.MAX_FIRINGS:,}" in PAGE
    assert f"within {MISSED_AFTER.seconds} s of its time is *missed*" in PAGE
    assert f"the smaller of one period and {DEFAULT_CATCHUP_WINDOW // timedelta(hours=1)} h" in PAGE
    assert f"at {backfill.DEFAULT_RATE} a second unless `rate` says otherwise (up to {backfill.MAX_RATE})" in PAGE
