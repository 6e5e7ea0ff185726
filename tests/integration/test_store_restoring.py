"""After a restore: what may be called again is listed, and skipped only while the service is paused."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest
from click.testing import CliRunner

from scheduling.cli import main
from scheduling.domain.errors import WrongState
from scheduling.domain.ids import execution_id
from scheduling.domain.pause import Scope
from scheduling.storage.restoring import RestoringStore
from tests.support.clock import START, FlowingClock
from tests.support.run import run
from tests.support.stores import open_stores

NOW, FIRST = START, UUID(int=0)


def test_what_had_perhaps_been_called_is_listed_and_what_is_ahead_is_not(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            store = RestoringStore(stores.database)
            running, lives, queued = [await stores.one_off() for _ in range(3)]
            await stores.release()
            await stores.claim(await stores.worker(ttl=timedelta(seconds=1)), running)
            await stores.claim(await stores.worker(), lives)
            stores.clock.advance(2)
            due = await stores.one_off()
            await stores.one_off(NOW + timedelta(hours=1))
            found = await store.repeatable(NOW - timedelta(days=1), FIRST)
            # What a worker of now runs is no matter of the past.
            assert {each.uid: each.state for each in found} == {running: "RUNNING", queued: "QUEUED", due: "PENDING"}
            assert [each.uid for each in await store.repeatable(NOW + timedelta(seconds=1), FIRST)] == [due]

    run(scenario())


def test_what_is_skipped_ends_with_its_reason_and_the_rest_goes_on(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            store = RestoringStore(stores.database)
            job = await stores.recurring()
            stores.clock.advance(timedelta(minutes=1))
            gone, kept = [await stores.one_off() for _ in range(2)]
            (firing,) = await stores.query("SELECT uid FROM executions WHERE job_uid = %s", job.uid)
            with pytest.raises(WrongState):
                await store.skip([gone])
            await stores.controls.pause(Scope.SERVICE, "", "o", "")
            assert await store.skip([gone, firing["uid"]]) == 2
            assert await store.skip([gone]) == 0
            rows = await stores.query("SELECT uid, state, reason FROM execution_history")
            told = {row["uid"]: (row["state"], row["reason"]) for row in rows}
            assert told == dict.fromkeys((gone, firing["uid"]), ("SKIPPED", "RESTORED"))
            (schedule,) = await stores.query("SELECT skipped FROM schedules WHERE job_uid = %s", job.uid)
            assert schedule["skipped"] == {"RESTORED": 1}
            await stores.controls.resume(Scope.SERVICE, "")
            assert kept in await stores.released()

    run(scenario())


def test_the_commands_mark_list_and_skip(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def due() -> list[UUID]:
        async with open_stores(database_url, FlowingClock()) as stores:
            return [await stores.one_off() for _ in range(3)]

    uids = run(due())
    monkeypatch.setenv("SCHEDULING_DATABASE_URL", database_url)

    def said(*arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(main, ["restore", *arguments])
        assert result.exit_code == code, result.output
        return result.output

    assert "not paused" in said("skip", "--all", code=1)
    assert "paused" in said("mark")
    assert "3 executions may be called again" in said("list")
    verified = CliRunner().invoke(main, ["verify", "--since", "2020-01-01T00:00:00Z"]).output
    assert verified.count("may be sent again") == 3
    assert "0 executions may be called again" in said("list", "--since", "9999-01-01T00:00:00Z")
    assert "1 executions skipped" in said("skip", f"jobs/x/executions/{execution_id(uids[0])}")
    assert "2 executions skipped" in said("skip", "--all")
    assert "0 executions may be called again" in said("list")

    async def told() -> list[str]:
        async with open_stores(database_url) as stores:
            return [row["rpc"] for row in await stores.query("SELECT rpc FROM audit ORDER BY rpc")]

    assert run(told()) == ["scheduling restore mark", *["scheduling restore skip"] * 2]
    for bad in (["list", "--since", "yesterday"], ["skip", "nothing"], ["skip"], ["skip", "--all", "x"]):
        said(*bad, code=2)
