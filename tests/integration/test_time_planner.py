"""What the leader does to plans besides advancing them: calendars, zone versions, backfills, deployments."""

from __future__ import annotations

import asyncio
from datetime import date, time, timedelta
from unittest.mock import create_autospec
from uuid import uuid4

import psycopg
import pytest

from scheduling.delivery.targets import TargetTable
from scheduling.domain.backfill import BackfillState
from scheduling.domain.errors import AlreadyExists, NotFound, WrongState
from scheduling.domain.job import OverlapPolicy
from scheduling.domain.limits import Limits
from scheduling.domain.recurrence import fires_between, zone_version
from scheduling.domain.schedule import Schedule, ScheduleState
from scheduling.domain.timing import (
    Cron,
    ExcludedDates,
    ExcludedWindow,
    NamedCalendar,
    Once,
    OnDeployment,
)
from scheduling.operations import calendars as calendar_calls
from scheduling.operations.drafts import CalendarDraft, CalendarReference, ListQuery, ScheduleDraft
from scheduling.operations.ports import Ports, RedisProbe
from scheduling.operations.previews import preview_schedule
from scheduling.operations.schedules import list_schedules
from scheduling.storage.calendars import Moved
from tests.support.clock import START
from tests.support.run import run
from tests.support.timeline import DAY, HOUR, MINUTE, SECOND, Timeline, timeline

TODAY = START.date()
NOON = Cron("0 12 * * *")


def days(*numbers: int) -> ExcludedDates:
    """Dates, counted from the day on which the clock starts."""
    return ExcludedDates(frozenset(TODAY + timedelta(days=n) for n in numbers))


def named(*exclusions: ExcludedDates | ExcludedWindow) -> NamedCalendar:
    return NamedCalendar("holidays", exclusions)


def ports_of(line: Timeline, targets: TargetTable) -> Ports:
    redis = create_autospec(RedisProbe, instance=True)
    return Ports(line.store, targets, line.clock, Limits(), redis, "UTC", "test", "1")


async def moved(line: Timeline) -> list[str]:
    """Moves what is to be moved; the names of the schedules that it says."""
    if not line.term:
        await line.lead()
    found: list[str] = []
    more = True
    while more:
        step: Moved = await line.calendars.move_stale_plans(line.term)
        found, more = found + list(step.moved), step.more
    return found


async def marked(line: Timeline, term: int | None = None, page: int = 10_000) -> int:
    """How many schedules were marked for another zone version, a page at a time."""
    count, found = 0, 1
    while found:
        some, found = await line.calendars.mark_other_zone_versions(term or line.term, page)
        count += some
    return count


async def next_day(line: Timeline, schedule: Schedule) -> int | None:
    """Days from the first one to the schedule's plan."""
    stored = await line.read(schedule.uid)
    plans = await line.plans(schedule)
    assert [row["nominal_time"] for row in plans] == ([] if stored.next_fire_time is None else [stored.next_fire_time])
    return None if stored.next_fire_time is None else (stored.next_fire_time.date() - TODAY).days


# --- calendars --------------------------------------------------------------------------------------------------------


def test_plans_follow_a_changed_calendar_and_it_is_told_which(database_url: str) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            await line.calendar("holidays", days(30))
            using = await line.schedule(NOON, exclusions=(named(days(30)),))
            evening = await line.schedule(Cron("0 18 * * *"), exclusions=(named(days(30)),))
            apart = await line.schedule(NOON)
            assert await moved(line) == []
            assert await next_day(line, using) == 1
            await line.change_calendar("holidays", days(1, 2))
            assert await moved(line) == [using.name]
            assert [await next_day(line, each) for each in (using, evening, apart)] == [3, 0, 1]
            told = await line.read(using.uid)
            assert (told.moved_from, told.moved_time) == (START + DAY, line.now)
            assert (await line.read(evening.uid)).moved_time is None
            # Nothing of the past is touched, and nothing else moves.
            assert await moved(line) == []
            await line.change_calendar("holidays", days(40))
            assert await moved(line) == [using.name]
            assert await next_day(line, using) == 1
            await line.live_through(2 * DAY, 6 * HOUR)
            await line.assert_sound(START)

    run(scenario())


