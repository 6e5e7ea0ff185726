"""Filters and orders of list methods: text in, typed values out.

The language is a subset of AIP-160: comparisons of known fields, `AND`, `OR`, `NOT`, `-`, parentheses, and terms side
by side, which mean AND. As AIP-160 wants it, **OR binds tighter than AND**: `a AND b OR c` is `a AND (b OR c)`.
Functions, bare search words and comparisons of two fields are left out and refused.

A value that the field does not have matches no comparison, `!=` included; `NOT` is true wherever its operand is not.
Whoever turns an expression into SQL keeps to that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from enum import StrEnum
from typing import Final, NamedTuple

from scheduling.domain.errors import InvalidRequest, invalid

MAX_LENGTH: Final = 2000  #: characters
MAX_DEPTH: Final = 20  #: parentheses in parentheses
MAX_COMPARISONS: Final = 100


class FieldKind(StrEnum):
    """What a field holds, which decides the comparisons and values it takes."""

    STRING = "STRING"  # = and !=, with `*` at either end as wildcard
    ENUM = "ENUM"  # = and != with one of the field's words
    BOOLEAN = "BOOLEAN"  # = and != with true or false
    INTEGER = "INTEGER"  # all; 64 bits, signed
    TIMESTAMP = "TIMESTAMP"  # all; RFC 3339
    DURATION = "DURATION"  # all; seconds with an s, as in 1.5s
    LABELS = "LABELS"  # labels.key = "x", labels.key:*, labels:key


@dataclass(frozen=True, slots=True)
class FilterField:
    """A field that may be filtered by. `words` are those of an ENUM."""

    kind: FieldKind
    words: tuple[str, ...] = ()


STRING: Final = FilterField(FieldKind.STRING)
BOOLEAN: Final = FilterField(FieldKind.BOOLEAN)
INTEGER: Final = FilterField(FieldKind.INTEGER)
TIMESTAMP: Final = FilterField(FieldKind.TIMESTAMP)
DURATION: Final = FilterField(FieldKind.DURATION)
LABELS: Final = FilterField(FieldKind.LABELS)


def enum_of(words: Iterable[str]) -> FilterField:
    """An ENUM field with these words; an enum class of strings may be given as it is."""
    return FilterField(FieldKind.ENUM, tuple(str(word) for word in words))


class Op(StrEnum):
    """How a field is compared. The last four take a text without wildcards, or none (PRESENT)."""

    EQ = "="
    NE = "!="
    LT = "<"
    LE = "<="
    GT = ">"
    GE = ">="
    STARTS_WITH = "STARTS_WITH"
    ENDS_WITH = "ENDS_WITH"
    CONTAINS = "CONTAINS"
    PRESENT = "PRESENT"


Value = str | int | bool | datetime | timedelta | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """One field against one value. `key` is that of a label, None for other fields; times are in UTC."""

    field: str
    op: Op
    value: Value
    key: str | None = None


@dataclass(frozen=True, slots=True)
class And:
    """All of at least two."""

    operands: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Any of at least two."""

    operands: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite."""

    operand: Expression


Expression = Comparison | And | Or | Not


class OrderBy(NamedTuple):
    """One field and its direction."""

    field: str
    descending: bool


#: The order of every list that is asked for none.
NEWEST_FIRST: Final = OrderBy("create_time", True)


def parse_filter(text: str, fields: Mapping[str, FilterField]) -> Expression | None:
    """The expression that `text` means, None for a blank one.

    `fields` are all that may be named. Anything else raises InvalidRequest on the field `filter`, which tells the
    position (counted in characters from 1), what was found and what was expected. At most MAX_LENGTH characters,
    MAX_DEPTH nested parentheses and MAX_COMPARISONS comparisons.
    """
    if len(text) > MAX_LENGTH:
        raise _wrong(f"is {len(text)} characters long; expected at most {MAX_LENGTH}")
    if not text.strip(_BLANKS):
        return None
    return _Parser(text, fields).parse()


def parse_order_by(text: str, allowed: Iterable[str], default: OrderBy = NEWEST_FIRST) -> OrderBy:
    """The order that `text` asks for: one of the `allowed` fields, ` desc` for descending; `default` for a blank one.

    Raises InvalidRequest on the field `order_by`.
    """
    names = list(allowed)
    words = text.replace(",", " , ").split()
    if not words:
        return default
    if "," in words:
        raise invalid("order_by", "expected a single field", "INVALID_ORDER")
    if words[0] not in names:
        raise invalid("order_by", f"no order by {_quoted(words[0])}; {_expected(words[0], names)}", "INVALID_ORDER")
    if words[1:] not in ([], ["desc"]):
        raise invalid("order_by", f"expected nothing or `desc` after {words[0]}", "INVALID_ORDER")
    return OrderBy(words[0], len(words) == 2)


# --- tokens -----------------------------------------------------------------------------------------------------------

_BLANKS: Final = " \t\r\n"
_WORD = re.compile(r"""[^\s()"'<>=!:,.\x00-\x1f-][^\s()"'<>=!:,.\x00-\x1f]*""")
# A value may hold what separates elsewhere: times have colons, methods have dots and slashes.
_BARE_VALUE = re.compile(r"""[^\s()"'<>=!,\x00-\x1f]+""")
_OPERATOR = re.compile(r"!=|<=|>=|[=<>:]")
_TIMESTAMP = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_DURATION = re.compile(r"(-?)([0-9]{1,12})(?:\.([0-9]{1,9}))?s")
_INTEGER = re.compile(r"-?[0-9]{1,19}")
_KEYWORDS: Final = ("AND", "OR", "NOT")
_ESCAPES: Final = {"\\": "\\", '"': '"', "'": "'", "*": "*", "n": "\n", "t": "\t", "r": "\r"}
_ORDERED: Final = (FieldKind.INTEGER, FieldKind.TIMESTAMP, FieldKind.DURATION)


@dataclass(frozen=True, slots=True)
class _Text:
    """A value as it was written. `wild` tells of each character whether it is an unescaped asterisk."""

    text: str
    wild: tuple[bool, ...]
    quoted: bool
    position: int


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:39] + "…")


