"""The Dramatiq broker and its actors, built when asked for: nothing global, no work at import time.

Dramatiq only carries ids from process to process here. No retries, no delays, no time limits, no results: when, and
whether again, is decided in PostgreSQL.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import dramatiq
import dramatiq.asyncio
import redis
from dramatiq.brokers.redis import RedisBroker, _RedisConsumer
from dramatiq.middleware import Middleware
from redis.backoff import NoBackoff
from redis.retry import Retry

from scheduling.domain.clock import Clock
from scheduling.domain.target import Queue
from scheduling.telemetry.logs import log_event

_log = logging.getLogger(__name__)

#: The queue of the scheduler actor.
SCHEDULER_QUEUE = "scheduler"
#: Ids in one message.
MESSAGE_IDS = 200
#: An idle consumer looks again after at most so many milliseconds, if no word comes before.
IDLE_MS = 200
#: While messages of it are in work here, which nobody tells when they are done, it looks again after so many seconds.
BUSY_SECONDS = 0.02
#: After a failure Redis is left alone for this many seconds.
BREAK_SECONDS = 1.0

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
R = TypeVar("R")


class ServiceLoop:
    """Runs the coroutines of async actors on the process's own event loop, where the engine and the pools live.

    Dramatiq asks for an EventLoopThread and calls nothing of it but `run_coroutine`.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def run_coroutine(self, work: Coroutine[Any, Any, R]) -> R:
        """Runs `work` on the loop and waits for it, from a worker's thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


class _OwnLoop(Middleware):
    """Takes the place of Dramatiq's AsyncIO middleware, which would start another event loop in a thread."""

    def __init__(self, loop: ServiceLoop) -> None:
        self._loop = loop

    def before_worker_boot(self, broker: Any, worker: Any) -> None:  # noqa: ARG002 - Dramatiq's signature
        dramatiq.asyncio.set_event_loop_thread(self._loop)  # type: ignore[arg-type]

    def after_worker_shutdown(self, broker: Any, worker: Any) -> None:  # noqa: ARG002 - Dramatiq's signature
        dramatiq.asyncio.set_event_loop_thread(None)


class _Consumer(_RedisConsumer):
    """Waits for the word that there is something, instead of asking Redis fifty times a second."""

    def __init__(self, broker: _Broker, queue_name: str, prefetch: int, timeout: int) -> None:
        # The library's own wait between two looks takes no time; ours ends with a word.
        super().__init__(broker, queue_name, prefetch, 0)  # type: ignore[no-untyped-call]
        self._seconds = timeout / 1000
        self._word = broker.words[queue_name]

    def __next__(self) -> Any:
        # A word that comes from here on may be of something that this look does not find.
        self._word.clear()
        message = super().__next__()  # type: ignore[no-untyped-call]
        if message is None:
            self._word.wait(BUSY_SECONDS if self.outstanding_message_count else self._seconds)
        return message


class _Words(threading.Thread):
    """Listens for the words of senders, which name the queue that has something. One that is lost costs IDLE_MS."""

    def __init__(self, client: redis.Redis, channel: str, words: Mapping[str, threading.Event]) -> None:
        super().__init__(name="words", daemon=True)
        self._client = client
        self._channel = channel
        self._words = words
        self._stopped = threading.Event()

    def run(self) -> None:
        """Listens until stopped."""
        while not self._stopped.is_set():
            try:
                with self._client.pubsub(ignore_subscribe_messages=True) as heard:  # type: ignore[no-untyped-call]
                    heard.subscribe(self._channel)
                    while not self._stopped.is_set():
                        message = heard.get_message(timeout=IDLE_MS / 1000)
                        if message is not None:
                            self._ring(message["data"].decode())
            except (redis.RedisError, OSError):
                self._stopped.wait(BREAK_SECONDS)

    def _ring(self, queue: str) -> None:
        word = self._words.get(queue)
        if word is not None:
            word.set()

    def stop(self) -> None:
        """Ends within IDLE_MS."""
        self._stopped.set()


