"""Logs, metrics, the page they are read from, and trace context."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from scheduling.domain.target import Queue
from scheduling.telemetry.logs import bound_request_id, configure_logging, log_event, request_id, short_id
from scheduling.telemetry.metrics import CODES, NAMESPACE, OTHER, QUEUES, TABLE, Metrics
from scheduling.telemetry.serve import MAX_CONNECTIONS, MAX_HEAD, MetricsServer
from scheduling.telemetry.traces import TraceContext, child_of, continue_trace, new_header, new_trace, parse_traceparent

logger = logging.getLogger("scheduling.test")
METHOD = "messaging.MessagingService/SendScheduledMessage"

# --- logs


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    stream = io.StringIO()
    configure_logging("info", "json", stream)
    yield stream
    root.handlers[:] = before
    root.setLevel(level)


def entries(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_line_of_json_with_its_fields(stream: io.StringIO) -> None:
    log_event(
        logger,
        logging.INFO,
        "execution_finished",
        uid=UUID(int=7),
        queue=Queue.HIGH,
        lateness=timedelta(milliseconds=3),
        ready_time=datetime(2030, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))),
        codes=["OK", None, 1.5, True],
        nan=float("nan"),
    )
    (entry,) = entries(stream)
    assert str(entry.pop("time")).endswith("Z")
    assert entry == {
        "level": "info",
        "event": "execution_finished",
        "logger": "scheduling.test",
        "uid": "00000000-0000-0000-0000-000000000007",
        "queue": "HIGH",
        "lateness": 0.003,
        "ready_time": "2030-01-01T00:00:00.000000Z",
        "codes": ["OK", None, 1.5, True],
        "nan": "nan",
    }


def test_levels_below_the_configured_one_are_left_out(stream: io.StringIO) -> None:
    log_event(logger, logging.DEBUG, "too_fine")
    assert entries(stream) == []


def test_the_request_id_is_on_every_line_of_its_task_only(stream: io.StringIO) -> None:
    async def serve(name: str) -> None:
        with bound_request_id(name):
            await asyncio.sleep(0)  # noqa: TID251 - lets the other task run
            log_event(logger, logging.INFO, "served", name=name)

    async def both() -> None:
        await asyncio.gather(serve("a"), serve("b"))

    asyncio.run(both())
    log_event(logger, logging.INFO, "outside")
    assert [(entry.get("request_id"), entry.get("name")) for entry in entries(stream)] == [
        ("a", "a"),
        ("b", "b"),
        (None, None),
    ]
    assert request_id.get() is None


def test_payloads_and_whole_ids_of_end_users_never_reach_a_line(stream: io.StringIO) -> None:
    class Message:
        def __repr__(self) -> str:
            return "SECRET"

    log_event(
        logger,
        logging.INFO,
        "leak",
        owner="user-SECRET",
        payload="SECRET",
        raw=b"SECRET",
        message=Message(),
        nested={"request": "SECRET", "user_id": "user-SECRET", "deep": [[[[["SECRET"]]]]]},
    )
    assert "SECRET" not in stream.getvalue()
    (entry,) = entries(stream)
    assert (entry["raw"], entry["message"]) == ("<bytes>", "<Message>")


def test_an_exception_tells_its_first_line_and_its_places(stream: io.StringIO) -> None:
    try:
        try:
            nothing: dict[str, int] = {}
            nothing["inner"]
        except KeyError as cause:
            raise ValueError("what failed\nDETAIL: (owner)=(SECRET)") from cause
    except ValueError as error:
        log_event(logger, logging.ERROR, "broken", exc_info=error)
        log_event(logger, logging.ERROR, "broken", exc_info=True)
        log_event(logger, logging.WARNING, "odd", reason=error)
    first, second, third = entries(stream)
    assert first["error"] == second["error"] == third["reason"] == "ValueError: what failed"
    assert first["stack"] == second["stack"]
    assert "from KeyError: 'inner'" in str(first["stack"])
    assert "stack" not in third
    assert "SECRET" not in stream.getvalue()


def test_records_of_other_libraries_become_json_too(stream: io.StringIO) -> None:
    logging.getLogger("library").warning("%d things\nhappened", 3)
    (entry,) = entries(stream)
    assert (entry["event"], entry["message"], entry["logger"]) == ("log", "3 things\nhappened", "library")


def test_fields_cannot_overwrite_what_every_line_has(stream: io.StringIO) -> None:
    with bound_request_id("mine"):
        log_event(logger, logging.INFO, "fields", time="never", request_id="other")
    (entry,) = entries(stream)
    assert (entry["request_id"], entry["request_id_"], entry["time_"]) == ("mine", "other", "never")


def test_the_time_of_a_line_is_utc(stream: io.StringIO) -> None:
    written = {"name": "x", "levelno": logging.INFO, "levelname": "INFO", "msg": "m", "created": 0.5}
    record = logging.makeLogRecord(written)
    logging.getLogger().handle(record)
    assert entries(stream)[0]["time"] == "1970-01-01T00:00:00.500000Z"


def test_long_values_are_cut(stream: io.StringIO) -> None:
    log_event(logger, logging.INFO, "long", text="x" * 5000, many=list(range(5000)), broken="\ud800")
    (entry,) = entries(stream)
    assert len(str(entry["text"])) == 1000
    assert len(str(entry["many"])) < 300
    assert entry["broken"] == "?"


def test_the_console_shows_the_same_for_people(stream: io.StringIO) -> None:
    configure_logging("debug", "console", stream)
    log_event(logger, logging.DEBUG, "job_created", job="jobs/a", note="two words", count=3)
    line = stream.getvalue().rstrip("\n")
    assert line[13:] == 'debug   job_created job=jobs/a note="two words" count=3'


def test_wrong_logging_options_are_refused(stream: io.StringIO) -> None:
    for level, fmt in [("loud", "json"), ("info", "xml")]:
        with pytest.raises(ValueError, match=r"LOUD|xml"):
            configure_logging(level, fmt, stream)


def test_short_ids_differ_where_ids_do_and_services_stay_whole() -> None:
    assert short_id("user-0001") != short_id("user-0002")
    assert short_id("user-0001").startswith("user…")
    assert "0001" not in short_id("user-0001")
    assert not short_id("ab").startswith("ab")
    assert short_id("spiffe://cluster.local/ns/whispr/sa/user") == "spiffe://cluster.local/ns/whispr/sa/user"
    assert short_id("") == ""


# --- metrics


def metrics() -> Metrics:
    return Metrics(version="1.2.3", methods=[METHOD], services=["messaging.MessagingService"], rpc_methods=["/a.B/C"])


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"{NAMESPACE}_{name}", labels)


def test_every_row_of_the_table_is_a_metric_and_there_are_no_others() -> None:
    ours = {family.name: family for family in metrics().registry.collect() if family.name.startswith(NAMESPACE)}
    assert set(ours) == {f"{NAMESPACE}_{spec.name.removesuffix('_total')}" for spec in TABLE}
    for spec in TABLE:
        family = ours[f"{NAMESPACE}_{spec.name.removesuffix('_total')}"]
        assert (family.type, family.documentation) == (spec.kind, spec.help)
        assert (spec.kind == "counter") == spec.name.endswith("_total")
        assert (spec.kind == "histogram") == bool(spec.buckets)
        assert spec.name.endswith("_seconds") == (spec.unit == "seconds")


def test_two_processes_worth_of_metrics_do_not_share_anything() -> None:
    one, other = metrics(), metrics()
    one.released_for("HIGH").inc(3)
    assert (value(one, "released_total", queue="HIGH"), value(other, "released_total", queue="HIGH")) == (3, 0)


def test_a_series_is_looked_up_once_and_takes_enums() -> None:
    made = metrics()
    assert made.lateness_for("HIGH") is made.lateness_for(Queue.HIGH)
    made.lateness_for(Queue.HIGH).observe(0.0004)
    assert value(made, "lateness_seconds_bucket", queue="HIGH", le="0.0005") == 1
    made.executions_for(METHOD, "SUCCEEDED").inc()
    assert value(made, "executions_total", method=METHOD, outcome="SUCCEEDED") == 1
    assert (
        value(made, "build_info", version="1.2.3", python=".".join(map(str, __import__("sys").version_info[:3]))) == 1
    )


def test_unknown_label_values_share_one_series() -> None:
    made = metrics()
    for number in range(1000):
        made.executions_for(f"x.Y/Z{number}", "SUCCEEDED").inc()
        made.rpc_for(f"/x.Y/Z{number}", CODES[number % len(CODES)]).inc()
        made.attempts_for(METHOD, str(number)).inc()
    assert value(made, "executions_total", method=OTHER, outcome="SUCCEEDED") == 1000
    assert value(made, "attempts_total", method=METHOD, code=OTHER) == 1000
    families = {family.name: family for family in made.registry.collect()}
    assert len(families[f"{NAMESPACE}_executions"].samples) == 1
    assert len(families[f"{NAMESPACE}_rpc"].samples) == len(CODES)


def test_a_wrong_number_of_labels_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="argument"):
        metrics().rpc_for("/a.B/C")


def test_counters_by_queue_exist_before_their_first_event() -> None:
    made = metrics()
    for name in ("released_total", "swept_total", "leases_recovered_total", "lateness_seconds_count"):
        assert [value(made, name, queue=queue) for queue in QUEUES] == [0, 0, 0]


# --- the page


async def ask(port: int, request: bytes, *, end: bool = False) -> tuple[int, str, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        if end:
            writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()
        await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), head.decode(), body


def get(path: str, method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def served(
    check: Callable[[MetricsServer, Metrics], Awaitable[None]],
    refresh: Callable[[Metrics], Awaitable[None]] | None = None,
    **options: float,
) -> None:
    async def run() -> None:
        made = metrics()
        update = None if refresh is None else lambda: refresh(made)
        async with MetricsServer(made.registry, "127.0.0.1:0", update, **options) as server:
            await check(server, made)
        with pytest.raises(OSError, match=r"Errno|failed"):
            await asyncio.open_connection("127.0.0.1", server.port)

    asyncio.run(run())


def test_the_page_shows_the_metrics_after_a_refresh() -> None:
    async def refresh(made: Metrics) -> None:
        made.queue_waiting_for("LOW").set(42)

    async def check(server: MetricsServer, _: Metrics) -> None:
        status, head, body = await ask(server.port, get("/metrics?x=1"))
        assert status == 200
        assert "Content-Type: text/plain; version=0.0.4" in head
        assert f"Content-Length: {len(body)}" in head
        families = {family.name: family for family in text_string_to_metric_families(body.decode())}
        assert families[f"{NAMESPACE}_queue_waiting"].samples[0].value == 42
        assert "process_resident_memory_bytes" in families
        assert not any(name.endswith("_created") for name in families)
        status, head, nothing = await ask(server.port, get("/metrics", "HEAD"))
        assert (status, nothing) == (200, b"")
        assert "Content-Length: 0" not in head

    served(check, refresh)


def test_a_refresh_that_fails_or_hangs_does_not_take_the_page_away(stream: io.StringIO) -> None:
    calls: list[str] = []

    async def refresh(_: Metrics) -> None:
        calls.append("called")
        if len(calls) == 1:
            raise RuntimeError("no database")
        await asyncio.Event().wait()

    async def check(server: MetricsServer, _: Metrics) -> None:
        for _attempt in range(2):
            status, _head, body = await ask(server.port, get("/metrics"))
            assert (status, b"build_info" in body) == (200, True)

    served(check, refresh, refresh_timeout=0.01)
    assert [entry["event"] for entry in entries(stream)] == ["metrics_refresh_failed"] * 2


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (get("/healthz"), 200),
        (get("/healthz", "HEAD"), 200),
        (get("/"), 404),
        (get("/metrics", "POST"), 405),
        (b"GET /metrics\r\n\r\n", 400),
        (b"GET  /metrics HTTP/1.1\r\n\r\n", 400),
        (b"GET /metrics SPDY/3\r\n\r\n", 400),
        (b"\xff\xfe\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nA: " + b"x" * MAX_HEAD, 431),
        (b"GET /metrics HTTP/1.1\r\n", 408),
    ],
)
def test_each_request_gets_its_status(request_bytes: bytes, status: int) -> None:
    async def check(server: MetricsServer, _: Metrics) -> None:
        assert (await ask(server.port, request_bytes))[0] == status

    served(check, read_timeout=0.2 if status == 408 else 30)


def test_a_request_that_breaks_off_is_answered_with_400() -> None:
    async def check(server: MetricsServer, _: Metrics) -> None:
        assert (await ask(server.port, b"GET /met", end=True))[0] == 400

    served(check)


def test_silent_connections_do_not_pile_up_and_end_with_the_server() -> None:
    async def check(server: MetricsServer, _: Metrics) -> None:
        silent = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(MAX_CONNECTIONS)]
        try:
            assert (await ask(server.port, get("/healthz")))[0] == 503
            silent.pop()[1].close()
            async with asyncio.timeout(10):
                while (await ask(server.port, get("/healthz")))[0] != 200:
                    pass
            await server.__aexit__(None, None, None)
            assert {await asyncio.wait_for(reader.read(), 10) for reader, _writer in silent} == {b""}
        finally:
            for _reader, writer in silent:
                writer.close()

    served(check)


def test_an_empty_address_serves_nothing_and_a_taken_one_raises() -> None:
    async def run() -> None:
        async with MetricsServer(metrics().registry, "") as server:
            assert server.port == 0
        with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match=r"Errno|failed"):
            async with MetricsServer(metrics().registry, f"127.0.0.1:{taken.getsockname()[1]}"):
                pass

    asyncio.run(run())


# --- traces

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def test_a_traceparent_is_read_and_written() -> None:
    context = parse_traceparent(f"00-{TRACE}-{SPAN}-01")
    assert context == TraceContext(TRACE, SPAN, sampled=True)
    assert context.header() == f"00-{TRACE}-{SPAN}-01"
    assert parse_traceparent(f"00-{TRACE}-{SPAN}-fe") == TraceContext(TRACE, SPAN, sampled=False)
    assert parse_traceparent(f"cc-{TRACE}-{SPAN}-01-what-comes-later") == TraceContext(TRACE, SPAN, sampled=True)
    fresh = parse_traceparent(new_header())
    assert fresh is not None
    assert fresh.sampled


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01-",
        f"00-{TRACE}-{SPAN}-01\n",
        f" 00-{TRACE}-{SPAN}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01x",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-0g",
    ],
)
def test_a_malformed_traceparent_starts_a_new_trace(header: str | None) -> None:
    assert parse_traceparent(header) is None
    assert continue_trace(header).trace_id not in (TRACE, "0" * 32)


def test_a_child_stays_in_the_trace_with_a_span_of_its_own() -> None:
    for sampled in (True, False):
        parent = new_trace(sampled=sampled)
        child = child_of(parent)
        assert (child.trace_id, child.sampled) == (parent.trace_id, sampled)
        assert child.span_id != parent.span_id
        assert parse_traceparent(child.header()) == child
        assert continue_trace(parent.header()).trace_id == parent.trace_id


@given(st.text(max_size=80))
def test_reading_a_traceparent_never_crashes(header: str) -> None:
    context = parse_traceparent(header)
    assert context is None or parse_traceparent(context.header()) == context