def test_a_schedule_that_a_calendar_leaves_nothing_comes_back_when_it_is_changed(database_url: str) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            await line.calendar("holidays", days(30))
            schedule = await line.schedule(NOON, exclusions=(named(days(30)),), end=START + 5 * DAY)
            await line.change_calendar("holidays", days(1, 2, 3, 4))
            assert await moved(line) == [schedule.name]
            assert (await line.read(schedule.uid)).state is ScheduleState.COMPLETED
            await line.change_calendar("holidays", days(1))
            assert await moved(line) == [schedule.name]
            assert await next_day(line, schedule) == 2
            assert (await line.read(schedule.uid)).state is ScheduleState.ACTIVE

    run(scenario())


def test_what_is_paused_spent_or_cancelled_is_not_planned_by_a_calendar(database_url: str) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            await line.calendar("holidays", days(30))
            exclusions = (named(days(30)),)
            paused = await line.pause(await line.schedule(NOON, exclusions=exclusions))
            spent = await line.schedule(Cron("0 13 * * *"), exclusions=exclusions, max_firings=1)
            cancelled = await line.schedule(NOON, exclusions=exclusions)
            line.clock.advance(HOUR)
            await line.tick()
            await line.serve()
            await line.store.cancel_job(cancelled.job_id, None)
            await line.change_calendar("holidays", days(1))
            assert await moved(line) == []
            for each in (paused, spent, cancelled):
                assert await line.plans(each) == []
            assert (await line.resume(paused)).next_fire_time == START + 2 * DAY
            await line.assert_sound(START)

    run(scenario())


def test_a_calendar_that_changed_while_a_schedule_was_made_with_it_is_heeded(database_url: str) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            await line.calendar("holidays", days(1))
            # It was read before the change and is stored after it.
            stale = line.new_schedule(NOON, exclusions=(named(days(1)),))
            await line.change_calendar("holidays", days(1, 2))
            await line.job(schedule=stale)
            schedule = await line.read(stale.uid)
            assert await moved(line) == [schedule.name]
            assert await next_day(line, schedule) == 3

    run(scenario())


def test_a_cancelled_firing_stays_cancelled_whatever_calendars_do(database_url: str) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            await line.calendar("holidays", days(30))
            schedule = await line.schedule(NOON, exclusions=(named(days(30)),))
            (plan,) = await line.plans(schedule)
            await line.store.cancel_execution(schedule.job_id, plan["uid"])
            for dates in (days(1), days(30), days(1), days(29)):
                await line.change_calendar("holidays", dates)
                await moved(line)
            await line.live_through(2 * DAY, 6 * HOUR)
            assert await line.nominals(schedule, "CANCELLED") == [START + DAY]
            assert await line.nominals(schedule, "SUCCEEDED") == [START + 2 * DAY]
            await line.assert_sound(START)

    run(scenario())


def test_a_calendar_is_created_read_listed_changed_and_deleted(database_url: str, targets: TargetTable) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            ports = ports_of(line, targets)
            draft = CalendarDraft("Holidays", (days(1),), "Europe/Paris")
            made = await calendar_calls.create_calendar(ports, "holidays", draft)
            assert (made.exclusions, made.time_zone, made.schedule_count) == ((days(1),), "Europe/Paris", 0)
            with pytest.raises(AlreadyExists):
                await calendar_calls.create_calendar(ports, "holidays", draft)
            for n in range(3):
                await calendar_calls.create_calendar(ports, f"other-{n}", draft)
            first = await calendar_calls.list_calendars(ports, 3, "")
            rest = await calendar_calls.list_calendars(ports, 3, first.next_page_token)
            assert [each.calendar_id for each in (*first.items, *rest.items)] == [
                "holidays", "other-0", "other-1", "other-2",
            ]  # fmt: skip
            assert rest.next_page_token == ""
            change = CalendarDraft("Feasts", (days(2),), "")
            changed = await calendar_calls.update_calendar(ports, "holidays", change, frozenset({"display_name"}))
            assert (changed.display_name, changed.exclusions, changed.revision) == ("Feasts", (days(1),), 2)
            await calendar_calls.delete_calendar(ports, "holidays")
            with pytest.raises(NotFound):
                await calendar_calls.get_calendar(ports, "holidays")

    run(scenario())


