"""Columns in PostgreSQL's binary format are what psycopg would have sent."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.adapt import PyFormat, Transformer
from psycopg.types.json import Jsonb

from scheduling.storage import binary

UTC_TIMES = st.datetimes(timezones=st.just(UTC))
OFFSETS = st.datetimes(
    min_value=datetime(2, 1, 1),  # noqa: DTZ001 - bounds of the strategy are naive
    max_value=datetime(9998, 1, 1),  # noqa: DTZ001
    timezones=st.just(timezone(timedelta(hours=5, minutes=30))),
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "text": st.text(),
    "bytea": st.binary(),
    "bool": st.booleans(),
    "uuid": st.uuids(),
    "timestamptz": UTC_TIMES | OFFSETS,
    "interval": st.timedeltas(),
    "float8": st.floats(allow_nan=False),
}


def sent_by_psycopg(value: Any) -> bytes:
    dumper = Transformer().get_dumper(value, PyFormat.BINARY)
    raw = dumper.dump(value)
    assert raw is not None
    return struct.pack("!i", len(raw)) + bytes(raw)


@given(data=st.data(), kind=st.sampled_from(sorted(VALUES)))
def test_a_column_is_encoded_as_psycopg_would_value_by_value(data: st.DataObject, kind: str) -> None:
    values = data.draw(st.lists(st.none() | VALUES[kind], max_size=5))
    wanted = [b"\xff\xff\xff\xff" if value is None else sent_by_psycopg(value) for value in values]
    assert binary.encode(kind, values) == wanted
    assert binary.encode(kind, values[:1] * 3) == wanted[:1] * 3


def test_an_array_that_is_kept_is_the_one_that_would_be_made() -> None:
    columns: list[tuple[str, list[Any]]] = [
        ("text", ["a"] * 3),
        ("text", ["a", "b", "a"]),
        ("int2", [None]),
        ("int2", []),
        ("bool", [True]),
        ("int4", [1]),
    ]
    for kind, values in columns * 2:
        assert binary.steady_array(kind, values) == binary.array(kind, values)


@given(st.integers(-(2**15), 2**15 - 1))
def test_whole_numbers_have_the_width_of_their_type(number: int) -> None:
    assert binary.encode("int2", [number]) == [struct.pack("!ih", 2, number)]
    assert binary.encode("int4", [number]) == [struct.pack("!ii", 4, number)]


def test_json_carries_its_version_and_infinity_is_the_last_instant() -> None:
    assert binary.encode("jsonb", ["{}"]) == [sent_by_psycopg(Jsonb({}))]
    assert binary.encode("timestamptz", ["infinity"]) == [struct.pack("!iq", 8, 2**63 - 1)]


@pytest.mark.parametrize("kind", ["numeric", ""])
def test_a_type_that_is_not_known_is_refused(kind: str) -> None:
    with pytest.raises(KeyError):
        binary.encode(kind, [1])


def test_postgresql_reads_arrays_and_copies_back_as_they_were(database_url: str) -> None:
    now = datetime(2031, 7, 1, 12, 30, 15, 123456, tzinfo=UTC)
    uid = UUID("01a200bb-5986-7930-8bde-c56f1a47e096")
    columns: dict[str, list[Any]] = {
        "text": ["", "ünï ☃ \\ {},'\"", None],
        "bytea": [b"\x00\xff", b"", None],
        "bool": [True, False, None],
        "int2": [-5, 7, None],
        "int4": [1, 2**31 - 1, None],
        "float8": [1.5, -0.0, None],
        "uuid": [uid, uid, None],
        "timestamptz": [now, datetime(1, 1, 1, tzinfo=UTC), None],
        "interval": [timedelta(days=7, seconds=3, microseconds=1), timedelta(microseconds=-1), None],
        "jsonb": ['{"a": [1]}', "[]", None],
    }
    read = {**columns, "jsonb": [{"a": [1]}, [], None]}
    with psycopg.connect(database_url) as connection:
        connection.adapters.register_dumper(binary.Encoded, binary.EncodedDumper)
        names = ", ".join(f"c_{kind}" for kind in columns)
        arrays = ", ".join(f"%({kind})s::{kind}[]" for kind in columns)
        rows = connection.execute(
            f"SELECT * FROM unnest({arrays}) AS i ({names})",
            {kind: binary.array(kind, values) for kind, values in columns.items()},
        ).fetchall()
        assert [list(column) for column in zip(*rows, strict=True)] == list(read.values())
        assert connection.execute("SELECT %s::text[]", [binary.array("text", [])]).fetchone() == ([],)

        types = ", ".join(f"c_{kind} {kind}" for kind in columns)
        connection.execute(f"CREATE TEMP TABLE copied ({types}, words text[])")
        # The same values twice, and one value throughout: columns that are encoded once, and that go last.
        connection.execute("ALTER TABLE copied ADD again uuid, ADD same text, ADD none int4")
        given = {f"c_{kind}": values for kind, values in columns.items()} | {"words": ["", "one two", None]}
        given |= {"again": [uid, uid, None], "same": ["x"] * 3, "none": [None] * 3}
        kinds = {f"c_{kind}": kind for kind in columns} | {
            "words": "words",
            "again": "uuid",
            "same": "text",
            "none": "int4",
        }
        order, copied = binary.Copies().rows(kinds, given)
        assert (sorted(order), set(order[-2:])) == (sorted(kinds), {"same", "none"})
        with connection.cursor().copy(f"COPY copied ({', '.join(order)}) FROM STDIN (FORMAT binary)") as copy:
            copy.write(copied)
        rows = connection.execute("SELECT again, same, none FROM copied").fetchall()
        assert rows == [(uid, "x", None), (uid, "x", None), (None, "x", None)]
        assert binary.Copies().rows({"a": "text"}, {"a": []})[1].endswith(b"\xff\xff")
        rows = connection.execute(f"SELECT {names}, words FROM copied").fetchall()
        assert [list(column) for column in zip(*rows, strict=True)] == [*read.values(), [[], ["one", "two"], None]]
