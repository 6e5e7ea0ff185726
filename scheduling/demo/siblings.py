"""Demo siblings: a real gRPC server of the siblings' contracts that writes down what it received.

    python -m scheduling.demo.siblings --listen 127.0.0.1:0 --record calls.jsonl --services messaging,notification \\
        --rule 'messaging.MessagingService/SendScheduledMessage match=fail-twice-* times=2 code=UNAVAILABLE'

It answers every method of every contract under `whispr.siblings`, from the descriptors alone, so a further sibling
needs nothing here. It prints `ready PORT` when it serves, serves health and reflection too, and ends on SIGTERM or
SIGINT. With `--rules FILE`, the rules of that file, one a line, come before those of the command line; SIGHUP reads it
again, so that a sibling may fall ill and recover.

The record has one JSON line for each call, in the order in which the calls ended:

- `received`: when the call came, seconds since the Unix epoch; `duration`: seconds until it was answered
- `method`: `package.Service/Method`; `id`: the request's first field named `…_id`, empty if it has none
- `idempotency_key`, `attempt`, `job`, `nominal_time`, `traceparent`: the scheduler's metadata, null when not sent;
  `metadata`: whatever else begins with `x-scheduling-`
- `timeout`: seconds that the caller left when the call came, null without a deadline
- `code`: what was answered, such as OK or UNAVAILABLE; CANCELLED when the caller gave up, ran out
  of time or vanished

Lines are whole and at most 50 ms late for whoever reads the file meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
import pkgutil
import shlex
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import click
import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

#: Seconds between two writes of the record: late enough to bundle, early enough to watch.
FLUSH_SECONDS = 0.05
#: Seconds that calls in flight are given to end at shutdown.
GRACE_SECONDS = 2.0
#: What a paged list holds in all; enough for several pages at the default size.
LIST_TOTAL = 250
TIME_ZONES = ("Europe/Paris", "Asia/Tokyo", "America/New_York", "Pacific/Auckland", "UTC")
#: Metadata of the scheduler and the names they get in the record.
METADATA = {
    "idempotency-key": "idempotency_key",
    "x-scheduling-attempt": "attempt",
    "x-scheduling-job": "job",
    "x-scheduling-nominal-time": "nominal_time",
    "traceparent": "traceparent",
}

#: Answers that no contract knows: what is no message at all, and what is larger than any caller takes.
ANSWERS = {"garbage": b"\xff" * 64, "huge": b"\x0a\x80\x80\x80\x08" + b"x" * (16 * 1024 * 1024)}

Handler = Callable[[Message, Any], Awaitable[Message | bytes]]


@dataclass(frozen=True, slots=True)
class Rule:
    """How some calls are treated. `method` and `match` are globs on the method and on the request's id.

    First `delay` seconds pass, then the call hangs until the caller gives up if `hang` is set, then it is answered with
    `code`, or with the bytes that `answer` names. With `times`, only the first so many calls with the same id (the same
    idempotency key, where there is no id).
    """

    method: str
    match: str = "*"
    times: int | None = None
    delay: float = 0.0
    hang: bool = False
    code: grpc.StatusCode = grpc.StatusCode.OK
    answer: str = ""


def parse_rule(text: str) -> Rule:
    """The rule written as `METHOD [match=GLOB] [times=N] [delay=SECONDS] [code=CODE] [answer=WORD] [hang]`.

    Raises ValueError, which says what is wrong.
    """
    method, *words = shlex.split(text) or [""]
    if not method or "=" in method:
        raise ValueError(f"a rule begins with a method or a glob for methods: {text!r}")
    values: dict[str, Any] = {}
    for word in words:
        name, _, value = word.partition("=")
        if name in values:
            raise ValueError(f"{name} is given twice: {text!r}")
        values[name] = _rule_value(name, value)
    if not values.keys() & {"delay", "hang", "code", "answer"}:
        raise ValueError(f"a rule needs code, delay, answer or hang: {text!r}")
    return Rule(method, **values)


def _rule_value(name: str, value: str) -> Any:
    match name:
        case "match":
            return value
        case "times" if value.isdecimal():
            return int(value)
        case "delay" if (seconds := float(value)) >= 0:
            return seconds
        case "hang" if not value:
            return True
        case "code" if value in grpc.StatusCode.__members__:
            return grpc.StatusCode[value]
        case "answer" if value in ANSWERS:
            return value
    raise ValueError(f"{name}={value} is no part of a rule (match, times, delay, code, answer, hang)")


class Record:
    """The file of received calls. Every write holds whole lines and goes to the end, so several may share a file."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._entries: list[dict[str, Any]] = []

    def add(self, entry: dict[str, Any]) -> None:
        """Keeps an entry for the next flush."""
        self._entries.append(entry)

    def flush(self) -> None:
        """Hands everything kept to the operating system, where the end of this process does not touch it."""
        if not self._entries:
            return
        entries, self._entries = self._entries, []
        data = "".join(json.dumps(entry, separators=(",", ":")) + "\n" for entry in entries).encode()
        while data:
            data = data[os.write(self._file, data) :]

    async def keep_flushing(self) -> None:
        """Flushes every 50 ms until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)  # noqa: TID251 - another service, whose clock is its own
            self.flush()

    def close(self) -> None:
        """Flushes and closes the file."""
        self.flush()
        os.close(self._file)


class Rules:
    """The rules of one server, with their counts. The first that fits a call and is not used up applies."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._rules = tuple(rules)
        self._first: tuple[Rule, ...] = ()
        self._used: Counter[tuple[int, str]] = Counter()
        self._candidates: dict[str, tuple[tuple[int, Rule], ...]] = {}

    def put_first(self, rules: Iterable[Rule]) -> None:
        """Puts rules before the others, in place of those put there before."""
        self._first = tuple(rules)
        self._candidates.clear()

    def for_method(self, method: str) -> tuple[tuple[int, Rule], ...]:
        """The numbered rules that can fit calls of a method."""
        found = self._candidates.get(method)
        if found is None:
            numbered = (*((-1 - n, rule) for n, rule in enumerate(self._first)), *enumerate(self._rules))
            found = tuple(pair for pair in numbered if fnmatchcase(method, pair[1].method))
            self._candidates[method] = found
        return found

    def take(self, candidates: tuple[tuple[int, Rule], ...], request_id: str, key: str) -> Rule | None:
        """The rule for one call, counted as used."""
        for number, rule in candidates:
            if not fnmatchcase(request_id, rule.match):
                continue
            if rule.times is None:
                return rule
            slot = (number, request_id or key)
            if self._used[slot] < rule.times:
                self._used[slot] += 1
                return rule
        return None