def test_a_calendar_that_is_used_is_deleted_only_by_force(database_url: str, targets: TargetTable) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            ports = ports_of(line, targets)
            await line.calendar("holidays", days(1, 2))
            schedule = await line.schedule(NOON, exclusions=(days(3), named(days(1, 2))))
            assert (await calendar_calls.get_calendar(ports, "holidays")).schedule_count == 1
            with pytest.raises(WrongState) as refused:
                await calendar_calls.delete_calendar(ports, "holidays")
            assert refused.value.reason == "CALENDAR_USED"
            assert await next_day(line, schedule) == 4
            await calendar_calls.delete_calendar(ports, "holidays", force=True)
            assert await moved(line) == [schedule.name]
            assert await next_day(line, schedule) == 1
            stored = await line.read(schedule.uid)
            assert (stored.timing.exclusions, stored.revision) == ((days(3),), schedule.revision + 1)
            await line.assert_sound(START)

    run(scenario())


def test_a_calendar_reads_its_local_times_in_its_own_zone_or_the_schedules(database_url: str) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            # 2031-07-02 in Tokyo ends at 15:00 UTC.
            await line.calendar("own", days(1), zone="Asia/Tokyo")
            await line.calendar("none", days(1))
            exclusions = {name: (NamedCalendar(name, (days(1),), zone),) for name, zone in
                          (("own", "Asia/Tokyo"), ("none", None))}  # fmt: skip
            own = await line.schedule(Cron("0 */6 * * *"), exclusions=exclusions["own"])
            none = await line.schedule(Cron("0 */6 * * *"), exclusions=exclusions["none"])
            await line.live_through(2 * DAY - HOUR, 3 * HOUR)
            hours = {each.uid: [when.hour for when in await line.nominals(each, "SUCCEEDED") if when.day == 2]
                     for each in (own, none)}  # fmt: skip
            assert hours == {own.uid: [18], none.uid: []}
            await line.assert_sound(START)

    run(scenario())


# --- zone versions ----------------------------------------------------------------------------------------------------


def test_plans_of_another_zone_version_are_looked_at_again_and_can_be_listed(
    database_url: str, targets: TargetTable
) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            ports = ports_of(line, targets)
            changed = await line.schedule(NOON, time_zone="Africa/Casablanca")
            same = await line.schedule(NOON, time_zone="Europe/Paris")
            await line.lead()
            # As if an older version had put the first one an hour off.
            await line.query("UPDATE schedules SET zone_version = '1999z'")
            await line.query(
                "UPDATE executions SET nominal_time = nominal_time + interval '1 hour' WHERE schedule_uid = %s",
                changed.uid,
            )
            await line.query(
                "UPDATE schedules SET evaluated_until = evaluated_until + interval '1 hour' WHERE uid = %s",
                changed.uid,
            )
            others = ListQuery(filter=f'time_zone_version != "{zone_version()}"')
            listed = await list_schedules(ports, None, others)
            assert {each.uid for each in listed.items} == {changed.uid, same.uid}
            assert await marked(line) == 2
            assert await marked(line) == 0
            assert await moved(line) == [changed.name]
            assert (await list_schedules(ports, None, others)).items == []
            assert [(await line.read(each.uid)).next_fire_time for each in (changed, same)] == [
                each.next_fire_time for each in (changed, same)
            ]
            moves = ListQuery(filter=f'move_time >= "{START.isoformat()}"')
            assert [each.uid for each in (await list_schedules(ports, None, moves)).items] == [changed.uid]
            await line.assert_sound(START)

    run(scenario())


