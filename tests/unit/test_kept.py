"""What a caller sends cannot fill the memory of a process."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta

from google.protobuf.any_pb2 import Any as PackedMessage

from scheduling.domain.kept import Kept, keep, weight_of
from scheduling.domain.recurrence import cron, engine, next_fire, zones
from scheduling.domain.recurrence.cron import MAX_LENGTH
from scheduling.domain.timing import Cron, ExcludedDates, ExcludedWindow, NamedCalendar, Recurrence
from scheduling.rpc import values
from scheduling.rpc.values import Findings, read_payload

NOW = datetime(2026, 5, 4, tzinfo=UTC)


def test_what_is_kept_weighs_no_more_than_the_limit_and_the_longest_unused_goes_first() -> None:
    kept = Kept[str, str](100, lambda key, value: len(key) + len(value))
    for name in "abcde":
        kept[name] = "x" * 19
    assert (len(kept), kept.weight) == (5, 100)
    assert kept.get("a") == "x" * 19
    kept["f"] = "y"
    assert kept.get("b") is None
    assert kept.get("a") == "x" * 19
    assert kept.weight == 82
    kept["a"] = ""
    assert (kept.get("a"), kept.weight) == ("", 63)


def test_what_would_drive_out_everything_else_is_not_kept() -> None:
    kept = Kept[str, str](100, lambda _, value: len(value))
    kept["small"] = "x" * 25
    kept["large"] = "x" * 26
    assert kept.get("large") is None
    assert kept.get("small") is not None


def test_a_function_is_asked_once_for_what_is_kept_and_again_after_an_error() -> None:
    asked: list[str] = []

    @keep(10_000, factor=1)
    def halve(text: str) -> str:
        asked.append(text)
        if len(text) % 2:
            raise ValueError(text)
        return text[::2]

    for text in ("ab", "ab", "abc", "abc"):
        try:
            halve(text)
        except ValueError:
            assert len(text) == 3
    assert asked == ["ab", "abc", "abc"]


def test_calendars_of_any_size_do_not_fill_the_rules_that_are_kept() -> None:
    engine._rule.kept.clear()
    days = [date(2027, 1, 1) + timedelta(days=n) for n in range(500)]
    for number in range(400):
        window = ExcludedWindow(time(1), time(2 + number % 9))
        calendar = NamedCalendar(f"calendar-{number}", (ExcludedDates(frozenset(days)), window) * (1 + number % 50))
        assert next_fire(Recurrence((Cron("0 12 * * *"),), (calendar,)), NOW) == NOW + timedelta(hours=12)
    assert weight_of(calendar) > 30_000
    assert 0 < engine._rule.kept.weight <= engine._RULES_BYTES


def test_texts_that_are_too_long_to_be_right_are_not_kept() -> None:
    before = cron._read_short.cache_info().currsize, values._type_name.cache_info().currsize
    for number in range(20):
        assert not isinstance(cron._read(f"{number}" + " *" * MAX_LENGTH), cron.CronExpression)
        findings = Findings()
        assert read_payload(PackedMessage(type_url=f"x/{number}{'y' * 100_000}"), "request", findings) is None
    assert (cron._read_short.cache_info().currsize, values._type_name.cache_info().currsize) == before


def test_years_of_all_zones_are_kept_together() -> None:
    for name in sorted(zones._names())[:30]:
        for year in range(1950, 2100):
            zones.zone(name).offset(int(datetime(year, 6, 1, tzinfo=UTC).timestamp()))
    info = zones._table.cache_info()
    assert info.currsize == info.maxsize == 4096
