"""What the values of settings may be: read from text, or taken as they are, and checked."""

from __future__ import annotations

import re
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import PlainValidator

from scheduling.domain.target import Queue


class BadValueError(ValueError):
    """What is wrong with a value, and what was expected instead."""

    def __init__(self, problem: str, expected: str) -> None:
        super().__init__(f"{problem}; expected {expected}")
        self.problem = problem
        self.expected = expected


_MICROSECONDS: Final = {"ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
_DURATION = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,6}))?(ms|s|m|h|d)")
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?|\[[0-9A-Fa-f:.]{2,45}\]")
SPIFFE: Final = r"spiffe://[a-z0-9._-]+(/[A-Za-z0-9._-]+)+"
_LONGEST: Final = timedelta(days=3650)


def parse_duration(text: str) -> timedelta:
    """The span that a number with a unit means: `500ms`, `1.5s`, `5m`, `24h`, `7d`. ValueError if it is none."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise BadValueError("is not a duration", "a number with a unit, such as 500ms, 30s, 5m, 24h or 7d")
    whole, fraction, unit = match.groups()
    micros = int(whole) * _MICROSECONDS[unit]
    if fraction:
        micros += int(fraction) * _MICROSECONDS[unit] // 10 ** len(fraction)
    if micros > _LONGEST // timedelta(microseconds=1):
        raise BadValueError("is too long", f"at most {format_duration(_LONGEST)}")
    return timedelta(microseconds=micros)


def format_duration(span: timedelta) -> str:
    """The shortest text that `parse_duration` reads as `span`."""
    micros = span // timedelta(microseconds=1)
    for unit in ("d", "h", "m", "s", "ms"):
        if micros and micros % _MICROSECONDS[unit] == 0:
            return f"{micros // _MICROSECONDS[unit]}{unit}"
    return f"{micros // 1000}.{micros % 1000:03d}".rstrip("0") + "ms" if micros else "0s"


def split_address(address: str) -> tuple[str, int]:
    """Host (an IPv6 one without its brackets) and port of a checked `host:port`."""
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def a_duration(low: str, high: str) -> PlainValidator:
    """A span with a unit, within bounds."""
    least, most = parse_duration(low), parse_duration(high)

    def check(value: Any) -> timedelta:
        span = parse_duration(value) if isinstance(value, str) else value
        if not isinstance(span, timedelta):
            raise BadValueError("is not a duration", f"{low} to {high}")
        if not least <= span <= most:
            raise BadValueError("is out of range", f"{low} to {high}")
        return span

    return PlainValidator(check)


def an_integer(low: int, high: int) -> PlainValidator:
    """A whole number, within bounds."""
    expected = f"a whole number from {low} to {high}"

    def check(value: Any) -> int:
        if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}(?:_[0-9]{3}){0,6}", value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise BadValueError("is not a whole number", expected)
        if not low <= value <= high:
            raise BadValueError("is out of range", expected)
        return value

    return PlainValidator(check)


_BOOLEANS: Final = {
    "true": True,
    "1": True,
    "yes": True,
    "on": True,
    "false": False,
    "0": False,
    "no": False,
    "off": False,
}


def a_boolean(value: Any) -> bool:
    """True or false, in the words that people use."""
    found = _BOOLEANS.get(value.lower()) if isinstance(value, str) else value
    if isinstance(found, bool):
        return found
    raise BadValueError("is neither true nor false", "true or false")


def a_word(*words: str) -> PlainValidator:
    """One of these words."""

    def check(value: Any) -> str:
        if isinstance(value, str) and value.lower() in words:
            return value.lower()
        raise BadValueError("is not known", "one of " + ", ".join(words))

    return PlainValidator(check)


def a_text(pattern: str, expected: str) -> PlainValidator:
    """A text of that pattern; `expected` is told to whoever gave another."""

    def check(value: Any) -> str:
        if isinstance(value, str) and re.fullmatch(pattern, value):
            return value
        raise BadValueError("is malformed", expected)

    return PlainValidator(check)


def check_address(value: Any, lowest_port: int) -> str:
    """A `host:port`; the port is `lowest_port` or higher."""
    if isinstance(value, str):
        host, _, port = value.rpartition(":")
        if _HOST.fullmatch(host) and re.fullmatch("[0-9]{1,5}", port) and lowest_port <= int(port) <= 65535:
            return value
    raise BadValueError("is not an address", f"host:port with a port from {lowest_port} to 65535")


def listening(value: Any) -> str:
    """Where to listen; port 0 is any free one."""
    return check_address(value, 0)


def listening_or_off(value: Any) -> str:
    """Where to listen, or nowhere."""
    return value if value == "" else check_address(value, 0)


def a_url(*schemes: str) -> PlainValidator:
    """A URL of one of these schemes."""
    expected = "a URL that starts with " + " or ".join(f"{scheme}://" for scheme in schemes)

    def check(value: Any) -> str | None:
        if value is None or value == "":
            return None
        try:
            if isinstance(value, str) and urlsplit(value).scheme in schemes and len(value.partition("://")[2]) > 0:
                return value
        except ValueError:
            pass
        raise BadValueError("is not a usable URL", expected)

    return PlainValidator(check)


def a_path(value: Any) -> Path | None:
    """A path, or none."""
    if value is None or value == "":
        return None
    if isinstance(value, str | Path) and "\0" not in str(value):
        return Path(value)
    raise BadValueError("is not a path", "a path")


def a_time_zone(value: Any) -> str:
    """The name of a time zone."""
    try:
        if isinstance(value, str) and value != "" and (value == "UTC" or ZoneInfo(value).key == value):
            return value
    except (LookupError, ValueError, OSError):
        # Unknown names, names with strange characters and names of folders each fail in their own way.
        pass
    raise BadValueError("is not a time zone", "a name of the IANA database, such as UTC or Europe/Paris")


def some_queues(value: Any) -> tuple[Queue, ...]:
    """Queues, at least one."""
    words = value.split(",") if isinstance(value, str) else value
    try:
        queues = tuple(Queue(str(word).strip().upper()) for word in words)
    except (ValueError, TypeError):
        queues = ()
    if not queues or len(set(queues)) != len(queues):
        raise BadValueError("is not a list of queues", "some of high,medium,low, each once")
    return queues


def some_ip_addresses(value: Any) -> tuple[str, ...]:
    """IP addresses."""
    try:
        words = value.split(",") if isinstance(value, str) else value
        return tuple(str(ip_address(str(word).strip())) for word in words)
    except (ValueError, TypeError):
        raise BadValueError("is not a list of addresses", "IP addresses such as 127.0.0.6,::6") from None


def some_rates(value: Any) -> tuple[tuple[str, float], ...]:
    """Calls a second by service."""
    if isinstance(value, tuple):
        return value
    words = [each.strip() for each in str(value).split(",") if each.strip()]
    found = [re.fullmatch(r"([a-z][a-z0-9-]{0,62})=([0-9]{1,6}(?:\.[0-9]{1,3})?)", word) for word in words]
    rates = {match[1]: float(match[2]) for match in found if match is not None}
    if len(rates) != len(words) or not all(0.01 <= rate <= 100_000 for rate in rates.values()):
        raise BadValueError("is not a list of rates", "such as media=50,user=2.5, from 0.01 to 100000 calls a second")
    return tuple(rates.items())


def some_addresses(value: Any) -> dict[str, str]:
    """Addresses by service."""
    return {str(service): check_address(address, 1) for service, address in dict(value).items()}