class _Broker(RedisBroker):
    """A Redis broker without delay queues, whose consumers would poll for nothing."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call]  # the library left it untyped
        #: By queue: set when there is something to fetch.
        self.words: dict[str, threading.Event] = {}

    @property
    def consumer_class(self) -> type[_Consumer]:
        """Ours."""
        return _Consumer

    def declare_queue(self, queue_name: str) -> None:
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.words[queue_name] = threading.Event()
            self.emit_after("declare_queue", queue_name)


class Transport:
    """Sends and receives ids. Sending never raises: what Redis does not take, the sweep finds."""

    def __init__(self, url: str, *, environment: str, timeout: timedelta, clock: Clock) -> None:
        self._clock = clock
        self._client = redis.Redis.from_url(
            url,
            socket_timeout=timeout.total_seconds(),
            socket_connect_timeout=timeout.total_seconds(),
            retry=Retry(NoBackoff(), 0),
        )
        self._broker = _Broker(client=self._client, middleware=[], namespace=f"whispr:{environment}")
        self._channel = f"whispr:{environment}:words"
        self._words: _Words | None = None
        self._actors: dict[str, dramatiq.Actor[Any, Any]] = {}
        self._worker: dramatiq.Worker | None = None
        self._broken_until = float("-inf")
        self.is_up = False

    def listen(
        self,
        queues: Sequence[Queue],
        *,
        schedule: Callable[[int], Awaitable[None]],
        deliver: Callable[[Queue, Sequence[tuple[UUID, datetime]]], Awaitable[None]],
    ) -> None:
        """Starts consuming: rings go to `schedule` with their term, ids to `deliver`. Both run on the running event
        loop.
        """
        loop = ServiceLoop(asyncio.get_running_loop())
        self._broker.add_middleware(_OwnLoop(loop))

        async def tick(term: int) -> None:
            await schedule(term)

        self._declare(tick, "schedule", SCHEDULER_QUEUE)
        for queue in queues:
            self._declare(_delivery_actor(queue, deliver), f"deliver_{queue.lower()}", queue.lower())
        self._worker = dramatiq.Worker(
            self._broker,
            queues={SCHEDULER_QUEUE, *(queue.lower() for queue in queues)},
            worker_timeout=IDLE_MS,
            worker_threads=len(queues) + 2,
        )
        self._words = _Words(self._client, self._channel, self._broker.words)
        self._words.start()
        self._worker.start()

    def _declare(self, work: Callable[..., Awaitable[None]], name: str, queue: str) -> None:
        declare = dramatiq.actor(actor_name=name, queue_name=queue, broker=self._broker)
        self._actors[name] = declare(work)

    async def ring(self, term: int) -> bool:
        """Asks some worker's scheduler actor to run under the leader's term; False when Redis did not take it."""
        return await self._send([_message(SCHEDULER_QUEUE, "schedule", (term,))])

    async def send(self, queue: Queue, items: Sequence[tuple[UUID, datetime]]) -> bool:
        """Sends ids to the queue's delivery actors, in messages of MESSAGE_IDS; False when Redis did not take them."""
        name = queue.lower()
        packed = [[uid.hex, (ready - _EPOCH) // _MICROSECOND] for uid, ready in items]
        return await self._send(
            [
                _message(name, f"deliver_{name}", (packed[start : start + MESSAGE_IDS],))
                for start in range(0, len(packed), MESSAGE_IDS)
            ]
        )

    async def _send(self, messages: Sequence[dramatiq.Message[Any]]) -> bool:
        if self._clock.monotonic() < self._broken_until:
            return False
        return await asyncio.to_thread(self._enqueue, messages)

    def _enqueue(self, messages: Sequence[dramatiq.Message[Any]]) -> bool:
        try:
            for message in messages:
                self._broker.enqueue(message)
            for queue in {message.queue_name for message in messages}:
                self._client.publish(self._channel, queue)
        except redis.RedisError as error:
            self._broken_until = self._clock.monotonic() + BREAK_SECONDS
            if self.is_up:
                log_event(_log, logging.WARNING, "redis_down", error=type(error).__name__)
            self.is_up = False
            return False
        self.is_up = True
        return True

    async def check(self) -> bool:
        """Whether Redis answers; bounded by the client's timeout."""

        def ping() -> bool:
            try:
                return bool(self._client.ping())
            except redis.RedisError:
                return False

        self.is_up = await asyncio.to_thread(ping)
        return self.is_up

    async def stop_listening(self) -> None:
        """Stops consuming; what was fetched and not handled goes back to Redis. Sending goes on."""
        worker, self._worker = self._worker, None
        if worker is not None:
            await asyncio.to_thread(worker.stop, 3000)
        words, self._words = self._words, None
        if words is not None:
            words.stop()
            await asyncio.to_thread(words.join, 1)

    async def close(self) -> None:
        """Closes the connections to Redis."""
        await asyncio.to_thread(self._client.close)


def _delivery_actor(
    queue: Queue, deliver: Callable[[Queue, Sequence[tuple[UUID, datetime]]], Awaitable[None]]
) -> Callable[[list[list[Any]]], Awaitable[None]]:
    async def run(items: list[list[Any]]) -> None:
        await deliver(queue, [(UUID(uid), _EPOCH + timedelta(microseconds=micros)) for uid, micros in items])

    return run


def _message(queue: str, actor: str, args: tuple[Any, ...]) -> dramatiq.Message[Any]:
    return dramatiq.Message(queue_name=queue, actor_name=actor, args=args, kwargs={}, options={})