@pytest.mark.parametrize("page", [1, 3, 10])
def test_all_that_another_zone_version_has_planned_is_marked_and_what_is_locked_is_told(
    database_url: str, page: int
) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            each = [await line.schedule(NOON) for _ in range(5)]
            await line.lead()
            await line.query("UPDATE schedules SET zone_version = '1999z'")
            await line.query("UPDATE schedules SET zone_version = '9999z' WHERE uid = %s", each[1].uid)
            await line.query("UPDATE schedules SET paused = true WHERE uid = %s", each[0].uid)
            assert await marked(line, page=page) == 4
            rows = await line.query("SELECT uid FROM schedules WHERE stale")
            assert {row["uid"] for row in rows} == {schedule.uid for schedule in each[1:]}
            await line.query("UPDATE schedules SET stale = false")
            async with await psycopg.AsyncConnection.connect(database_url) as other:
                await other.execute("SELECT FROM schedules WHERE uid = %s FOR UPDATE", [each[2].uid])
                assert await line.calendars.mark_other_zone_versions(line.term) == (3, 4)
                assert await line.calendars.mark_other_zone_versions(line.term) == (0, 1)
            assert await line.calendars.mark_other_zone_versions(line.term) == (1, 1)
            assert await line.calendars.mark_other_zone_versions(line.term) == (0, 0)

    run(scenario())


def test_a_resumed_schedule_is_planned_with_the_zones_of_now(database_url: str) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            schedule = await line.schedule(NOON)
            paused = await line.store.pause_schedule(schedule, "p", "")
            assert paused is not None
            await line.query("UPDATE schedules SET zone_version = '1999z'")
            resumed = await line.store.resume_schedule(paused)
            assert resumed is not None
            assert resumed.zone_version == zone_version()

    run(scenario())


def test_nobody_moves_plans_under_a_term_that_has_ended(database_url: str) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            await line.calendar("holidays", days(30))
            await line.schedule(NOON, exclusions=(named(days(30)),))
            await line.lead()
            await line.change_calendar("holidays", days(1))
            await line.query("UPDATE schedules SET zone_version = '1999z'")
            assert (await line.calendars.move_stale_plans(line.term - 1)).looked_at == 0
            assert await marked(line, line.term - 1) == 0
            assert await line.deployments.begin_deployment(line.term - 1, "d-1") is None
            assert await line.backfilling.step_backfills(line.term - 1) == 0

    run(scenario())


# --- backfills --------------------------------------------------------------------------------------------------------


def test_a_backfill_makes_the_firings_of_its_range_at_its_rate(database_url: str) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            schedule = await line.schedule(Cron("0 * * * *"), exclusions=(days(-1),))
            await line.lead()
            start, end = START - 3 * DAY, START - HOUR
            expected = fires_between(schedule.timing, start - SECOND, end - SECOND, 1000)
            assert len(expected) == 47
            uid = await line.backfill(schedule, start, end, len(expected), rate=10, overlap=OverlapPolicy.ALLOW_ALL)
            made = []
            for _ in range(6):
                made.append(await line.backfilling.step_backfills(line.term))
                # Not before a second has passed, whoever asks.
                assert await line.backfilling.step_backfills(line.term) == 0
                found = await line.store.get_backfill(uid)
                assert found is not None
                assert found.made == sum(made)
                assert found.progress == expected[found.made - 1]
                line.clock.advance(SECOND)
                await line.release()
                await line.serve()
            assert made == [10, 10, 10, 10, 7, 0]
            assert found is not None
            assert found.state is BackfillState.DONE
            ran = await line.query(
                "SELECT nominal_time, origin, due_time FROM execution_history ORDER BY due_time, nominal_time"
            )
            assert [row["nominal_time"] for row in ran] == expected
            assert {row["origin"] for row in ran} == {"BACKFILL"}
            # They are extra: the schedule's own books know nothing of them.
            stored = await line.read(schedule.uid)
            assert (stored.fired_count, stored.next_fire_time) == (0, START + HOUR)
            await line.assert_sound(START - 5 * DAY)

    run(scenario())