def _expected(word: str, known: Iterable[str]) -> str:
    words = list(known)
    near = get_close_matches(word, words, n=1) or [w for w in words if w.lower() == word.lower()]
    return f"did you mean {near[0]}?" if near else "expected one of " + ", ".join(words)


def _wrong(description: str) -> InvalidRequest:
    return invalid("filter", description, "INVALID_FILTER")


# --- grammar ----------------------------------------------------------------------------------------------------------


class _Parser:
    """Recursive descent over the grammar of AIP-160; each method reads one of its rules from `_at` on."""

    def __init__(self, text: str, fields: Mapping[str, FilterField]) -> None:
        self._text = text
        self._fields = fields
        self._at = 0
        self._depth = 0
        self._comparisons = 0

    def parse(self) -> Expression:
        nul = self._text.find("\0")
        if nul >= 0:
            raise self._wrong(nul, "found a NUL character; expected text")
        expression = self._expression()
        self._skip_blanks()
        if self._at < len(self._text):
            raise self._wrong(self._at, f"found {self._found()}; expected AND, OR or the end")
        return expression

    def _expression(self) -> Expression:
        """expression: factor {[AND] factor}. Terms side by side are a sequence, which filters as AND does."""
        operands = [self._factor()]
        while not self._ends():
            self._keyword("AND")
            operands.append(self._factor())
        return operands[0] if len(operands) == 1 else And(tuple(operands))

    def _factor(self) -> Expression:
        """factor: term {OR term}."""
        operands = [self._term()]
        while self._keyword("OR"):
            operands.append(self._term())
        return operands[0] if len(operands) == 1 else Or(tuple(operands))

    def _term(self) -> Expression:
        """term: [NOT | -] (composite | comparison)."""
        negated = self._keyword("NOT")
        if not negated and self._peek() == "-":
            self._at += 1
            negated = True
        operand = self._composite() if self._peek() == "(" else self._comparison()
        return Not(operand) if negated else operand

    def _composite(self) -> Expression:
        """composite: ( expression )."""
        opened = self._at
        self._at += 1
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._wrong(opened, f"found more than {MAX_DEPTH} nested parentheses; expected fewer")
        inner = self._expression()
        if self._peek() != ")":
            raise self._wrong(self._at, f"found {self._found()}; expected `)` for the `(` at character {opened + 1}")
        self._at += 1
        self._depth -= 1
        return inner

    def _comparison(self) -> Expression:
        """comparison: field {. key} operator value."""
        start = self._skip_blanks()
        name = self._name()
        field = self._fields.get(name)
        path: list[str] = []
        while field is not None and self._text[self._at : self._at + 1] == ".":
            self._at += 1
            path.append(
                self._string().text if self._peek_here() in ('"', "'") else self._word("the rest of the field's name")
            )
        self._skip_blanks()
        operator = _OPERATOR.match(self._text, self._at)
        if field is None:
            if operator is None and name.upper() in _KEYWORDS and name not in _KEYWORDS:
                raise self._wrong(start, f"found {name}; did you mean {name.upper()}?")
            raise self._wrong(start, f"no field {_quoted(name)}; {_expected(name, self._fields)}")
        if path and field.kind is not FieldKind.LABELS:
            raise self._wrong(start, f"{name} has no fields of its own; expected {name} alone")
        if operator is None:
            raise self._wrong(self._at, f"found {self._found()}; expected a comparison such as =, != or <")
        self._at = operator.end()
        self._comparisons += 1
        if self._comparisons > MAX_COMPARISONS:
            raise self._wrong(start, f"found more than {MAX_COMPARISONS} comparisons; expected fewer")
        return self._typed(name, field, ".".join(path) or None, operator[0], self._value(), operator.start())

    # --- lexical parts

    def _name(self) -> str:
        if self._peek() in ('"', "'"):
            raise self._wrong(self._at, 'found a text alone; expected a field and a comparison, such as owner = "u-17"')
        start = self._at
        word = self._word("a field")
        if word in _KEYWORDS:
            raise self._wrong(start, f"found {word}; expected a field")
        return word

    def _word(self, expected: str) -> str:
        match = _WORD.match(self._text, self._at)
        if match is None:
            raise self._wrong(self._at, f"found {self._found()}; expected {expected}")
        self._at = match.end()
        return match[0]

    def _value(self) -> _Text:
        start = self._skip_blanks()
        if self._peek() in ('"', "'"):
            return self._string()
        match = _BARE_VALUE.match(self._text, self._at)
        if match is None or match[0] in _KEYWORDS:
            raise self._wrong(start, f"found {self._found()}; expected a value")
        self._at = match.end()
        return _Text(match[0], tuple(c == "*" for c in match[0]), False, start)

    def _string(self) -> _Text:
        start, quote = self._at, self._text[self._at]
        characters: list[str] = []
        wild: list[bool] = []
        self._at += 1
        while self._at < len(self._text):
            character = self._text[self._at]
            self._at += 1
            if character == quote:
                return _Text("".join(characters), tuple(wild), True, start)
            wild.append(character == "*")
            if character == "\\":
                escaped = self._text[self._at : self._at + 1]
                if escaped not in _ESCAPES:
                    raise self._wrong(
                        self._at - 1, "found an unknown escape; expected one of \\\\ \\\" \\' \\* \\n \\t \\r"
                    )
                character = _ESCAPES[escaped]
                self._at += 1
            characters.append(character)
        raise self._wrong(start, f"found a text without end; expected a closing {quote}")

    def _keyword(self, word: str) -> bool:
        """Reads `word` if it stands here as a word of its own."""
        self._skip_blanks()
        match = _WORD.match(self._text, self._at)
        if match is None or match[0] != word:
            return False
        self._at = match.end()
        return True

    def _ends(self) -> bool:
        return self._peek() in ("", ")")

    def _peek(self) -> str:
        self._skip_blanks()
        return self._peek_here()

    def _peek_here(self) -> str:
        return self._text[self._at : self._at + 1]

    def _skip_blanks(self) -> int:
        while self._at < len(self._text) and self._text[self._at] in _BLANKS:
            self._at += 1
        return self._at

    def _found(self) -> str:
        if self._at >= len(self._text):
            return "the end"
        match = _WORD.match(self._text, self._at) or _OPERATOR.match(self._text, self._at)
        return _quoted(match[0] if match else self._text[self._at])

    def _wrong(self, at: int, description: str) -> InvalidRequest:
        return _wrong(f"at character {at + 1}: {description}")

    # --- types

    def _typed(
        self, name: str, field: FilterField, key: str | None, operator: str, value: _Text, operator_at: int
    ) -> Expression:
        if operator == ":":
            return self._has(name, field, key, value)
        op = Op(operator)
        if field.kind is FieldKind.LABELS and key is None:
            raise self._wrong(
                operator_at, f"{name} is compared by key; expected {name}.key {operator} value, or {name}:key"
            )
        if op not in (Op.EQ, Op.NE) and field.kind not in _ORDERED:
            raise self._wrong(operator_at, f"{name} has no order; expected = or !=")
        if field.kind in (FieldKind.STRING, FieldKind.LABELS):
            return self._text_comparison(name, key, op, value)
        if value.text == "*" and not value.quoted:
            raise self._wrong(value.position, f"found *; expected {_wanted(field)}, or {name}:* for any value")
        return Comparison(name, op, self._scalar(name, field, value), key)

    def _has(self, name: str, field: FilterField, key: str | None, value: _Text) -> Expression:
        if value.wild == (True,):
            if field.kind is FieldKind.LABELS and key is None:
                raise self._wrong(value.position, f"found *; expected the key of a label, as in {name}:key")
            return Comparison(name, Op.PRESENT, None, key)
        if field.kind is not FieldKind.LABELS:
            raise self._wrong(value.position, f"`:` asks whether there is a value; expected {name}:* or {name} = value")
        if key is None:
            if any(value.wild):
                raise self._wrong(value.position, "found a wildcard in a label's key; expected the whole key")
            return Comparison(name, Op.PRESENT, None, value.text)
        return self._text_comparison(name, key, Op.EQ, value)

    def _text_comparison(self, name: str, key: str | None, op: Op, value: _Text) -> Expression:
        """Equality, or what wildcards make of it: `x*`, `*x`, `*x*`, `*`."""
        length = len(value.text)
        left = length > 0 and value.wild[0]
        right = length > 1 and value.wild[-1]
        first, last = int(left), length - int(right)
        if any(value.wild[first:last]):
            raise self._wrong(
                value.position, "found * inside a text; expected it at the beginning or the end, or as \\*"
            )
        if not left and not right:
            return Comparison(name, op, value.text, key)
        inner = value.text[first:last]
        if not inner:
            found = Comparison(name, Op.PRESENT, None, key)
        elif left and right:
            found = Comparison(name, Op.CONTAINS, inner, key)
        else:
            found = Comparison(name, Op.ENDS_WITH if left else Op.STARTS_WITH, inner, key)
        if op is Op.EQ:
            return found
        # `!=` matches only what has a value, and a bare Not would also match what has none.
        return Not(found) if not inner else And((Comparison(name, Op.PRESENT, None, key), Not(found)))

    def _scalar(self, name: str, field: FilterField, value: _Text) -> Value:
        match field.kind:
            case FieldKind.ENUM:
                if value.text in field.words:
                    return value.text
                hint = _expected(value.text, field.words)
                raise self._wrong(value.position, f"{_quoted(value.text)} is no value of {name}; {hint}")
            case FieldKind.BOOLEAN:
                parsed: Value = {"true": True, "false": False}.get(value.text)
            case FieldKind.INTEGER:
                parsed = _integer(value)
            case FieldKind.DURATION:
                parsed = _duration(value.text)
            case _:
                parsed = _timestamp(value.text)
        if parsed is None:
            raise self._wrong(value.position, f"{_quoted(value.text)} is no value of {name}; expected {_wanted(field)}")
        return parsed


