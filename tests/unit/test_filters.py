"""Filters and orders: what they mean, what is refused, and that nothing crashes the parser."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduling.domain import filters
from scheduling.domain.errors import InvalidRequest
from scheduling.domain.filters import And, Comparison, Expression, Not, Op, Or, OrderBy, parse_filter, parse_order_by


class Colour(StrEnum):
    RED = "RED"
    GREEN = "GREEN"


FIELDS = {
    "owner": filters.STRING,
    "target": filters.STRING,
    "state": filters.enum_of(Colour),
    "create_time": filters.TIMESTAMP,
    "attempt_count": filters.INTEGER,
    "timeout": filters.DURATION,
    "paused": filters.BOOLEAN,
    "labels": filters.LABELS,
}


def parsed(text: str) -> Expression | None:
    return parse_filter(text, FIELDS)


def refused(text: str) -> str:
    with pytest.raises(InvalidRequest) as caught:
        parsed(text)
    (violation,) = caught.value.violations
    assert (violation.field, violation.reason) == ("filter", "INVALID_FILTER")
    return violation.description


def eq(field: str, value: filters.Value) -> Comparison:
    return Comparison(field, Op.EQ, value)


A, B, C, D = (eq("owner", name) for name in "abcd")


@pytest.mark.parametrize("text", ["", "  ", "\t\n"])
def test_a_blank_filter_is_none(text: str) -> None:
    assert parsed(text) is None


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("owner=a", A),
        ("owner=a AND owner=b", And((A, B))),
        ("owner=a owner=b", And((A, B))),
        ("owner=a owner=b AND owner=c", And((A, B, C))),
        ("owner=a OR owner=b OR owner=c", Or((A, B, C))),
        ("owner=a AND owner=b OR owner=c", And((A, Or((B, C))))),
        ("owner=a OR owner=b AND owner=c OR owner=d", And((Or((A, B)), Or((C, D))))),
        ("owner=a owner=b OR owner=c", And((A, Or((B, C))))),
        ("(owner=a AND owner=b) OR owner=c", Or((And((A, B)), C))),
        ("NOT owner=a OR owner=b", Or((Not(A), B))),
        ("-owner=a AND NOT (owner=b)", And((Not(A), Not(B)))),
        ("NOT(owner=a)", Not(A)),
        ("((owner=a))", A),
    ],
)
def test_or_binds_tighter_than_and(text: str, meaning: Expression) -> None:
    assert parsed(text) == meaning


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ('owner = "u-17"', eq("owner", "u-17")),
        ("owner = 'it is \"so\"'", eq("owner", 'it is "so"')),
        (r'owner = "a\"b\\c\n\*"', eq("owner", 'a"b\\c\n*')),
        ('owner = "AND"', eq("owner", "AND")),
        ('owner = ""', eq("owner", "")),
        ('owner != "x"', Comparison("owner", Op.NE, "x")),
        ("target = messaging.MessagingService/SendScheduledMessage",
         eq("target", "messaging.MessagingService/SendScheduledMessage")),
        ("state = RED", eq("state", "RED")),
        ('state != "GREEN"', Comparison("state", Op.NE, "GREEN")),
        ("attempt_count >= -3", Comparison("attempt_count", Op.GE, -3)),
        ("attempt_count<9223372036854775807", Comparison("attempt_count", Op.LT, 2**63 - 1)),
        ("timeout > 1.5s", Comparison("timeout", Op.GT, timedelta(seconds=1.5))),
        ("timeout <= -30s", Comparison("timeout", Op.LE, timedelta(seconds=-30))),
        ("paused = true", eq("paused", True)),
        ("paused = false", eq("paused", False)),
        ("owner:*", Comparison("owner", Op.PRESENT, None)),
        ("attempt_count:*", Comparison("attempt_count", Op.PRESENT, None)),
    ],
)  # fmt: skip
def test_values_have_the_type_of_their_field(text: str, meaning: Expression) -> None:
    assert parsed(text) == meaning


@pytest.mark.parametrize(
    "value",
    [
        "2030-01-01T00:00:00Z",
        '"2030-01-01T00:00:00Z"',
        "2030-01-01t00:00:00z",
        "2029-12-31T18:30:00-05:30",
        "2030-01-01T00:00:00.000000999Z",
    ],
)
def test_times_may_be_quoted_or_not_and_become_utc(value: str) -> None:
    assert parsed(f"create_time>{value}") == Comparison("create_time", Op.GT, datetime(2030, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("value", "op", "text"),
    [
        ('"u-*"', Op.STARTS_WITH, "u-"),
        ("u-*", Op.STARTS_WITH, "u-"),
        ('"*.com"', Op.ENDS_WITH, ".com"),
        ('"*mid*"', Op.CONTAINS, "mid"),
        ('"*"', Op.PRESENT, None),
        ('"**"', Op.PRESENT, None),
        (r'"\*a"', Op.EQ, "*a"),
        (r'"a\**"', Op.STARTS_WITH, "a*"),
    ],
)
def test_an_asterisk_at_either_end_is_a_wildcard(value: str, op: Op, text: str | None) -> None:
    assert parsed(f"owner = {value}") == Comparison("owner", op, text)


def test_not_equal_with_a_wildcard_still_needs_a_value() -> None:
    present = Comparison("owner", Op.PRESENT, None)
    assert parsed('owner != "u-*"') == And((present, Not(Comparison("owner", Op.STARTS_WITH, "u-"))))
    assert parsed('owner != "*"') == Not(present)


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ('labels.team = "x"', Comparison("labels", Op.EQ, "x", "team")),
        ("labels.team:x", Comparison("labels", Op.EQ, "x", "team")),
        ("labels.team != x", Comparison("labels", Op.NE, "x", "team")),
        ("labels.team = x*", Comparison("labels", Op.STARTS_WITH, "x", "team")),
        ("labels.team:*", Comparison("labels", Op.PRESENT, None, "team")),
        ("labels:team", Comparison("labels", Op.PRESENT, None, "team")),
        ('labels:"a.b"', Comparison("labels", Op.PRESENT, None, "a.b")),
        ("labels.a.b-c_d = 1", Comparison("labels", Op.EQ, "1", "a.b-c_d")),
        ('labels."a/b" = x', Comparison("labels", Op.EQ, "x", "a/b")),
        ("labels.AND = x", Comparison("labels", Op.EQ, "x", "AND")),
    ],
)
def test_labels_are_compared_by_key(text: str, meaning: Expression) -> None:
    assert parsed(text) == meaning


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ownr = x", "at character 1: no field 'ownr'; did you mean owner?"),
        ("zzz = x", "expected one of owner, target"),
        ("owner", "at character 6: found the end; expected a comparison"),
        ('"alone"', "expected a field and a comparison"),
        ("owner =", "at character 8: found the end; expected a value"),
        ("owner = AND", "expected a value"),
        ("owner == x", "at character 8: found '='; expected a value"),
        ("owner = x y", "no field 'y'"),
        ("owner = x and owner = y", "at character 11: found and; did you mean AND?"),
        ("owner = x AND", "found the end; expected a field"),
        ("OR owner = x", "found OR; expected a field"),
        ("owner = x OR OR owner = y", "found OR; expected a field"),
        ("--owner = x", "at character 2: found '-'; expected a field"),
        ("(owner = x", "found the end; expected `)` for the `(` at character 1"),
        ("owner = x)", "found ')'; expected AND, OR or the end"),
        ("()", "found ')'; expected a field"),
        ('owner = "x', "a text without end"),
        (r'owner = "\q"', "an unknown escape"),
        ("owner = (a OR b)", "found '('; expected a value"),
        ("owner.name = x", "owner has no fields of its own"),
        ("owner > x", "owner has no order; expected = or !="),
        ("owner = a*b", "found * inside a text"),
        ("owner:x", "expected owner:* or owner = value"),
        ("owner = x\0", "NUL"),
        ("state = red", "at character 9: 'red' is no value of state; did you mean RED?"),
        ("state = BLUE", "expected one of RED, GREEN"),
        ("state = *", "or state:* for any value"),
        ("state > RED", "state has no order"),
        ("paused = yes", "expected true or false"),
        ("attempt_count = x", "expected a whole number without quotes"),
        ('attempt_count = "3"', "expected a whole number without quotes"),
        ("attempt_count = 9223372036854775808", "expected a whole number"),
        ("create_time > yesterday", "expected a time of RFC 3339"),
        ("create_time > 2030-01-01", "expected a time of RFC 3339"),
        ("create_time > 2030-01-01T00:00:00", "expected a time of RFC 3339"),
        ("create_time > 2030-02-30T00:00:00Z", "expected a time of RFC 3339"),
        ("create_time > 0001-01-01T00:00:00+23:59", "expected a time of RFC 3339"),
        ("timeout > 5m", "expected seconds with an s"),
        ("timeout > 999999999999999s", "expected seconds with an s"),
        ("labels = x", "labels is compared by key"),
        ("labels:*", "expected the key of a label"),
        ("labels:te*", "a wildcard in a label's key"),
        ("labels. = x", "expected the rest of the field's name"),
    ],
)
def test_a_wrong_filter_is_told_where_and_what_was_expected(text: str, expected: str) -> None:
    assert expected in refused(text)


def test_length_depth_and_number_of_comparisons_are_bounded() -> None:
    assert parsed("(" * 20 + "owner=a" + ")" * 20) == A
    assert "nested parentheses" in refused("(" * 21 + "owner=a" + ")" * 21)
    assert isinstance(parsed(" ".join(["owner=a"] * 100)), And)
    assert "more than 100 comparisons" in refused(" ".join(["owner=a"] * 101))
    assert "expected at most 2000" in refused("owner = " + "a" * 2000)


PIECES = (
    "owner", "state", "create_time", "attempt_count", "timeout", "labels", ".", "team", "=", "!=", "<", ">=", ":", "*",
    "-", "AND", "OR", "NOT", "(", ")", '"', "'", "\\", "RED", "3", "30s", "2030-01-01T00:00:00Z", " ", "  ", "\0", "é",
)  # fmt: skip
PIECED = st.lists(st.sampled_from(PIECES), max_size=60).map("".join)


@given(st.one_of(st.text(max_size=200), PIECED))
def test_the_parser_answers_or_refuses_but_never_crashes(text: str) -> None:
    try:
        result = parsed(text)
    except InvalidRequest as error:
        fields = [violation.field for violation in error.violations]
    else:
        assert (result is None) == (not text.strip(" \t\r\n"))
        fields = ["filter"]
    assert fields == ["filter"]


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=100))
def test_any_text_can_be_quoted(text: str) -> None:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("*", "\\*")
    assert parsed(f'owner = "{escaped}"') == eq("owner", text)


def test_an_order_is_one_allowed_field_with_its_direction() -> None:
    allowed = ("create_time", "job_id")
    assert parse_order_by("", allowed) == OrderBy("create_time", True)
    assert parse_order_by("  ", allowed, OrderBy("job_id", False)) == OrderBy("job_id", False)
    assert parse_order_by(" job_id ", allowed) == ("job_id", False)
    assert parse_order_by("create_time   desc", allowed) == ("create_time", True)


@pytest.mark.parametrize(
    "text", ["job", "job_id asc", "job_id DESC", "job_id desc desc", "job_id,create_time", ",", "desc"]
)
def test_a_wrong_order_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_order_by(text, ("create_time", "job_id"))
    assert [(v.field, v.reason) for v in caught.value.violations] == [("order_by", "INVALID_ORDER")]
