"""Ids and rings through a real Valkey and Dramatiq: they arrive, and nothing waits when Redis is gone."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from scheduling.app import SystemClock
from scheduling.dispatch.broker import BREAK_SECONDS, MESSAGE_IDS, Transport, _Consumer
from scheduling.domain.target import Queue
from tests.support.clock import FlowingClock
from tests.support.proxy import Proxy
from tests.support.run import Signal, run

READY = datetime(2031, 7, 1, 12, 0, 0, 123456, tzinfo=UTC)
Item = tuple[UUID, datetime]


class Inbox:
    """What a listening process received."""

    def __init__(self) -> None:
        self.rings: list[int] = []
        self.messages: list[tuple[Queue, list[Item]]] = []
        self.changed = Signal()

    async def schedule(self, term: int) -> None:
        self.rings.append(term)
        self.changed.notify()

    async def deliver(self, queue: Queue, items: Sequence[Item]) -> None:
        self.messages.append((queue, list(items)))
        self.changed.notify()

    def items(self, queue: Queue) -> list[Item]:
        return [item for each, items in self.messages if each is queue for item in items]


@asynccontextmanager
async def listening(url: str, environment: str, *queues: Queue) -> AsyncIterator[Inbox]:
    """A process that consumes."""
    transport = Transport(url, environment=environment, timeout=timedelta(milliseconds=200), clock=SystemClock())
    inbox = Inbox()
    transport.listen(queues or tuple(Queue), schedule=inbox.schedule, deliver=inbox.deliver)
    try:
        yield inbox
    finally:
        await transport.stop_listening()
        await transport.close()


@asynccontextmanager
async def sending(url: str, environment: str, clock: FlowingClock | None = None) -> AsyncIterator[Transport]:
    """A process that only sends."""
    transport = Transport(
        url, environment=environment, timeout=timedelta(milliseconds=200), clock=clock or FlowingClock()
    )
    try:
        yield transport
    finally:
        await transport.stop_listening()
        await transport.close()


def test_a_ring_arrives_with_its_term(redis_url: str, environment: str) -> None:
    async def scenario() -> None:
        async with listening(redis_url, environment) as inbox, sending(redis_url, environment) as transport:
            for term in (1, 2, 3):
                assert await transport.ring(term)
            await inbox.changed.until(lambda: len(inbox.rings) == 3)
            assert sorted(inbox.rings) == [1, 2, 3]

    run(scenario())


def test_ids_arrive_with_their_times_to_the_microsecond_in_their_queue(redis_url: str, environment: str) -> None:
    async def scenario() -> None:
        async with listening(redis_url, environment) as inbox, sending(redis_url, environment) as transport:
            sent = {
                queue: [(uuid4(), READY + timedelta(microseconds=n)) for n in range(count)]
                for queue, count in ((Queue.HIGH, MESSAGE_IDS * 2 + 1), (Queue.MEDIUM, 3), (Queue.LOW, 1))
            }
            for queue, items in sent.items():
                assert await transport.send(queue, items)
            await inbox.changed.until(lambda: sum(len(items) for _, items in inbox.messages) == MESSAGE_IDS * 2 + 5)
            for queue, items in sent.items():
                assert sorted(inbox.items(queue)) == sorted(items)
            assert len(inbox.messages) == 5
            assert max(len(items) for _, items in inbox.messages) == MESSAGE_IDS

    run(scenario())


def test_a_process_takes_only_the_queues_that_it_works_on(redis_url: str, environment: str) -> None:
    async def scenario() -> None:
        async with sending(redis_url, environment) as transport:
            high, low = (uuid4(), READY), (uuid4(), READY)
            async with listening(redis_url, environment, Queue.HIGH) as inbox:
                await transport.send(Queue.LOW, [low])
                await transport.send(Queue.HIGH, [high])
                await inbox.changed.until(lambda: len(inbox.messages) == 1)
                assert inbox.messages == [(Queue.HIGH, [high])]
            async with listening(redis_url, environment, Queue.LOW) as inbox:
                await inbox.changed.until(lambda: len(inbox.messages) == 1)
                assert inbox.messages == [(Queue.LOW, [low])]

    run(scenario())


def test_environments_that_share_a_redis_do_not_hear_each_other(redis_url: str, environment: str) -> None:
    async def scenario() -> None:
        async with (
            listening(redis_url, f"{environment}-a") as one,
            listening(redis_url, f"{environment}-b") as two,
            sending(redis_url, f"{environment}-b") as transport,
        ):
            await transport.ring(7)
            await two.changed.until(lambda: two.rings == [7])
            assert one.rings == []

    run(scenario())


def test_without_redis_sending_fails_quickly_and_goes_on_when_it_is_back(redis_url: str, environment: str) -> None:
    async def scenario() -> None:
        clock = FlowingClock()
        async with Proxy(redis_url) as proxy, sending(proxy.url, environment, clock) as transport:
            assert await transport.ring(1)
            assert transport.is_up
            for break_ in (proxy.refuse, proxy.hang):
                break_()
                began = time.monotonic()  # noqa: TID251 - how long a call really takes
                assert not await transport.ring(2)
                # A timeout of 200 ms, and nothing that tries again; generous, since machines are busy.
                assert time.monotonic() - began < 5  # noqa: TID251
                seen = [transport.is_up, await transport.check()]
                # It is left alone for a while.
                proxy.restore()
                assert not await transport.send(Queue.HIGH, [(uuid4(), READY)])
                clock.advance(BREAK_SECONDS)
                assert await transport.ring(3)
                seen.append(transport.is_up)
                assert seen == [False, False, True]

    run(scenario())


def test_a_listener_goes_on_after_its_redis_was_away(redis_url: str, environment: str) -> None:
    async def scenario() -> None:
        async with (
            Proxy(redis_url) as proxy,
            listening(proxy.url, environment) as inbox,
            sending(redis_url, environment) as transport,
        ):
            await transport.ring(1)
            await inbox.changed.until(lambda: inbox.rings == [1])
            connections = proxy.connections
            proxy.refuse()
            await proxy.changed.until(lambda: proxy.connections > connections)
            await transport.ring(2)
            proxy.restore()
            await inbox.changed.until(lambda: inbox.rings == [1, 2])

    run(scenario())


def test_a_message_whose_word_was_lost_arrives_all_the_same(
    redis_url: str, environment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with listening(redis_url, environment, Queue.HIGH) as inbox, sending(redis_url, environment) as transport:
            monkeypatch.setattr(transport._client, "publish", lambda channel, word: 0)
            uid = uuid4()
            assert await transport.send(Queue.HIGH, [(uid, READY)])
            await inbox.changed.until(lambda: inbox.items(Queue.HIGH) == [(uid, READY)])

    run(scenario())


def test_a_word_that_comes_while_a_consumer_looks_is_not_missed() -> None:
    class Sender:
        """Sends just after each look that found nothing."""

        def __init__(self) -> None:
            self.words = {"high": threading.Event()}
            self.looks = 0

        def do_fetch(self, queue: str, count: int) -> list[bytes]:
            self.looks += 1
            self.words[queue].set()
            return []

    sender = Sender()
    consumer = _Consumer(cast("Any", sender), "high", prefetch=2, timeout=3_600_000)
    for looks in (1, 2, 3):
        assert next(consumer) is None
        assert sender.looks == looks