def test_the_range_of_a_backfill_is_half_open(database_url: str) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            schedule = await line.schedule(Cron("0 * * * *"))
            await line.lead()
            await line.backfill(schedule, START - 3 * HOUR, START, 3)
            assert await line.backfilling.step_backfills(line.term) == 3
            rows = await line.query("SELECT nominal_time FROM executions WHERE origin = 'BACKFILL' ORDER BY 1")
            assert [row["nominal_time"] for row in rows] == [START - n * HOUR for n in (3, 2, 1)]

    run(scenario())


def test_two_leaders_step_a_backfill_once(database_url: str) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line, timeline(database_url, line.clock) as other:
            schedule = await line.schedule(Cron("0 * * * *"))
            await line.lead()
            await line.backfill(schedule, START - 100 * HOUR, START, 100, rate=10)
            while True:
                steps = await asyncio.gather(
                    *(each.backfilling.step_backfills(line.term) for each in (line, other, line, other))
                )
                assert sorted(steps) in ([0, 0, 0, 10], [0, 0, 0, 0])
                if not any(steps):
                    break
                line.clock.advance(SECOND)
            rows = await line.query("SELECT count(*) AS n, count(DISTINCT nominal_time) AS d FROM executions "
                                    "WHERE origin = 'BACKFILL'")  # fmt: skip
            assert rows == [{"n": 100, "d": 100}]

    run(scenario())


@pytest.mark.parametrize("how", ["cancelled", "job cancelled", "deleted"])
def test_a_backfill_that_nobody_wants_any_more_ends(database_url: str, how: str) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            schedule = await line.schedule(Cron("0 * * * *"))
            await line.lead()
            uid = await line.backfill(schedule, START - 100 * HOUR, START, 100, rate=10)
            assert await line.backfilling.step_backfills(line.term) == 10
            match how:
                case "cancelled":
                    await line.store.cancel_backfill(uid)
                case "job cancelled":
                    await line.store.cancel_job(schedule.job_id, None)
                case _:
                    assert await line.store.delete_schedule(schedule)
            line.clock.advance(SECOND)
            assert await line.backfilling.step_backfills(line.term) == 0
            rows = await line.query("SELECT state, made FROM backfills")
            # With its schedule it is gone altogether.
            assert rows == ([] if how == "deleted" else [{"state": "CANCELLED", "made": 10}])

    run(scenario())


# --- deployments ------------------------------------------------------------------------------------------------------


def test_once_per_deployment_whoever_is_first(database_url: str) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line, timeline(database_url, line.clock) as other:
            schedule = await line.schedule(OnDeployment(5 * SECOND))
            assert schedule.next_fire_time is None
            await line.lead()
            for deployment in ("2031.1", "2031.2"):
                racing = [each.deployments.begin_deployment(line.term, deployment) for each in (line, other) * 4]
                results = await asyncio.gather(*racing)
                assert sorted(result for result in results if result is not None) == [1]
                due = line.now + 5 * SECOND
                assert (await line.read(schedule.uid)).next_fire_time == due
                line.clock.advance(3 * SECOND)
                # A restart of the same deployment, and another leader: nothing new.
                await line.query("UPDATE leadership SET expire_time = '-infinity'")
                term = await line.leading.acquire(uuid4(), 100 * DAY)
                assert term is not None
                line.term = term
                assert await line.deployments.begin_deployment(term, deployment) is None
                assert await line.release() == []
                line.clock.advance(2 * SECOND)
                await line.tick()
                await line.serve()
            ran = await line.nominals(schedule, "SUCCEEDED")
            assert ran == [START + 5 * SECOND, START + 10 * SECOND]
            assert (await line.read(schedule.uid)).fired_count == 2

    run(scenario())


