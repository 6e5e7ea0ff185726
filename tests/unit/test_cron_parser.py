"""Reading cron expressions: every form, and what is said about a wrong one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduling.domain.errors import InvalidRequest
from scheduling.domain.recurrence.cron import MAX_LENGTH, NAMED, CronExpression, cron_problems, parse_cron


def members(mask: int) -> list[int]:
    return [n for n in range(mask.bit_length()) if mask >> n & 1]


def minutes(text: str) -> list[int]:
    return members(parse_cron(f"{text} * * * *").times.minutes)


def hours(text: str) -> list[int]:
    return members(parse_cron(f"0 {text} * * *").times.hours)


def weekdays(text: str) -> list[int]:
    return members(parse_cron(f"0 0 * * {text}").days.weekdays)


def months(text: str) -> list[int]:
    return members(parse_cron(f"0 0 1 {text} *").days.months)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7", [7]),
        ("7,5,7", [5, 7]),
        ("1-4", [1, 2, 3, 4]),
        ("*/15", [0, 15, 30, 45]),
        ("*/59", [0, 59]),
        ("10-30/10", [10, 20, 30]),
        ("50/4", [50, 54, 58]),
        ("57-2", [0, 1, 2, 57, 58, 59]),
        ("55-5/3", [1, 4, 55, 58]),
        ("0,5-7,58/1", [0, 5, 6, 7, 58, 59]),
        ("00,07", [0, 7]),
    ],
)
def test_a_field_is_a_list_of_values_ranges_and_steps(text: str, expected: list[int]) -> None:
    assert minutes(text) == expected


def test_ranges_of_hours_and_months_go_round() -> None:
    assert hours("22-2") == [0, 1, 2, 22, 23]
    assert hours("22-4/2") == [0, 2, 4, 22]
    assert months("NOV-FEB") == [1, 2, 11, 12]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", [0]),
        ("7", [0]),
        ("SUN", [0]),
        ("0-7", [0, 1, 2, 3, 4, 5, 6]),
        ("5-7", [0, 5, 6]),
        ("7-2", [0, 1, 2]),
        ("7-7", [0]),
        ("FRI-MON", [0, 1, 5, 6]),
        ("mon-Fri", [1, 2, 3, 4, 5]),
        ("MON,3,SAT", [1, 3, 6]),
        ("*/2", [0, 2, 4, 6]),
        ("1-7/2", [0, 1, 3, 5]),
        ("?", [0, 1, 2, 3, 4, 5, 6]),
    ],
)
def test_sunday_is_0_and_7_and_weekdays_have_names(text: str, expected: list[int]) -> None:
    assert weekdays(text) == expected


def test_months_have_names_in_any_letter_case() -> None:
    assert months("jan,Jun-AUG,12") == [1, 6, 7, 8, 12]


def test_five_fields_fire_at_second_zero_and_six_begin_with_seconds() -> None:
    assert members(parse_cron("* * * * *").times.seconds) == [0]
    assert members(parse_cron("*/20 * * * * *").times.seconds) == [0, 20, 40]


@pytest.mark.parametrize("name", NAMED)
def test_names_are_what_they_are_in_vixie_cron(name: str) -> None:
    assert parse_cron(name) == parse_cron(NAMED[name]) == parse_cron(f"  {name.upper()} ")


@pytest.mark.parametrize(
    ("expression", "fixed"),
    [
        ("30 2 * * *", True),
        ("0,30 2,3 1-7 * MON-FRI", True),
        ("15 30 2 */2 * *", True),
        ("@daily", True),
        ("* 2 * * *", False),
        ("*/30 2 * * *", False),
        ("0-30 2 * * *", False),
        ("0 1-4 * * *", False),
        ("0/30 2 * * *", False),
        ("*/10 30 2 * * *", False),
        ("@hourly", False),
    ],
)
def test_times_are_fixed_when_no_time_field_has_a_star_range_or_step(expression: str, fixed: bool) -> None:
    assert parse_cron(expression).fixed is fixed


@pytest.mark.parametrize(
    ("expression", "position", "text"),
    [
        ("0 25 * * *", 3, "hour: 25 is not in 0–23"),
        ("60 * * * *", 1, "minute: 60 is not in 0–59"),
        ("61 0 0 * * *", 1, "second: 61 is not in 0–59"),
        ("0 0 0 * *", 5, "day-of-month: 0 is not in 1–31"),
        ("0 0 1 13 *", 7, "month: 13 is not in 1–12"),
        ("0 0 * * 8", 9, "day-of-week: 8 is not in 0–7"),
        ("0 0,1,99 * * *", 7, "hour: 99 is not in 0–23"),
        ("0 0 * * MOM", 9, "day-of-week: 'MOM' is not known; did you mean MON?"),
        ("0 0 1 Sept *", 7, "month: 'SEPT' is not known; did you mean SEP?"),
        ("0 0 * * MON-FRY", 13, "day-of-week: 'FRY' is not known; did you mean FRI?"),
        ("0 x * * *", 3, "hour: 'X' is not known, expected 0–23"),
        ("*/0 * * * *", 3, "minute: a step of 0 is not in 1–59"),
        ("*/90 * * * *", 3, "minute: a step of 90 is not in 1–59"),
        ("*/x * * * *", 3, "minute: 'X' is not a step, expected 1–59"),
        ("*/5/2 * * * *", 5, "minute: a second / is one too many"),
        ("1-2-3 * * * *", 5, "minute: a second - is one too many"),
        ("1,,2 * * * *", 3, "minute: a value is missing, expected 0–59"),
        ("0 0 * * 1,", 11, "day-of-week: a value is missing, expected 0–7 or SUN–SAT"),
        ("-5 * * * *", 1, "minute: a value is missing, expected 0–59"),
        ("0 ? * * *", 3, "hour: ? stands only for day-of-month and day-of-week; write *"),
        ("0 0 ?/2 * *", 5, "day-of-month: ? takes no step; write *"),
        ("0 0 L-31 * *", 7, "day-of-month: L-31 is not in L-0–L-30"),
        ("0 0 32W * *", 5, "day-of-month: 32 is not in 1–31"),
        ("0 0 * * L", 9, "day-of-week: L needs the weekday whose last one is meant, such as FRIL or 5L"),
        ("0 0 * * FRI#6", 13, "day-of-week: '6' is not in 1–5, which weekday of the month after #"),
        ("0 0 * * 9L", 9, "day-of-week: 9 is not in 0–7"),
        ("@dayly", 1, "'@dayly' is not known; did you mean @daily?"),
        ("@daily 5", 8, "nothing may follow '@daily'"),
        (
            "0 0 * *",
            8,
            "has 4 fields, expected 5 (minute hour day-of-month month day-of-week), or 6 with seconds in front",
        ),
        ("0 0 12 * * ? 2027", 14, "has 7 fields, expected 5 (minute hour day-of-month month day-of-week), or 6 with"),
        ("", 1, "is empty, expected 5"),
        ("0 0 * * ＭＯＮ", 9, "'Ｍ' has no meaning here"),
    ],
)
def test_a_wrong_expression_is_told_with_field_position_and_expectation(
    expression: str, position: int, text: str
) -> None:
    (problem,) = cron_problems(expression)
    assert problem.position == position
    assert problem.text.startswith(text)
    assert str(problem).endswith(f"(at character {position})")


def test_every_wrong_part_is_told_at_once() -> None:
    found = cron_problems("60 25 0 13 8")
    assert [problem.position for problem in found] == [1, 4, 7, 9, 12]
    with pytest.raises(InvalidRequest) as refused:
        parse_cron("60 25 0 13 8", field="schedule.cron.expression")
    assert [violation.field for violation in refused.value.violations] == ["schedule.cron.expression"] * 5


def test_a_flood_of_problems_is_cut_off_and_a_long_expression_is_refused_unread() -> None:
    assert len(cron_problems(",".join(["99"] * 100) + " * * * *")) == 10
    (problem,) = cron_problems("0 " * MAX_LENGTH)
    assert "at most 500" in problem.text


@given(st.text(max_size=60) | st.text(alphabet="0123456789*/-,?LW# @SUNMOJAdaily", max_size=40))
def test_any_text_is_read_or_refused_with_positions_inside_it(text: str) -> None:
    problems = cron_problems(text)
    assert all(1 <= problem.position <= len(text) + 1 and problem.text for problem in problems)
    if problems:
        with pytest.raises(InvalidRequest):
            parse_cron(text)
    else:
        assert isinstance(parse_cron(text), CronExpression)
