"""The fault matrix: one cell for each thing that may break."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from scheduling.storage.migrate import migrate
from tests.chaos import faults
from tests.chaos.skewed import OFFSET
from tests.chaos.stage import SUPERVISOR_SECONDS, Cut, Stage, now, pause


@dataclass(frozen=True, slots=True)
class Window:
    """From when to when the fault lasted, in seconds of the Unix epoch. What recovers counts from its end."""

    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Cell:
    """A fault: `seconds` is how long it lasts in a run of a minute or more, `break_it` makes it and heals it.

    The bounds are what is required, in seconds: until all is normal again, until somebody leads again, and of the
    lateness of 99 % of what was due meanwhile.
    """

    name: str
    title: str
    seconds: float
    break_it: Callable[[Stage, float], Awaitable[Window]]
    recovery: float | None = None
    leader: float | None = None
    during: float | None = None
    settings: tuple[tuple[str, str], ...] = ()
    target_link: bool = False
    previous: bool = False


async def _none(stage: Stage, seconds: float) -> Window:
    start = now()
    await pause(seconds)
    return Window(start, now())


async def _kill_one(stage: Stage, seconds: float) -> Window:
    return await _kill(stage, await stage.follower())


async def _kill_leader(stage: Stage, seconds: float) -> Window:
    leader = await stage.leader()
    assert leader is not None, "nobody leads"
    return await _kill(stage, leader[0])


async def _kill(stage: Stage, worker: str) -> Window:
    start = now()
    await stage.kill_worker(worker)
    await pause(SUPERVISOR_SECONDS)
    await stage.start_worker()
    return Window(start, start)


async def _kill_all(stage: Stage, seconds: float) -> Window:
    start = now()
    workers = list(stage.workers)
    await asyncio.gather(*(stage.kill_worker(worker) for worker in workers))
    await pause(SUPERVISOR_SECONDS)
    await asyncio.gather(*(stage.start_worker() for _ in workers))
    return Window(start, start)


async def _roll(stage: Stage, seconds: float) -> Window:
    """A new worker for each, one after the other, and each server anew; the leader is told to go like the others."""
    start = now()
    await _replace_all(stage)
    return Window(start, now())


async def _replace_all(stage: Stage) -> None:
    for worker in list(stage.workers):
        await stage.start_worker()
        await stage.stop_worker(worker)
    for number, server in enumerate(list(stage.servers)):
        await asyncio.to_thread(server.stop)
        await stage.start_server(number)


async def _update(stage: Stage, seconds: float) -> Window:
    """The previous version runs, the migrations are made under it, and then each process is replaced by ours."""
    start = now()
    await asyncio.to_thread(migrate, stage.direct_url)
    stage.notes["migration_seconds"] = round(now() - start, 1)
    # For a while the previous version runs on our schema.
    await pause(seconds)
    stage.code = {}
    await _replace_all(stage)
    return Window(start, now())


async def _restart_redis(stage: Stage, seconds: float) -> Window:
    assert stage.valkey is not None
    start = now()
    stage.notes["redis_down_seconds"] = await stage.restart(stage.valkey)
    return Window(start, now())


async def _redis_down(stage: Stage, seconds: float) -> Window:
    assert stage.valkey is not None
    start = now()
    stage.notes["redis_down_seconds"] = await stage.restart(stage.valkey, seconds)
    return Window(start, now())


async def _redis_slow(stage: Stage, seconds: float) -> Window:
    start = now()
    # Once on the way there, once on the way back: 200 ms for a command.
    stage.redis.delay = 0.1
    await pause(seconds)
    stage.redis.restore()
    return Window(start, now())


async def _restart_postgres(stage: Stage, seconds: float) -> Window:
    assert stage.postgres is not None
    start = now()
    stage.notes["postgres_down_seconds"] = await stage.restart(stage.postgres)
    return Window(start, now())


async def _kill_backends(stage: Stage, seconds: float) -> Window:
    start = now()
    killed = await faults.kill_in_turn(stage.direct_url, seconds)
    stage.notes["killed_under"] = dict(killed)
    missing = [kind for kind, count in killed.items() if not count]
    assert not missing, f"no backend was caught under: {', '.join(missing)}"
    return Window(start, now())


async def _postgres_unreachable(stage: Stage, seconds: float) -> Window:
    start = now()
    stage.database.hang()
    await pause(seconds)
    stage.database.restore()
    return Window(start, now())


async def _lose_answers(stage: Stage, seconds: float) -> Window:
    start = now()
    before = stage.database.lost
    while now() < start + seconds:
        stage.database.lose_next_answer()
        await pause(0.25)
    stage.database.restore()
    stage.notes["answers_lost"] = stage.database.lost - before
    return Window(start, now())


async def _take_connections(stage: Stage, seconds: float) -> Window:
    start = now()
    async with faults.connections_taken(stage.direct_url) as ended:
        stage.notes["connections_ended"] = ended
        await pause(seconds)
    return Window(start, now())


async def _target_down(stage: Stage, seconds: float) -> Window:
    assert stage.target is not None
    start = now()
    stage.target.refuse()
    await pause(seconds)
    stage.target.restore()
    return Window(start, now())


async def _target_slow(stage: Stage, seconds: float) -> Window:
    start = now()
    # Ten times what the jobs allow.
    stage.set_rules("messaging.* delay=30")
    await pause(seconds)
    stage.set_rules()
    return Window(start, now())


async def _target_wrong(stage: Stage, seconds: float) -> Window:
    start = now()
    for rule in ("answer=garbage", "answer=huge", "hang"):
        stage.set_rules(f"messaging.* {rule}")
        await pause(seconds / 3)
    stage.set_rules()
    return Window(start, now())


async def _wrong_clock(stage: Stage, seconds: float) -> Window:
    """One worker leaves, one whose clock is five minutes ahead comes; it leads as soon as the leader goes."""
    start = now()
    await stage.stop_worker(await stage.follower())
    await stage.start_worker("tests.chaos.skewed", **{OFFSET: "300"})
    await pause(seconds / 2)
    return Window(start, now())


async def _two_leaders(stage: Stage, seconds: float) -> Window:
    start = now()
    leader = await stage.leader()
    assert leader is not None, "nobody leads"
    await stage.halt(leader[0], seconds)
    after = await stage.leader()
    stage.notes["another_led_meanwhile"] = after is not None and after[0] != leader[0]
    return Window(start, start)


async def _kill_servers(stage: Stage, seconds: float) -> Window:
    start = now()
    number = 0
    while now() < start + seconds:
        await asyncio.to_thread(stage.servers[number].kill)
        stage.notes["servers_killed"] = stage.notes.get("servers_killed", 0) + 1
        await stage.start_server(number)
        await pause(1.0)
        number = (number + 1) % len(stage.servers)
    return Window(start, now())


async def _disk_full(stage: Stage, seconds: float) -> Window:
    start = now()
    async with faults.disk_full(stage.direct_url):
        await pause(seconds)
    return Window(start, now())


async def _short(stage: Stage, seconds: float) -> Window:
    """The short form: what needs no server of its own, one after the other."""
    start = now()
    await stage.kill_worker(await stage.follower())
    await stage.start_worker()
    stage.redis.refuse()
    stage.database.hang()
    await pause(2.0)
    stage.database.restore()
    for _ in range(4):
        stage.database.lose_next_answer()
        await pause(0.2)
    stage.notes["answers_lost"] = stage.database.lost
    stage.redis.restore()
    stage.database.cut()
    stage.notes["killed_under"] = {
        kind.name: await faults.kill_under(stage.direct_url, kind) for kind in faults.KINDS[3:4]
    }
    return Window(start, now())


SHORT = Cell("short", "a worker killed, Redis and PostgreSQL away, answers lost", 6, _short)

CELLS = (
    Cell("calm", "nothing, to compare with", 10, _none),
    Cell("worker-killed", "worker `kill -9`", 0, _kill_one, recovery=10),
    Cell("workers-killed", "all workers killed", 0, _kill_all, recovery=10),
    Cell("leader-killed", "leader killed", 0, _kill_leader, recovery=10, leader=5),
    Cell("rolling-restart", "SIGTERM rolling restart of everything", 0, _roll, recovery=3, leader=1),
    Cell(
        "update",
        "update of the previous version under load: migrations, then a rolling restart",
        5,
        _update,
        recovery=3,
        leader=1,
        previous=True,
    ),
    Cell("redis-restart", "Redis restart, empty", 0, _restart_redis, during=3),
    Cell("redis-down", "Redis down for 30 s", 30, _redis_down, during=3),
    Cell("redis-slow", "Redis slow (200 ms per command) for 30 s", 30, _redis_slow, during=3),
    Cell("postgres-restart", "PostgreSQL restart", 0, _restart_postgres, recovery=3),
    Cell("postgres-backends", "PostgreSQL backend killed under each kind of statement", 30, _kill_backends, recovery=3),
    Cell("postgres-unreachable", "PostgreSQL unreachable for 20 s", 20, _postgres_unreachable, recovery=3),
    Cell("answers-lost", "answer lost after the commit, four times a second", 20, _lose_answers, recovery=3),
    Cell(
        "connections-taken",
        "no connection to PostgreSQL to be had for 15 s",
        15,
        _take_connections,
        recovery=3,
        settings=(("database_pool_size", "3"),),
    ),
    Cell("target-down", "target down for 30 s", 30, _target_down, target_link=True),
    Cell("target-slow", "target slow (10 × timeout) for 20 s", 20, _target_slow),
    Cell("target-wrong", "target answering garbage, huge or nothing", 21, _target_wrong),
    Cell("clock", "clock of one worker 5 min ahead", 30, _wrong_clock),
    Cell("two-leaders", "leader stopped for 20 s, then continued", 20, _two_leaders, recovery=10, leader=5),
    Cell("server-killed", "API killed during CreateJob, again and again", 20, _kill_servers),
    Cell("disk-full", "PostgreSQL's disk full for 10 s", 10, _disk_full, recovery=3),
)
BY_NAME = {cell.name: cell for cell in CELLS}

__all__ = ["BY_NAME", "CELLS", "SHORT", "Cell", "Cut", "Window"]