class Responder:
    """Makes sensible answers to one method from its descriptors.

    Fields that the request has too are given back, times are now, counts are small numbers (0 where a dry run changes
    nothing), and paged lists have LIST_TOTAL items with pages as asked for.
    """

    def __init__(self, method: MethodDescriptor) -> None:
        asked, answered = method.input_type, method.output_type
        self._make = message_factory.GetMessageClass(answered)
        self._now: list[str] = []
        self._fixed: dict[str, Any] = {}
        self._copied: list[FieldDescriptor] = []
        self._counted: list[FieldDescriptor] = []
        self._pages: FieldDescriptor | None = None
        paged = "next_page_token" in answered.fields_by_name
        for field in answered.fields:
            twin = asked.fields_by_name.get(field.name)
            if field.name == "next_page_token":
                continue
            if twin is not None and twin.type == field.type and twin.is_repeated == field.is_repeated:
                self._copied.append(field)
            elif _is_timestamp(field) and not field.is_repeated:
                self._now.append(field.name)
            elif field.type == FieldDescriptor.TYPE_MESSAGE and field.is_repeated and paged:
                self._pages = field
            elif not field.is_repeated:
                self._counted += [field] if field.cpp_type in _INTEGERS else []
                self._fixed |= {field.name: f"{field.name}-1"} if field.type == FieldDescriptor.TYPE_STRING else {}

    def answer(self, request: Message, now_ns: int) -> Message:
        """The response to `request` at a time in nanoseconds since the Unix epoch."""
        response = self._make(**self._fixed)
        for field in self._copied:
            value = getattr(request, field.name)
            if field.is_repeated or field.type == FieldDescriptor.TYPE_MESSAGE:
                getattr(response, field.name).MergeFrom(value)
            else:
                setattr(response, field.name, value)
        for name in self._now:
            getattr(response, name).FromNanoseconds(now_ns)
        dry = getattr(request, "dry_run", False)
        for field in self._counted:
            setattr(response, field.name, 0 if dry and not field.name.startswith("matched") else 3)
        if self._pages is not None:
            self._fill_page(request, response, self._pages, now_ns)
        return response

    def _fill_page(self, request: Any, response: Any, field: FieldDescriptor, now_ns: int) -> None:
        response.total_size = LIST_TOTAL
        if getattr(request, "count_only", False):
            return
        start = int(request.page_token) if request.page_token.isdecimal() else 0
        end = min(start + (request.page_size or 100), LIST_TOTAL)
        items = getattr(response, field.name)
        for number in range(start, end):
            _fill_item(items.add(), number, now_ns)
        response.next_page_token = str(end) if end < LIST_TOTAL else ""


