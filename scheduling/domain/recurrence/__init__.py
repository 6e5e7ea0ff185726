"""When a schedule fires: a pure function of its specification and the zone database, and of nothing else.

No clock, no state: the same arguments give the same instants in every process. Instants go in and come out as aware
datetimes (out in UTC). `check_timing` tells what is wrong with a specification; the other functions raise
InvalidRequest for one that cannot be read. Nothing here knows `max_firings`, overlap or catch-up: those need to know
what has happened.

**Cron.** 5 fields (minute, hour, day-of-month, month, day-of-week), or 6 with seconds in front; parted by white
space; letter case does not matter. A field is a list, parted by commas, of
- `*`: every value; `?`: the same, in the two day fields only;
- `v`: a value; months also by JAN–DEC, weekdays 0–7 (0 and 7 are Sunday) also by SUN–SAT;
- `v-w`: a range, which goes round when it ends before it begins (`FRI-MON`, `22-2`, `NOV-FEB`);
- `*/n`, `v-w/n`: each n-th value of these; `v/n`: each n-th from v to the end of the field; n is at most the field's
  width, so `*/90` is refused instead of being read as something else;
- in day-of-month: `L` the last day, `L-n` n days before it, `nW` the Monday to Friday nearest to day n within the
  month, `LW` the last Monday to Friday, `L-nW` the one nearest to `L-n`. A month without day n has no `nW`;
- in day-of-week: `d#n` the n-th such weekday (1–5) of the month, `dL` the last one. `L` alone is refused.
`@hourly @daily @midnight @weekly @monthly @yearly @annually` are what they are in Vixie cron. Years, `H`, `@reboot`
and `@every` are not known.

**Day-of-month and day-of-week.** When both are restricted, a day that satisfies either fires; otherwise both must be
satisfied. As in Vixie cron (crontab(5)), a field that begins with `*` is not restricted: `0 0 */2 * MON` fires on
Mondays with an odd date. `?` counts as `*`. The 29th of February on a Monday is `0 0 ? 2 MON#5`.

**Daylight saving.** *Fixed* local times are those of calendar repetitions, and of cron expressions whose second,
minute and hour are single values or lists of them: no `*`, `-` or `/` in any of the three. By default
(FIRE_AFTER_GAP) each fires once: one in a gap at the first instant after it, one that occurs twice the first time;
several that fall into one gap, or onto a time that fires anyway, are one firing. All other cron times follow the
absolute clock: whatever the wall clock shows fires, in both folds, and nothing in the gap. SKIP_GAP leaves out fixed
times in a gap; LITERAL treats fixed times like all others. A skipped date (Apia, 2011-12-30) is a gap like any other,
and which days match is decided by the local date that was asked for, not by the one that it is moved to.

**Intervals** fire at anchor + phase + n × every for all whole n, before the anchor too; the anchor is the Unix epoch
unless given. They are absolute durations. **Calendar** repetitions: see `Calendar`.

**Unions and exclusions.** A `Recurrence` fires when any of its specifications does, once per instant. An exclusion is
judged by the instant of the firing: a local date or window means the local time at that instant, after a gap has
moved it. Bounds are half-open, `[start, end)`.

**Jitter** never reorders: see `jittered`. **Limits.** At most 60 firings a minute, which is cron by seconds. The
years 3 to 9997 are searched. What has no day in 400 years, falls into gaps 32 times in a row, or into windows and cron
exclusions for 400 days or 12,000 times in a row, counts as never firing, and is refused at creation. Zones are those
that the pinned `tzdata` wheel lists; `zone_version` tells which release that is.
"""

from scheduling.domain.recurrence.checks import MAX_FIRINGS_PER_MINUTE, check_recurrence, check_timing
from scheduling.domain.recurrence.describe import describe
from scheduling.domain.recurrence.engine import (
    Firing,
    fires_between,
    jittered,
    next_fire,
    period_hint,
    preview,
    previous_fire,
)
from scheduling.domain.recurrence.specs import (
    Calendar,
    ExcludedCron,
    ExcludedDates,
    ExcludedPeriod,
    ExcludedWindow,
    Exclusion,
    Frequency,
    NamedCalendar,
    NthWeekday,
    Recurrence,
    Spec,
    Weekday,
    recurrence_of,
)
from scheduling.domain.recurrence.zones import is_zone, suggest_zone, zone_version

__all__ = [
    "MAX_FIRINGS_PER_MINUTE",
    "Calendar",
    "ExcludedCron",
    "ExcludedDates",
    "ExcludedPeriod",
    "ExcludedWindow",
    "Exclusion",
    "Firing",
    "Frequency",
    "NamedCalendar",
    "NthWeekday",
    "Recurrence",
    "Spec",
    "Weekday",
    "check_recurrence",
    "check_timing",
    "describe",
    "fires_between",
    "is_zone",
    "jittered",
    "next_fire",
    "period_hint",
    "preview",
    "previous_fire",
    "recurrence_of",
    "suggest_zone",
    "zone_version",
]