def test_what_waits_for_deployments_can_be_paused_bounded_and_cancelled(database_url: str) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            paused = await line.pause(await line.schedule(OnDeployment(SECOND)))
            bounded = await line.schedule(OnDeployment(SECOND), max_firings=1)
            cancelled = await line.schedule(OnDeployment(SECOND))
            await line.store.cancel_job(cancelled.job_id, None)
            await line.lead()
            assert await line.deployments.begin_deployment(line.term, "a") == 1
            assert [len(await line.plans(each)) for each in (paused, bounded, cancelled)] == [0, 1, 0]
            await line.resume(paused)
            line.clock.advance(MINUTE)
            assert await line.deployments.begin_deployment(line.term, "b") == 1
            assert [len(await line.plans(each)) for each in (paused, bounded, cancelled)] == [1, 1, 0]

    run(scenario())


# --- preview ----------------------------------------------------------------------------------------------------------


def test_a_preview_shows_what_a_calendar_takes_away_and_stores_nothing(database_url: str, targets: TargetTable) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            ports = ports_of(line, targets)
            await line.calendar("holidays", days(1))
            window = ExcludedWindow(time(18), time(6))
            draft = ScheduleDraft(
                Cron("0 6,12,18 * * *"), exclusions=(CalendarReference("holidays"), window, days(2)), jitter=10 * MINUTE
            )
            shown = await preview_schedule(ports, draft, None, None, START, START + 3 * DAY, 0)
            assert [(each.local.strftime("%d %H"), each.excluded_by) for each in shown.firings] == [
                ("01 18", "window"),
                ("02 06", "calendars/holidays"),
                ("02 12", "calendars/holidays"),
                ("02 18", "calendars/holidays"),
                ("03 06", "dates"),
                ("03 12", "dates"),
                ("03 18", "window"),
                ("04 06", ""),
                ("04 12", ""),
            ]
            assert all(each.nominal <= each.ready < each.nominal + 10 * MINUTE for each in shown.firings)
            assert shown.zone_version == zone_version()
            assert "18" in shown.description
            rows = await line.query("SELECT count(*) AS n FROM schedules")
            assert rows == [{"n": 0}]

    run(scenario())


def test_a_preview_of_a_stored_schedule_is_what_it_does(database_url: str, targets: TargetTable) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            ports = ports_of(line, targets)
            schedule = await line.schedule(
                Cron("0 */2 * * *"), jitter=HOUR, overlap=OverlapPolicy.ALLOW_ALL, time_zone="Asia/Kathmandu",
                exclusions=(ExcludedDates(frozenset({date(2031, 7, 2)})),),
            )  # fmt: skip
            shown = await preview_schedule(
                ports, None, schedule.job_id, schedule.schedule_id, START, START + 8 * HOUR, 100
            )
            # In steps below the minute after which a firing counts as missed.
            await line.live_through(9 * HOUR, 50 * SECOND)
            ran = await line.query("SELECT nominal_time, due_time FROM execution_history ORDER BY 1")
            wanted = [(each.nominal, each.ready) for each in shown.firings if not each.excluded_by]
            assert [(row["nominal_time"], row["due_time"]) for row in ran][: len(wanted)] == wanted
            assert any(each.excluded_by == "dates" for each in shown.firings)

    run(scenario())


def test_a_one_off_is_not_touched_by_any_of_this(database_url: str) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            schedule = await line.schedule(Once(START + DAY))
            await line.query("UPDATE schedules SET zone_version = '1999z'")
            await line.lead()
            assert await marked(line) == 0
            assert await moved(line) == []
            assert len(await line.plans(schedule)) == 1

    run(scenario())
