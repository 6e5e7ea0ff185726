"""Microseconds for the next firing of ten typical and a dozen hostile specifications: `python -m bench.recurrence`.

Warm is what a running scheduler pays: the parsed expression and the year's clock changes are remembered. Cold is the
first time in a process: every cache of the engine is emptied before each run, the zone's file included. Both are
medians of the thread's own processor time, which is what a pure function takes on a free core; `worst` is the slowest
warm run.
Exits with 1 if a median is above the limit.
"""

# ruff: noqa: SLF001 - caches are nobody's business but the engine's and this file's

from __future__ import annotations

import gc
import statistics
import sys
from datetime import UTC, date, datetime, time, timedelta
from time import thread_time

from scheduling.domain.recurrence import cron, engine, next_fire, zones
from scheduling.domain.timing import (
    Calendar,
    Cron,
    DstPolicy,
    ExcludedCron,
    ExcludedDates,
    ExcludedWindow,
    Frequency,
    Interval,
    Recurrence,
    Timing,
    Weekday,
)

#: Microseconds that no next firing may take.
LIMIT = 5000
WARM_RUNS, COLD_RUNS = 200, 15

NOW = datetime(2026, 11, 22, 10, 7, 3, 123, tzinfo=UTC)
PARIS, YORK = "Europe/Paris", "America/New_York"
SKIP_GAP = DstPolicy.SKIP_GAP

Case = tuple[str, Timing | Recurrence, datetime]

TYPICAL: list[Case] = [
    ("*/5 * * * *", Timing(Cron("*/5 * * * *")), NOW),
    ("0 9 * * MON-FRI, Paris", Timing(Cron("0 9 * * MON-FRI"), PARIS), NOW),
    ("30 2 * * *, Paris", Timing(Cron("30 2 * * *"), PARIS), NOW),
    ("@hourly", Timing(Cron("@hourly")), NOW),
    ("@monthly, Bucharest", Timing(Cron("@monthly"), "Europe/Bucharest"), NOW),
    ("0 */6 * * *, Paris", Timing(Cron("0 */6 * * *"), PARIS), NOW),
    ("*/10 * * * * * (seconds)", Timing(Cron("*/10 * * * * *")), NOW),
    ("0 8 LW * *, New York", Timing(Cron("0 8 LW * *"), YORK), NOW),
    ("every 30 min", Timing(Interval(timedelta(minutes=30))), NOW),
    (
        "Mondays and Thursdays at 9:00, Paris",
        Timing(Calendar(Frequency.WEEKLY, (time(9),), weekdays=frozenset({Weekday.MONDAY, Weekday.THURSDAY})), PARIS),
        NOW,
    ),
]

SUNDAYS = ExcludedDates(frozenset(date(2026, 11, 22) + timedelta(days=7 * n) for n in range(500)))
ALL_MINUTES, ALL_HOURS = (",".join(map(str, range(top))) for top in (60, 24))
HOSTILE: list[Case] = [
    ("0 0 ? 2 MON#5 from 2072 (then 2112)", Timing(Cron("0 0 ? 2 MON#5"), PARIS), datetime(2072, 3, 1, tzinfo=UTC)),
    ("0 0 31 2 * (never)", Timing(Cron("0 0 31 2 *")), NOW),
    ("30 2 ? 3 SUNL, SKIP_GAP (never)", Timing(Cron("30 2 ? 3 SUNL"), PARIS, dst_policy=SKIP_GAP), NOW),
    ("*/10 2 ? 3 SUNL (never)", Timing(Cron("*/10 2 ? 3 SUNL"), PARIS), NOW),
    ("59 59 23 29W 2 TUE#5, Lord Howe", Timing(Cron("59 59 23 29W 2 TUE#5"), "Australia/Lord_Howe"), NOW),
    ("* * * 29 2 ? from 1897 (then 1904)", Timing(Cron("* * * 29 2 ?"), "Africa/Casablanca"),
     datetime(1897, 1, 1, tzinfo=UTC)),
    ("84 values in lists, 31 2,4,12", Timing(Cron(f"{ALL_MINUTES} {ALL_HOURS} 31 2,4,12 ?"), PARIS), NOW),
    ("Sundays, 500 of them excluded", Recurrence((Cron("0 12 * * SUN"),), (SUNDAYS,), PARIS), NOW),
    ("noon without 11 to 13 h (never)",
     Recurrence((Cron("0 12 * * *"),), (ExcludedWindow(time(11), time(13)),), PARIS), NOW),
    ("each second without 11 months", Recurrence((Cron("* * * * * *"),), (ExcludedCron("* * * 1-11 *"),), PARIS),
     datetime(2027, 1, 1, tzinfo=UTC)),
    ("union of 20 leap-day crons", Recurrence(tuple(Cron(f"{n} {n} 29 2 *") for n in range(20)), (), PARIS), NOW),
    ("20 years of gaps, SKIP_GAP, New York", Timing(Cron("30 2 ? 4 SUN#1"), YORK, dst_policy=SKIP_GAP),
     datetime(1987, 1, 1, tzinfo=UTC)),
]  # fmt: skip


def forget() -> None:
    """Empties every cache of the engine."""
    engine._rule.kept.clear()
    cron._read_short.cache_clear()
    zones._load.cache_clear()
    zones._table.cache_clear()


def measure(what: Timing | Recurrence, after: datetime, runs: int, *, cold: bool) -> list[float]:
    """Microseconds of each run."""
    found = []
    for _ in range(runs):
        if cold:
            forget()
        gc.disable()
        began = thread_time()
        next_fire(what, after)
        found.append((thread_time() - began) * 1e6)
        gc.enable()
    return found


def main() -> int:
    """Prints the table; returns the exit code."""
    slowest = 0.0
    for title, cases in (("typical", TYPICAL), ("hostile", HOSTILE)):
        print(f"{title:<38} {'warm':>8} {'worst':>8} {'cold':>8}  next firing")
        for name, what, after in cases:
            next_fire(what, after)
            warm = measure(what, after, WARM_RUNS, cold=False)
            cold = measure(what, after, COLD_RUNS, cold=True)
            medians = statistics.median(warm), statistics.median(cold)
            slowest = max(slowest, *medians)
            found = next_fire(what, after)
            shown = "none" if found is None else found.isoformat()
            print(f"  {name:<36} {medians[0]:8.1f} {max(warm):8.1f} {medians[1]:8.1f}  {shown}")
        print()
    print(f"slowest median {slowest:.0f} µs, limit {LIMIT} µs")
    return int(slowest > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