_INTEGERS = (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64)


def _is_timestamp(field: Any) -> bool:
    return field.message_type is not None and field.message_type.full_name == "google.protobuf.Timestamp"


def _fill_item(item: Message, number: int, now_ns: int) -> None:
    for field in item.DESCRIPTOR.fields:
        if field.is_repeated:
            continue
        if _is_timestamp(field):
            getattr(item, field.name).FromNanoseconds(now_ns)
        elif field.name == "time_zone":
            setattr(item, field.name, TIME_ZONES[number % len(TIME_ZONES)])
        elif field.name == "language_code":
            setattr(item, field.name, "en")
        elif field.type == FieldDescriptor.TYPE_STRING:
            setattr(item, field.name, f"{field.name.removesuffix('_id')}-{number:04d}")
        elif field.type == FieldDescriptor.TYPE_BOOL:
            setattr(item, field.name, True)


def _id_field(request: Descriptor) -> str | None:
    names = (
        field.name
        for field in request.fields
        if field.name.endswith("_id") and field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated
    )
    return next(names, None)


def _handler(method: MethodDescriptor, rules: Rules, record: Record) -> Handler:
    name = f"{method.containing_service.full_name}/{method.name}"
    id_field = _id_field(method.input_type)
    responder = Responder(method)

    async def handle(request: Message, context: Any) -> Message | bytes:
        received, began = time.time_ns(), time.perf_counter_ns()
        request_id: str = getattr(request, id_field) if id_field is not None else ""
        entry: dict[str, Any] = {
            "received": received / 1e9,
            "method": name,
            "id": request_id,
            **_scheduling_metadata(context.invocation_metadata()),
            "timeout": context.time_remaining(),
        }
        code = grpc.StatusCode.CANCELLED
        try:
            candidates = rules.for_method(name)
            rule = rules.take(candidates, request_id, entry["idempotency_key"] or "") if candidates else None
            if rule is not None:
                await _obey(rule)
            code = grpc.StatusCode.OK if rule is None else rule.code
        finally:
            entry["duration"] = (time.perf_counter_ns() - began) / 1e9
            entry["code"] = code.name
            record.add(entry)
        if code is not grpc.StatusCode.OK:
            await context.abort(code, f"the demo was told to answer {code.name}")
        if rule is not None and rule.answer:
            return ANSWERS[rule.answer]
        return responder.answer(request, received)

    return handle


def _serialize(answer: Message | bytes) -> bytes:
    return answer if isinstance(answer, bytes) else answer.SerializeToString()


