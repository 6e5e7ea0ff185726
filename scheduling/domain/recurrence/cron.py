"""Cron expressions: the parser, and what it makes of one. The dialect is described in the package's page.

Positions in messages are characters of the expression, counted from 1.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from scheduling.domain.errors import InvalidRequest, Violation
from scheduling.domain.recurrence.walk import DaysOfMonth, GridTimes

#: Longest expression that is read, in characters (the proto says the same).
MAX_LENGTH = 500

#: More problems than this are not told; nobody reads them.
MAX_PROBLEMS = 10

_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")

#: What the names stand for, as in Vixie cron.
NAMED = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


class Problem(NamedTuple):
    """One thing that is wrong with an expression, at a character counted from 1."""

    position: int
    text: str

    def __str__(self) -> str:
        return f"{self.text} (at character {self.position})"


@dataclass(frozen=True, slots=True)
class Field:
    """One field of an expression: its name, range, names of values, and whether the last value is the first again."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()
    #: Value of the first name.
    first_name: int = 0

    @property
    def width(self) -> int:
        """How many different values there are; 0 and 7 are the same weekday."""
        return 7 if self.name == "day-of-week" else self.high - self.low + 1


SECOND = Field("second", 0, 59)
MINUTE = Field("minute", 0, 59)
HOUR = Field("hour", 0, 23)
DAY_OF_MONTH = Field("day-of-month", 1, 31)
MONTH = Field("month", 1, 12, _MONTHS, 1)
DAY_OF_WEEK = Field("day-of-week", 0, 7, _WEEKDAYS, 0)

_FIVE = (MINUTE, HOUR, DAY_OF_MONTH, MONTH, DAY_OF_WEEK)


@dataclass(frozen=True, slots=True)
class CronExpression:
    """A parsed expression: sets of values as bit masks, and the rules for days.

    `fixed` says that seconds, minutes and hours are single values or lists of them, so that the daylight-saving rule
    for fixed times applies. `texts` are the six fields as written, in upper case, seconds first.
    """

    texts: tuple[str, ...]
    times: GridTimes
    days: DaysOfMonth
    fixed: bool


class _Part(NamedTuple):
    """A piece of a field with the character that it begins at, counted from 1."""

    text: str
    at: int


