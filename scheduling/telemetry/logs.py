"""Structured logs through the standard library: one line, one event, one machine name.

    log_event(logger, logging.INFO, "execution_finished", execution=name, outcome="SUCCEEDED", lateness=span)

What reaches a line is chosen by type, so that a payload cannot slip in: texts, numbers, times, ids and enums are
written, of anything else only the name of its type. Ids of end users are shortened. Of an exception there is the class,
the first line of its message and where it was raised; further lines are left out: database errors quote rows there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import traceback
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from pathlib import PurePath
from typing import Final, TextIO
from uuid import UUID

#: The correlation id of the request that is being served, None outside of one.
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)

#: Fields that may name an end user.
PERSONAL_FIELDS: Final = frozenset({"owner", "owner_id", "user", "user_id", "recipient_id", "sender_id"})
#: Fields that hold what callers send or targets answer: only their type is told, whatever it is.
PAYLOAD_FIELDS: Final = frozenset({"payload", "request", "response", "body", "content"})

MAX_TEXT: Final = 1000  #: characters of one value
MAX_ITEMS: Final = 50  #: entries of one list or mapping
MAX_FRAMES: Final = 30  #: places of one traceback, the innermost ones
_MAX_NESTING: Final = 4
_FIXED: Final = ("time", "level", "event", "logger", "request_id", "error", "stack")
_ATTRIBUTE: Final = "event_fields"


def log_event(logger: logging.Logger, level: int, event: str, **fields: object) -> None:
    """Logs `event` (lower-case words with underscores) with its `fields`, if `logger` takes that level.

    `exc_info=True` or an exception adds that one. Never raises because of a field's type.
    """
    if logger.isEnabledFor(level):
        exc_info = fields.pop("exc_info", None)
        error = exc_info if isinstance(exc_info, BaseException) else (True if exc_info else None)
        logger.log(level, event, exc_info=error, stacklevel=2, extra={_ATTRIBUTE: fields})


@contextlib.contextmanager
def bound_request_id(value: str) -> Iterator[None]:
    """Everything logged inside, in this task and those it starts, carries `value` as its request id."""
    token = request_id.set(value)
    try:
        yield
    finally:
        request_id.reset(token)


def short_id(text: str) -> str:
    """An end user's id made short: at most its first four characters, and a digest to tell two of them apart.

    The identity of a service (`spiffe://…`) is nobody's secret and stays whole.
    """
    if not text or text.startswith("spiffe://"):
        return text
    digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
    return f"{text[: min(4, len(text) // 2)]}…{digest[:6]}"


def configure_logging(level: str, fmt: str, stream: TextIO) -> None:
    """Sends the logs of the whole process, from `level` on, to `stream`. Replaces what was configured before.

    `level` is debug, info, warning or error; `fmt` json or console. ValueError for others.
    """
    formatters: dict[str, type[logging.Formatter]] = {"json": JsonFormatter, "console": ConsoleFormatter}
    if fmt not in formatters:
        raise ValueError(f"no log format {fmt!r}")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatters[fmt]())
    # What no line of ours holds is not to be found out for each: the thread, the process, the task and the source.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    vars(logging).update(logAsyncioTasks=False, _srcfile=None)
    root = logging.getLogger()
    root.setLevel(level.upper())
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, event, logger, request_id if there is one, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The line for `record`. Records of other libraries become the event `log` with their `message`."""
        return json.dumps(_entry(record), ensure_ascii=False, separators=(",", ":"))


class ConsoleFormatter(logging.Formatter):
    """The same for people: time, level, event, then `name=value`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line for `record`, and the stack on lines of its own."""
        entry = _entry(record)
        stack = entry.pop("stack", [])
        moment, level, event = str(entry.pop("time")), str(entry.pop("level")), str(entry.pop("event"))
        entry.pop("logger")
        fields = " ".join(f"{name}={_bare(value)}" for name, value in entry.items())
        line = f"{moment[11:23]} {level:<7} {event} {fields}".rstrip()
        return "\n  ".join([line, *stack]) if isinstance(stack, list) else line


def _bare(value: object) -> str:
    if isinstance(value, str) and value.isprintable() and value and not any(c in value for c in ' "='):
        return value
    return json.dumps(value, ensure_ascii=False)


def _entry(record: logging.LogRecord) -> dict[str, object]:
    fields = getattr(record, _ATTRIBUTE, None)
    entry: dict[str, object] = {
        "time": _instant(datetime.fromtimestamp(record.created, UTC)),
        "level": record.levelname.lower(),
        "event": record.msg if fields is not None else "log",
        "logger": record.name,
    }
    current = request_id.get()
    if current is not None:
        entry["request_id"] = _cut(current)
    if fields is None:
        entry["message"] = _cut(record.getMessage())
    else:
        for name, value in fields.items():
            entry[f"{name}_" if name in _FIXED else name] = _plain_field(name, value)
    # A record may have no exc_info as None, as False, or as a tuple of Nones.
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        entry["error"], entry["stack"] = _told(error), _stack(error)
    return entry


def _plain_field(name: str, value: object) -> object:
    if name in PAYLOAD_FIELDS and value is not None:
        return f"<{type(value).__name__}>"
    if name in PERSONAL_FIELDS and isinstance(value, str):
        return short_id(value)
    return _plain(value, 0)


def _plain(value: object, depth: int) -> object:
    match value:
        case None | bool() | int():
            return value.value if isinstance(value, Enum) else value
        case float():
            return value if -1e300 < value < 1e300 else str(value)
        case Enum():
            return _plain(value.value, depth)
        case str():
            return _cut(value)
        case UUID() | PurePath():
            return str(value)
        case datetime():
            return _instant(value)
        case date():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case BaseException():
            return _told(value)
        case Mapping() if depth < _MAX_NESTING:
            items = list(value.items())[:MAX_ITEMS]
            return {str(name): _plain_nested(str(name), item, depth + 1) for name, item in items}
        case list() | tuple() | set() | frozenset() if depth < _MAX_NESTING:
            return [_plain(item, depth + 1) for item in list(value)[:MAX_ITEMS]]
        case _:
            return f"<{type(value).__name__}>"


def _plain_nested(name: str, value: object, depth: int) -> object:
    if name in PAYLOAD_FIELDS or name in PERSONAL_FIELDS:
        return _plain_field(name, value)
    return _plain(value, depth)


def _instant(moment: datetime) -> str:
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return moment.isoformat(timespec="microseconds") + "Z"


def _cut(text: str) -> str:
    # Half a surrogate pair cannot be written as UTF-8.
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def _told(error: BaseException) -> str:
    """Class and first line of the message. A failing __str__ must not break the log."""
    try:
        message = str(error).strip().partition("\n")[0][:300]
    except Exception:  # noqa: BLE001 - any class may come by here
        message = ""
    return _cut(f"{type(error).__name__}: {message}" if message else type(error).__name__)


def _stack(error: BaseException) -> list[str]:
    """Where it was raised, innermost last, followed by what caused it: places only, without source and messages."""
    lines: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        if current is not error:
            lines.append(f"from {_told(current)}")
        frames = traceback.extract_tb(current.__traceback__)[-MAX_FRAMES:]
        lines += [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return lines
