"""The field rules of our protos and the siblings', as protovalidate states and judges them.

Judging a request costs protovalidate about as much as all the rest of checking it, and nearly every request keeps all
rules. So messages are looked over first, by the plain rules that nearly all fields have; only what this cannot clear
goes to protovalidate, which alone says what is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from buf.validate import validate_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

if TYPE_CHECKING:
    import protovalidate

Look = Callable[[Any], bool]

# The extensions of descriptor options; the library leaves these untyped.
_OF_MESSAGE: Any = validate_pb2.message
_OF_ONEOF: Any = validate_pb2.oneof
_OF_FIELD: Any = validate_pb2.field

_NUMBERS = frozenset({"int32", "int64", "uint32", "uint64", "float", "double"})


def broken(message: Message) -> Iterable[protovalidate.Violation]:
    """The rules of its type that the message breaks."""
    return () if surely_sound(message) else _validator().collect_violations(message)


def surely_sound(message: Message) -> bool:
    """Whether the look over the message finds that it breaks no rule; False says nothing."""
    look = _look_over(message.DESCRIPTOR)
    return look is not None and look(message)


def look_for(message_type: type[Message]) -> Look:
    """`surely_sound` for messages of one type, made once for all of them."""
    return _look_over(cast("Descriptor", message_type.DESCRIPTOR)) or _never


@cache
def _validator() -> protovalidate.Validator:
    """One for the process: it compiles the rules of a type when it first sees one."""
    import protovalidate  # noqa: PLC0415 - dear, and only needed once a request is not cleared at a look

    return protovalidate.Validator()


@cache
def _look_over(descriptor: Descriptor) -> Look | None:
    """How to look at the fields that are set, and whether all are that must be; None for rules of the whole message."""
    if descriptor.GetOptions().HasExtension(_OF_MESSAGE):
        return None
    # By the descriptors, of which there is one object for each field as long as it is kept here.
    looks: dict[FieldDescriptor, tuple[Look | None, bool]] = {}
    for field in descriptor.fields:
        look, is_needed = _field(field)
        if look is not None or is_needed:
            looks[field] = look, is_needed
    needed = sum(is_needed for _, is_needed in looks.values())
    oneofs = [o.name for o in descriptor.oneofs if o.GetOptions().Extensions[_OF_ONEOF].required]
    find = looks.get

    def look_over(message: Message) -> bool:
        missing = needed
        for field, value in message.ListFields():
            rule = find(field)
            if rule is not None:
                look, is_needed = rule
                if look is not None and not look(value):
                    return False
                if is_needed:
                    missing -= 1
        if missing:
            return False
        return not oneofs or all(message.WhichOneof(name) is not None for name in oneofs)

    return look_over


def _field(field: FieldDescriptor) -> tuple[Look | None, bool]:
    """How to look at a value of the field, None if any will do, and whether it must be set to be cleared."""
    rules: Any = field.GetOptions().Extensions[_OF_FIELD]
    if rules.ignore == validate_pb2.IGNORE_ALWAYS:
        return None, False
    kind = rules.WhichOneof("type")
    of_kind = None if kind is None else getattr(rules, kind)
    inner = _items(field)
    if rules.cel or (rules.ByteSize() and field.message_type is not None and _is_map(field)):
        return _never, False
    if field.is_repeated:
        look, is_plain = _repeated(inner, of_kind, field)
        least = 0 if of_kind is None else of_kind.min_items
        return (look if is_plain else _never), bool(rules.required or least)
    own = _value(kind, of_kind, field)
    look = own or inner
    # Absent fields with presence are ignored; others are judged by their zero, which only some rules allow.
    judged = not field.has_presence and rules.ignore != validate_pb2.IGNORE_IF_ZERO_VALUE
    return look, bool(rules.required) or (judged and own is not None and not own(field.default_value))


def _items(field: FieldDescriptor) -> Look | None:
    """How to look into messages of the field; None where there is nothing to look at."""
    inner = field.message_type
    if inner is None or not _has_rules(inner, frozenset()):
        return None
    # Made when it is needed: types may hold each other.
    made: list[Look | None] = []

    def look_inside(value: Any) -> bool:
        if not made:
            made.append(_look_over(inner))
        look = made[0]
        return look is not None and look(value)

    return look_inside


def _is_map(field: FieldDescriptor) -> bool:
    return bool(field.message_type is not None and field.message_type.GetOptions().map_entry)


def _has_rules(descriptor: Descriptor, known: frozenset[str]) -> bool:
    """Whether the type or one inside it has rules."""
    if descriptor.full_name in known or descriptor.file.package == "google.protobuf":
        return False
    known |= {descriptor.full_name}
    return (
        descriptor.GetOptions().HasExtension(_OF_MESSAGE)
        or any(oneof.GetOptions().HasExtension(_OF_ONEOF) for oneof in descriptor.oneofs)
        or any(
            field.GetOptions().HasExtension(_OF_FIELD)
            or (field.message_type is not None and _has_rules(field.message_type, known))
            for field in descriptor.fields
        )
    )


def _repeated(inner: Look | None, rules: Any, field: FieldDescriptor) -> tuple[Look | None, bool]:
    """How to look at a list, and whether its rules are plain."""
    if rules is None:
        return (None if inner is None else lambda values: all(map(inner, values))), True
    given = {field.name for field, _ in rules.ListFields()}
    if not given <= {"min_items", "max_items", "unique", "items"}:
        return None, False
    own = None
    if "items" in given:
        kind = rules.items.WhichOneof("type")
        if rules.items.cel or kind is None or rules.items.ignore:
            return None, False
        own = _value(kind, getattr(rules.items, kind), field)
    least = rules.min_items
    most = rules.max_items if "max_items" in given else None
    looks = [look for look in (own, inner) if look is not None]
    unique = rules.unique

    def look(values: Any) -> bool:
        count = len(values)
        if count < least or (most is not None and count > most) or (unique and len(set(values)) < count):
            return False
        return all(look(value) for look in looks for value in values)

    return look, not (unique and inner is not None)


def _value(kind: str | None, rules: Any, field: FieldDescriptor) -> Look | None:
    """How to look at one value by rules of that kind; None if there are none."""
    if kind is None:
        return None
    given = {rule.name: value for rule, value in rules.ListFields()}
    least, most = given.get("gte"), given.get("lte")
    if kind == "string" and given.keys() <= {"min_len", "max_len", "pattern"}:
        return _text(given.get("min_len", 0), given.get("max_len"), given.get("pattern"))
    if kind == "enum" and given.keys() <= {"defined_only", "not_in"} and given.get("defined_only"):
        defined = () if field.enum_type is None else field.enum_type.values_by_number
        return (frozenset(defined) - set(given.get("not_in", ()))).__contains__
    if kind == "duration" and given.keys() <= {"gte", "lte", "gt"}:
        return _span(None if least is None else _parts(least), None if most is None else _parts(most), given.get("gt"))
    # With the bounds the other way round they would name what lies outside.
    if kind in _NUMBERS and given.keys() <= {"gte", "lte"} and (least is None or most is None or least <= most):
        return lambda value: (least is None or value >= least) and (most is None or value <= most)
    return _never


def _text(least: int, most: int | None, pattern: str | None) -> Look:
    if pattern is None:
        if most is None:
            return lambda value: len(value) >= least
        return lambda value: least <= len(value) <= most
    if not (pattern.startswith("^") and pattern.endswith("$")):
        return _never
    # `$` would match before a last line break here, and does not in RE2.
    matches = re.compile(pattern[1:-1], re.ASCII).fullmatch
    return lambda value: least <= len(value) and (most is None or len(value) <= most) and matches(value) is not None


def _span(least: tuple[int, int] | None, most: tuple[int, int] | None, above: Any) -> Look:
    beyond = None if above is None else _parts(above)

    def look(value: Any) -> bool:
        parts = _parts(value)
        return (
            0 <= parts[1] < 1_000_000_000
            and (least is None or parts >= least)
            and (most is None or parts <= most)
            and (beyond is None or parts > beyond)
        )

    return look


def _parts(value: Any) -> tuple[int, int]:
    return value.seconds, value.nanos


def _never(value: Any) -> bool:  # noqa: ARG001 - a look
    return False