def _wanted(field: FilterField) -> str:
    match field.kind:
        case FieldKind.ENUM:
            return "one of " + ", ".join(field.words)
        case FieldKind.BOOLEAN:
            return "true or false"
        case FieldKind.INTEGER:
            return "a whole number without quotes"
        case FieldKind.DURATION:
            return "seconds with an s, such as 30s or 1.5s"
        case FieldKind.TIMESTAMP:
            return 'a time of RFC 3339 with its offset, such as "2030-01-01T00:00:00Z"'
        case _:
            return "a text"


def _integer(value: _Text) -> int | None:
    if value.quoted or _INTEGER.fullmatch(value.text) is None:
        return None
    number = int(value.text)
    return number if -(2**63) <= number < 2**63 else None


def _duration(text: str) -> timedelta | None:
    match = _DURATION.fullmatch(text)
    if match is None:
        return None
    sign, whole, fraction = match.groups()
    micros = int(whole) * 1_000_000 + int((fraction or "").ljust(6, "0")[:6])
    try:
        return timedelta(microseconds=-micros if sign else micros)
    except OverflowError:
        return None


def _timestamp(text: str) -> datetime | None:
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        return None
    day, time, fraction, offset = match.groups()
    micros = (fraction or "").ljust(6, "0")[:6]
    try:
        return datetime.fromisoformat(f"{day}T{time}.{micros}{offset.upper()}").astimezone(UTC)
    except (ValueError, OverflowError):
        return None