class _Parser:
    """Reads one expression; collects every problem instead of stopping at the first."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        # What only the day fields can hold, besides plain values.
        self.from_last = 0
        self.nearest: list[int] = []
        self.nearest_from_last: list[int] = []
        self.nth: list[tuple[int, int]] = []
        self.last_weekdays = 0

    def refuse(self, part: _Part, field: Field, text: str) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(part.at, f"{field.name}: {text}"))

    def field(self, whole: _Part, field: Field) -> int:
        """The mask of the plain values of a field. Special days go into their own attributes."""
        mask = 0
        for part in _split(whole, ","):
            if not part.text:
                self.refuse(part, field, f"a value is missing, expected {_expected(field)}")
            elif not (self._special_day(part, field) or self._special_weekday(part, field)):
                mask |= self._item(part, field)
        return mask

    def _item(self, part: _Part, field: Field) -> int:
        base, *steps = _split(part, "/")
        if len(steps) > 1:
            self.refuse(steps[1], field, "a second / is one too many")
            return 0
        step = self._step(steps[0], field) if steps else 1
        if base.text == "?":
            if field not in {DAY_OF_MONTH, DAY_OF_WEEK}:
                self.refuse(base, field, "? stands only for day-of-month and day-of-week; write *")
                return 0
            if steps:
                self.refuse(base, field, "? takes no step; write *")
                return 0
        if base.text in {"*", "?"}:
            values = list(range(field.low, field.low + field.width))
        else:
            ends = _split(base, "-")
            if len(ends) > 2:
                self.refuse(ends[2], field, "a second - is one too many")
                return 0
            numbers = [self._value(end, field) for end in ends]
            first, last = numbers[0], numbers[-1]
            if first is None or last is None or step is None:
                return 0
            # n/step counts from n to the end of the field, as in Quartz.
            values = _sequence(first, field.low + field.width - 1 if steps and len(ends) == 1 else last, field)
        chosen = values[:: step or 1]
        if field is DAY_OF_WEEK:
            chosen = [value % 7 for value in chosen]
        return sum(1 << value for value in set(chosen))

    def _step(self, part: _Part, field: Field) -> int | None:
        most = field.width if field.low == 1 or field is DAY_OF_WEEK else field.high
        number = _number(part.text)
        if number is None:
            self.refuse(part, field, f"{_shown(part.text)} is not a step, expected 1–{most}")
        elif not 1 <= number <= most:
            self.refuse(part, field, f"a step of {number} is not in 1–{most}")
            number = None
        return number

    def _value(self, part: _Part, field: Field) -> int | None:
        number = _number(part.text)
        if number is not None:
            if field.low <= number <= field.high:
                return number
            self.refuse(part, field, f"{part.text} is not in {field.low}–{field.high}")
        elif part.text in field.names:
            return field.names.index(part.text) + field.first_name
        elif not part.text:
            self.refuse(part, field, f"a value is missing, expected {_expected(field)}")
        else:
            near = difflib.get_close_matches(part.text[:12], field.names, n=1, cutoff=0.5) if field.names else []
            hint = f"; did you mean {near[0]}?" if near else f", expected {_expected(field)}"
            self.refuse(part, field, f"{_shown(part.text)} is not known{hint}")
        return None

    def _special_day(self, part: _Part, field: Field) -> bool:
        """`L`, `L-n`, `LW`, `L-nW`, `nW` in the day-of-month field."""
        if field is not DAY_OF_MONTH:
            return False
        if found := re.fullmatch(r"L(?:-(\d{1,9}))?(W)?", part.text, re.ASCII):
            back = int(found[1] or 0)
            if back > 30:
                self.refuse(_Part(found[1], part.at + 2), field, f"L-{back} is not in L-0–L-30")
            elif found[2]:
                self.nearest_from_last.append(back)
            else:
                self.from_last |= 1 << back
            return True
        if found := re.fullmatch(r"(\d{1,9})W", part.text, re.ASCII):
            day = self._value(_Part(found[1], part.at), field)
            if day is not None:
                self.nearest.append(day)
            return True
        return False

    def _special_weekday(self, part: _Part, field: Field) -> bool:
        """`d#n` and `dL` in the day-of-week field."""
        if field is not DAY_OF_WEEK:
            return False
        if part.text == "L":
            self.refuse(part, field, "L needs the weekday whose last one is meant, such as FRIL or 5L")
            return True
        if "#" in part.text:
            name, nth = _split(part, "#", 1)
            weekday = self._value(name, field)
            number = _number(nth.text)
            if number is None or not 1 <= number <= 5:
                self.refuse(nth, field, f"{_shown(nth.text)} is not in 1–5, which weekday of the month after #")
            elif weekday is not None:
                self.nth.append((weekday % 7, number))
            return True
        if found := re.fullmatch(r"(\d{1,9}|[A-Z]{3})L", part.text, re.ASCII):
            weekday = self._value(_Part(found[1], part.at), field)
            if weekday is not None:
                self.last_weekdays |= 1 << weekday % 7
            return True
        return False


def _split(part: _Part, separator: str, most: int = -1) -> list[_Part]:
    pieces, at = [], part.at
    for piece in part.text.split(separator, most):
        pieces.append(_Part(piece, at))
        at += len(piece) + 1
    return pieces


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"\d{1,9}", text, re.ASCII) else None


def _shown(text: str) -> str:
    return repr(text if len(text) <= 20 else text[:19] + "…")


def _expected(field: Field) -> str:
    span = f"{field.low}–{field.high}"
    return f"{span} or {field.names[0]}–{field.names[-1]}" if field.names else span


def _sequence(first: int, last: int, field: Field) -> list[int]:
    """The values of a range in order; one that ends before it begins goes round (FRI-MON, 22-2)."""
    top = field.low + field.width - 1
    if field is DAY_OF_WEEK and first == 7:
        # Sunday as a beginning is 0; as an end it may be 7, as in 5-7.
        first, last = 0, last % 7
    if first <= last:
        return list(range(first, last + 1))
    return [*range(first, top + 1), *range(field.low, last + 1)]


def _read(expression: str) -> CronExpression | tuple[Problem, ...]:
    # Before anything is kept: the longest one that is kept has to be short.
    if len(expression) > MAX_LENGTH:
        return (Problem(MAX_LENGTH + 1, f"{len(expression)} characters, expected at most {MAX_LENGTH}"),)
    return _read_short(expression)


@lru_cache(maxsize=2048)
def _read_short(expression: str) -> CronExpression | tuple[Problem, ...]:
    if not expression.isascii():
        at = next(i for i, c in enumerate(expression, 1) if not c.isascii())
        return (Problem(at, f"{expression[at - 1]!r} has no meaning here"),)
    fields = list(_words(expression))
    if fields and fields[0].text.startswith("@"):
        return _named(fields)
    if len(fields) not in {5, 6}:
        what = "is empty" if not fields else f"has {len(fields)} field{'s' if len(fields) > 1 else ''}"
        at = fields[6].at if len(fields) > 6 else len(expression) + 1
        form = " ".join(field.name for field in _FIVE)
        return (Problem(at, f"{what}, expected 5 ({form}), or 6 with seconds in front"),)
    if len(fields) == 5:
        fields.insert(0, _Part("0", fields[0].at))
    return _assemble(fields)


def _words(expression: str) -> Iterator[_Part]:
    for found in re.finditer(r"\S+", expression):
        yield _Part(found[0].upper(), found.start() + 1)


def _named(words: list[_Part]) -> CronExpression | tuple[Problem, ...]:
    name = words[0].text.lower()
    if len(words) > 1:
        return (Problem(words[1].at, f"nothing may follow {_shown(name)}"),)
    if name not in NAMED:
        near = difflib.get_close_matches(name[:20], NAMED, n=1)
        hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(NAMED)}"
        return (Problem(words[0].at, f"{_shown(name)} is not known; {hint}"),)
    return _read(NAMED[name])


def _assemble(fields: list[_Part]) -> CronExpression | tuple[Problem, ...]:
    parser = _Parser()
    second, minute, hour, month_day, month, weekday = (
        parser.field(part, field) for part, field in zip(fields, (SECOND, *_FIVE), strict=True)
    )
    if parser.problems:
        return tuple(parser.problems)
    texts = tuple(part.text for part in fields)
    days = DaysOfMonth(
        months=month,
        days=month_day,
        from_last=parser.from_last,
        nearest=tuple(parser.nearest),
        nearest_from_last=tuple(parser.nearest_from_last),
        weekdays=weekday,
        nth=tuple(parser.nth),
        last_weekdays=parser.last_weekdays,
        # Vixie cron: a field is restricted unless it begins with a star, so `*/2` is not.
        either=texts[3][0] not in "*?" and texts[5][0] not in "*?",
    )
    return CronExpression(
        texts, GridTimes(second, minute, hour), days, fixed=not re.search(r"[*/-]", "".join(texts[:3]))
    )


def cron_problems(expression: str) -> tuple[Problem, ...]:
    """Everything that is wrong with the expression's form, in order; empty if it can be read. Never raises."""
    read = _read(expression)
    return () if isinstance(read, CronExpression) else read


def parse_cron(expression: str, *, field: str = "expression") -> CronExpression:
    """The parsed expression, cached. Raises InvalidRequest with a violation of `field` per problem."""
    read = _read(expression)
    if isinstance(read, CronExpression):
        return read
    raise InvalidRequest([Violation(field, str(problem)) for problem in read])