def _scheduling_metadata(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    known: dict[str, Any] = dict.fromkeys(METADATA.values())
    others: dict[str, str] = {}
    for key, value in pairs:
        if key in METADATA:
            known[METADATA[key]] = value
        elif key.startswith("x-scheduling-"):
            others[key] = str(value)
    attempt = known["attempt"]
    if attempt is not None and attempt.isdecimal():
        known["attempt"] = int(attempt)
    return known | {"metadata": others}


async def _obey(rule: Rule) -> None:
    if rule.delay:
        await asyncio.sleep(rule.delay)  # noqa: TID251 - another service, whose clock is its own
    if rule.hang:
        await asyncio.Event().wait()


def sibling_services(packages: Sequence[str] = ()) -> list[ServiceDescriptor]:
    """The services of the siblings' contracts, of those packages only if any are given, sorted by name.

    Raises ValueError for a package that no contract has.
    """
    import whispr.siblings

    services: list[ServiceDescriptor] = []
    for module in pkgutil.iter_modules(whispr.siblings.__path__):
        if module.name.endswith("_pb2"):
            contract = importlib.import_module(f"whispr.siblings.{module.name}").DESCRIPTOR
            services += [
                one for one in contract.services_by_name.values() if not packages or contract.package in packages
            ]
    missing = set(packages) - {service.file.package for service in services}
    if missing:
        raise ValueError(f"no contract has the package {', '.join(sorted(missing))}")
    return sorted(services, key=lambda service: service.full_name)


def read_rules(file: Path) -> list[Rule]:
    """The rules of a file, one a line; none when it is not there. Raises ValueError for what is no rule."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return [parse_rule(line) for line in lines if line.strip()]


async def serve(
    listen: str,
    record_path: Path,
    services: Sequence[ServiceDescriptor],
    rules: Iterable[Rule],
    first: Callable[[], Iterable[Rule]] = tuple,
) -> None:
    """Serves until SIGTERM or SIGINT; prints `ready PORT` once it does. Raises RuntimeError when it cannot listen.

    `first` gives the rules that come before the others; SIGHUP asks for them again.
    """
    record, shared_rules = Record(record_path), Rules(rules)
    shared_rules.put_first(first())
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0), ("grpc.max_send_message_length", -1)])
    names = [service.full_name for service in services]
    for service in services:
        handlers = {
            method.name: grpc.unary_unary_rpc_method_handler(
                _handler(method, shared_rules, record),
                request_deserializer=message_factory.GetMessageClass(method.input_type).FromString,
                response_serializer=_serialize,
            )
            for method in service.methods
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))
    health_servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    port = server.add_insecure_port(listen)
    for name in ("", *names):
        await health_servicer.set(name, health_pb2.HealthCheckResponse.SERVING)

    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, lambda: shared_rules.put_first(first()))
    flusher = asyncio.create_task(record.keep_flushing())
    # It ends by itself only when the file cannot be written, and a demo without a record is none.
    flusher.add_done_callback(lambda _: stopping.set())
    await server.start()
    print(f"ready {port}", flush=True)
    await stopping.wait()
    await health_servicer.enter_graceful_shutdown()
    await server.stop(GRACE_SECONDS)
    flusher.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await flusher
    record.close()


@click.command(help="Serves the siblings' contracts and records every call.")
@click.option("--listen", default="127.0.0.1:0", show_default=True, help="HOST:PORT; port 0 picks a free one.")
@click.option(
    "--record", required=True, type=click.Path(dir_okay=False, path_type=Path), help="File to append calls to."
)
@click.option("--services", default="", help="Packages to serve, with commas; all when not given.")
@click.option(
    "--rule",
    "rules",
    multiple=True,
    help="METHOD [match=GLOB] [times=N] [delay=SECONDS] [code=CODE] [answer=WORD] [hang]",
)
@click.option(
    "--rules",
    "rules_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File of rules that come first, one a line; SIGHUP reads it again.",
)
def main(listen: str, record: Path, services: str, rules: Sequence[str], rules_file: Path | None) -> None:
    """Runs the server; exit code 2 for wrong options, 1 when it cannot listen."""
    try:
        chosen = sibling_services([name for name in services.split(",") if name])
        parsed = [parse_rule(rule) for rule in rules]
        first = tuple if rules_file is None else partial(read_rules, rules_file)
        first()
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    try:
        asyncio.run(serve(listen, record, chosen, parsed, first))
    except RuntimeError as error:
        sys.exit(f"cannot listen on {listen}: {error}")


if __name__ == "__main__":
    main()
