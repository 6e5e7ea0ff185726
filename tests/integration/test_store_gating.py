"""Gates of release: owners, targets, rates and pauses. Exact, first come first served, and in nobody else's way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from scheduling.domain.job import OverlapPolicy
from scheduling.domain.lifecycle import State
from scheduling.domain.limits import GateLimits
from scheduling.domain.pause import Scope
from scheduling.domain.target import Queue
from scheduling.operations.ports import JobChange
from scheduling.storage import gating
from tests.support.builders import SEND, new_job, once
from tests.support.clock import START
from tests.support.run import run
from tests.support.stores import Stores, open_stores

NOW = START
SECOND = timedelta(seconds=1)
MESSAGING, MEDIA = "messaging.MessagingService", "media.MediaService"
CLEAN = f"{MEDIA}/CleanupTempFiles"
OTHER: dict[str, Any] = {"target": CLEAN, "request_type": "media.CleanupTempFilesRequest", "queue": Queue.LOW}
LIMITS = GateLimits(owner_running=3, exempt_owner="us", target_running={CLEAN: 2}, rates={})


async def due(stores: Stores, count: int, **of_job: Any) -> list[UUID]:
    """One-offs that are due now, oldest first."""
    schedules = [once(NOW - timedelta(milliseconds=count - n)) for n in range(count)]
    await stores.create(*(new_job(NOW, schedule=each, **of_job) for each in schedules))
    return [each.plan_uid for each in schedules]


async def held(stores: Stores, *uids: UUID) -> list[str | None]:
    return [(await stores.row(uid))["held_by"] for uid in uids]


async def finish(stores: Stores, uids: Sequence[UUID]) -> None:
    worker = await stores.worker()
    claims = await stores.claim(worker, *uids)
    assert len(claims) == len(uids)
    for claim in claims:
        await stores.record(claim)


# --- owners -----------------------------------------------------------------------------------------------------------


def test_so_many_of_one_owner_run_at_once_while_others_flow(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url, limits=LIMITS) as stores:
            mine = await due(stores, 10, owner="a")
            others = await due(stores, 2, owner="b")
            ours = await due(stores, 5, owner="us")
            assert set(await stores.released()) == {*mine[:3], *others, *ours}
            assert await held(stores, *mine[3:]) == ["OWNER:a"] * 7
            assert await stores.released() == []
            # Running ones hold their slots as well.
            claims = await stores.claim(await stores.worker(), *mine[:3])
            assert await stores.released() == []
            await stores.record(claims[0])
            assert await stores.released() == mine[3:4]
            await stores.record(claims[1])
            await stores.record(claims[2])
            assert set(await stores.released()) == set(mine[4:6])

    run(scenario())


def test_it_is_exact_with_two_releases_at_once(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url, limits=LIMITS) as first, open_stores(database_url, limits=LIMITS) as other:
            mine = await due(first, 40, owner="a")
            done: list[UUID] = []
            while len(done) < len(mine):
                found = await asyncio.gather(*(each.released() for each in (first, other, first, other)))
                released = [uid for each in found for uid in each]
                assert len(released) <= 3
                (row,) = await first.query("SELECT count(*) AS n FROM executions WHERE state IN ('QUEUED', 'RUNNING')")
                assert row["n"] <= 3
                await finish(first, released)
                done += released
            assert sorted(done) == sorted(mine)

    run(scenario())


def test_recurring_and_buffered_ones_take_the_same_slots(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url, limits=LIMITS) as stores:
            for _ in range(4):
                await stores.recurring(owner="a")
            await due(stores, 2, owner="a", overlap=OverlapPolicy.BUFFER_ONE)
            stores.clock.advance(timedelta(minutes=1))
            plain = await due(stores, 2, owner="a")
            assert len(await stores.released()) == 3
            (row,) = await stores.query("SELECT count(*) AS n FROM executions WHERE held_by = 'OWNER:a'")
            assert row["n"] == 5
            seen = set()
            for _ in range(4):
                (*queued,) = await stores.query("SELECT uid FROM executions WHERE state = 'QUEUED'")
                await finish(stores, [each["uid"] for each in queued])
                seen |= {each["uid"] for each in queued}
                await stores.release()
            assert len(seen) == 8
            assert seen.issuperset(plain)

    run(scenario())


def test_what_is_not_yet_due_waits_for_a_slot_too_and_is_early_once_there_is_one(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url, limits=LIMITS) as stores:
            uids = [await stores.one_off(NOW + SECOND * n / 10, owner="a") for n in range(5)]
            assert set(await stores.released(SECOND)) == set(uids[:3])
            stores.clock.advance(0.05)
            await finish(stores, uids[:1])
            assert await stores.released(SECOND) == uids[3:4]

    run(scenario())


def test_every_owner_gets_its_turn_however_many_wait(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gating, "_HELD_OWNERS", gating._HELD_OWNERS.replace(f"< {gating.WALKED_OWNERS}", "< 2"))
    monkeypatch.setattr(gating, "WALKED_OWNERS", 2)

    async def scenario() -> None:
        async with open_stores(database_url, limits=GateLimits(owner_running=1)) as stores:
            both = [await due(stores, 2, owner=f"o{n}") for n in range(7)]
            first = await stores.released()
            assert sorted(first) == sorted(uids[0] for uids in both)
            await finish(stores, first)
            rest: list[UUID] = []
            for _ in range(5):
                rest += await stores.released()
            assert sorted(rest) == sorted(uids[1] for uids in both)

    run(scenario())


def test_a_round_that_never_committed_leaves_no_slot_taken(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url, limits=LIMITS) as stores:
            mine = await due(stores, 5, owner="a")

            async def broken(*_: object) -> int:
                raise ConnectionError("the process is gone")

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(gating.Gates, "close", broken)
                with pytest.raises(ConnectionError):
                    await stores.release()
            assert set(await stores.released()) == set(mine[:3])

    run(scenario())


# --- targets and rates ------------------------------------------------------------------------------------------------


def test_a_method_runs_so_many_at_once_and_its_backlog_keeps_nobody(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url, limits=LIMITS) as stores:
            clean = [uid for n in range(6) for uid in await due(stores, 1, owner=f"o{n}", **OTHER)]
            other = await due(stores, 2, owner="x", queue=Queue.LOW)
            assert set(await stores.released()) == {*clean[:2], *other}
            assert await held(stores, *clean[2:]) == [f"TARGET:{CLEAN}"] * 4
            assert await stores.released() == []
            await finish(stores, clean[:1])
            assert await stores.released() == clean[2:3]

    run(scenario())


def test_a_rate_lets_a_seconds_worth_go_and_then_its_pace(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url, limits=GateLimits(owner_running=100, rates={MESSAGING: 4.0})) as stores:
            uids = await due(stores, 12)
            later = await stores.one_off(NOW + SECOND / 2)
            assert set(await stores.released(SECOND)) == set(uids[:4])
            assert await stores.released(SECOND) == []
            assert set(await held(stores, *uids[4:])) == {f"RATE:{MESSAGING}"}
            stores.clock.advance(0.25)
            assert await stores.released(SECOND) == uids[4:5]
            stores.clock.advance(10)
            # What was not used does not add up beyond a second.
            assert set(await stores.released(SECOND)) == set(uids[5:9])
            stores.clock.advance(1)
            assert set(await stores.released(SECOND)) == {*uids[9:12], later}

    run(scenario())


def test_a_limit_that_was_taken_away_holds_nothing(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url, limits=LIMITS) as stores:
            clean = await due(stores, 3, owner="us", **OTHER)
            assert set(await stores.released()) == set(clean[:2])
        async with open_stores(database_url) as stores:
            assert await stores.released() == clean[2:]

    run(scenario())


# --- pauses -----------------------------------------------------------------------------------------------------------

PAUSES = [(Scope.SERVICE, ""), (Scope.QUEUE, "LOW"), (Scope.TARGET, CLEAN), (Scope.TARGET, MEDIA)]


@pytest.mark.parametrize(("scope", "name"), PAUSES)
def test_a_pause_gives_back_what_is_queued_holds_what_comes_and_skips_nothing(
    database_url: str, scope: Scope, name: str
) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            running, *queued = await due(stores, 3, **OTHER)
            await stores.release()
            (claim,) = await stores.claim(await stores.worker(), running)
            await stores.controls.pause(scope, name, "operator", "why")
            assert await held(stores, *queued) == [scope.held_by(name)] * 2
            later = await due(stores, 2, **OTHER)
            firing = await stores.recurring(**OTHER)
            stores.clock.advance(timedelta(minutes=5))
            await stores.advance()
            assert await stores.released() == []
            assert set(await held(stores, *queued, *later)) == {scope.held_by(name)}
            # What runs goes on.
            assert await stores.record(claim)
            (pause,) = await stores.controls.pauses()
            assert (pause.principal, pause.note, pause.time) == ("operator", "why", NOW)
            await stores.controls.resume(scope, name)
            released = await stores.released()
            assert set(released) >= {*queued, *later}
            plans = await stores.query("SELECT uid, state FROM executions WHERE job_uid = %s", firing.uid)
            assert any(row["uid"] in released for row in plans)
            skipped = await stores.query("SELECT FROM execution_history WHERE state = 'SKIPPED'")
            assert len(skipped) == 0

    run(scenario())


def test_pausing_twice_keeps_the_first_and_resuming_twice_changes_nothing(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            for principal in ("first", "second"):
                await stores.controls.pause(Scope.QUEUE, "HIGH", principal, "")
            assert [pause.principal for pause in await stores.controls.pauses()] == ["first"]
            for _ in range(2):
                await stores.controls.resume(Scope.QUEUE, "HIGH")
            assert await stores.controls.pauses() == []

    run(scenario())


def test_a_pause_of_one_queue_or_target_leaves_the_others_alone(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            await stores.controls.pause(Scope.QUEUE, "LOW", "o", "")
            await due(stores, 2, **OTHER)
            high = await due(stores, 2)
            assert set(await stores.released()) == set(high)

    run(scenario())


def test_what_a_release_under_way_lets_go_while_a_pause_begins_is_taken_back_by_the_next(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            uids = await due(stores, 2)
            await stores.controls.pause(Scope.SERVICE, "", "o", "")
            await stores.query("UPDATE executions SET state = 'QUEUED', queue_time = %s", NOW)
            assert (await stores.releasing.look_ahead()).held
            assert await stores.released() == []
            assert [await stores.state(uid) for uid in uids] == [State.PENDING] * 2

    run(scenario())


def test_what_waits_for_a_pause_expires_like_anything_that_waits(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            (uid,) = await due(stores, 1)
            await stores.controls.pause(Scope.SERVICE, "", "o", "")
            await stores.release()
            stores.clock.advance(timedelta(days=8))
            await stores.release()
            row = await stores.row(uid)
            assert (row["state"], row["reason"]) == ("FAILED", "EXPIRED")

    run(scenario())


def test_a_paused_service_gets_no_probe(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            await stores.query(
                "INSERT INTO breakers (service, state, probes, probe_time) VALUES (%s, 'OPEN', 1, %s)", MESSAGING, NOW
            )
            uids = await due(stores, 2)
            await stores.release()
            await stores.controls.pause(Scope.TARGET, SEND, "o", "")
            for _ in range(2):
                assert await stores.released() == []
            await stores.controls.resume(Scope.TARGET, SEND)
            assert await stores.released() == uids[:1]

    run(scenario())


def test_no_two_targets_share_a_lane(database_url: str) -> None:
    async def scenario() -> None:
        from scheduling.delivery.targets import ROWS

        async with open_stores(database_url) as stores:
            methods = [row.method for row in ROWS]
            (found,) = await stores.query(
                "SELECT count(DISTINCT hashtext(m)) AS n FROM unnest(%s::text[]) AS m", methods
            )
            assert found["n"] == len(methods)

    run(scenario())


def test_what_is_due_for_others_does_not_wait_for_a_flood(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url, batch=8) as stores:
            flood = await due(stores, 40)
            stores.clock.advance(1)
            other = await stores.one_off(NOW + SECOND / 2, **{**OTHER, "queue": Queue.HIGH})
            first = await stores.release()
            assert first.more
            assert {uid for uid, _ in first.by_queue[Queue.HIGH]} >= {other}
            rest = [uid for _ in range(8) for uid in await stores.released()]
            assert len(rest) + first.count == len(flood) + 1

    run(scenario())


def test_methods_of_one_service_share_its_rate(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url, limits=GateLimits(owner_running=100, rates={MESSAGING: 4.0})) as stores:
            for method in ("ExpireChats", "CloseInactiveSessions", "ReprocessMessages"):
                await due(stores, 12, target=f"{MESSAGING}/{method}", queue=Queue.MEDIUM)
            for _ in range(3):
                # What one method leaves over, another has in the next round.
                assert len([*await stores.released(), *await stores.released()]) == 4
                assert await stores.released() == []
                stores.clock.advance(1)

    run(scenario())


def test_a_job_that_moves_out_of_a_paused_queue_waits_for_it_no_more(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            (job,) = await stores.create(new_job(NOW, schedule=(schedule := once(NOW))))
            await stores.controls.pause(Scope.QUEUE, "HIGH", "o", "")
            assert await stores.released() == []
            assert await held(stores, schedule.plan_uid) == ["QUEUE_PAUSED:HIGH"]
            stored = await stores.store.get_job(job.job_id, with_payload=True)
            assert stored is not None
            assert await stores.store.update_job(stored, JobChange(queue=Queue.LOW)) is not None
            assert await stores.released() == [schedule.plan_uid]

    run(scenario())


def test_what_waits_for_its_job_and_a_pause_keeps_no_other_job_waiting(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url, batch=4) as stores:
            buffered = await due(stores, 3, overlap=OverlapPolicy.BUFFER_ONE)
            await stores.query("UPDATE executions SET held_by = 'OVERLAP' WHERE uid = ANY(%s)", buffered)
            await stores.controls.pause(Scope.TARGET, SEND, "o", "")
            target = f"{MESSAGING}/ReprocessMessages"
            other = await due(stores, 1, overlap=OverlapPolicy.BUFFER_ONE, target=target)
            assert await stores.released() == other

    run(scenario())
