"""The checker of the chaos suite finds what is wrong: each kind of problem, made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from whispr.scheduling.v1 import scheduling_service_pb2

from tests.chaos.check import Call, Evidence, Execution, check
from tests.chaos.mix import Item
from tests.chaos.stage import Cut

LOST, OK, UNAVAILABLE = (14, "LEASE_LOST"), (0, ""), (14, "")


def item(name: str = "send-1", due: float = 100.0) -> Item:
    return Item(name, scheduling_service_pb2.CreateJobRequest(), due)


EXECUTION = Execution("key-1", "send-1", 100.0, 100.0, 97.0, "SUCCEEDED", "", 6)
CALL = Call("key-1", 1, 100.01, 100.02, "OK", "jobs/send-1", "100", "a.B/C")
SOUND = Evidence({"send-1": "jobs/send-1"}, {"send-1": item()}, [EXECUTION], [CALL], [], "", 200.0, 200.0)


def test_a_sound_run_has_no_problems() -> None:
    found = check(SOUND)
    assert found.problems == []
    assert found.counts["accepted"] == found.counts["calls"] == 1
    assert found.times["recovery"] == 0


def test_calls_that_a_kill_cut_off_may_be_repeated_and_tell_the_recovery() -> None:
    cut = replace(CALL, code="CANCELLED", received=199.0, end=200.0)
    again = replace(CALL, attempt=2, received=206.5, end=206.6)
    execution = replace(EXECUTION, attempts={1: LOST, 2: OK})
    found = check(replace(SOUND, executions=[execution], calls=[cut, again], cuts=[Cut(200.0, 200.0, "kill")]))
    assert found.problems == []
    assert found.counts["repeats"] == 1
    assert found.times["recovery"] == pytest.approx(6.5)


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        ("lost", replace(SOUND, executions=[], calls=[])),
        ("lost", replace(SOUND, executions=[replace(EXECUTION, nominal=101.0)])),
        ("lost", replace(SOUND, calls=[])),
        ("lost", replace(SOUND, calls=[replace(CALL, code="CANCELLED")])),
        ("stuck", replace(SOUND, executions=[replace(EXECUTION, state="QUEUED")])),
        ("doubled", replace(SOUND, executions=[EXECUTION, replace(EXECUTION, uid="key-2")])),
        ("doubled", replace(SOUND, calls=[CALL, replace(CALL, key="key-2")])),
        (
            "overlapping",
            replace(
                SOUND,
                executions=[replace(EXECUTION, attempts={1: LOST})],
                calls=[replace(CALL, end=103.0), replace(CALL, attempt=2, received=102.0, end=102.1)],
            ),
        ),
        ("wrong repeats", replace(SOUND, calls=[CALL, replace(CALL, received=101.0, end=101.1)])),
        ("wrong repeats", replace(SOUND, calls=[CALL, replace(CALL, attempt=2, received=101.0, end=101.1)])),
        (
            "wrong repeats",
            replace(
                SOUND,
                executions=[replace(EXECUTION, attempts={1: OK})],
                calls=[CALL, replace(CALL, attempt=2, received=101.0, end=101.1)],
            ),
        ),
        (
            "wrong repeats",
            replace(
                SOUND,
                executions=[replace(EXECUTION, max_attempts=1, attempts={1: LOST})],
                calls=[CALL, replace(CALL, attempt=2, received=101.0, end=101.1)],
            ),
        ),
        ("failed without cause", replace(SOUND, executions=[replace(EXECUTION, state="FAILED", reason="PERMANENT")])),
        ("failed without cause", replace(SOUND, executions=[replace(EXECUTION, state="SKIPPED", reason="OVERLAP")])),
        ("verify", replace(SOUND, verify="1 one-offs lost")),
    ],
)
def test_what_is_wrong_is_found(kind: str, changed: Evidence) -> None:
    found = check(changed)
    assert found.counts[kind] >= 1
    assert any(problem.startswith(f"{kind}: ") for problem in found.problems)


def overlapping(name: str) -> Evidence:
    execution = replace(EXECUTION, item=name, attempts={1: LOST})
    calls = [replace(CALL, end=108.0), replace(CALL, attempt=2, received=107.0, end=107.1)]
    return Evidence({name: "jobs/x"}, {name: item(name)}, [execution], calls, [Cut(101.0, 121.0, "halt")], "", 99, 99)


def test_overlaps_of_calls_that_a_halt_left_behind_are_counted_apart() -> None:
    found = check(overlapping("long-1"))
    assert found.counts["overlapping"] == 0
    assert found.counts["overlapping_explained"] == 1


def test_what_waits_for_its_deadline_never_overlaps() -> None:
    assert check(overlapping("wait-1")).counts["overlapping"] == 1


def test_all_is_normal_when_what_was_late_has_started() -> None:
    executions = [replace(EXECUTION, uid=f"k{n}", item=f"send-{n}", nominal=n, due=n) for n in range(100, 130)]
    late = {n: 112.0 if 103 <= n < 112 else n + 0.01 for n in range(100, 130)}
    calls = [replace(CALL, key=f"k{n}", job=f"jobs/{n}", received=at, end=at) for n, at in late.items()]
    items = {f"send-{n}": item(f"send-{n}", n) for n in late}
    run = Evidence(dict.fromkeys(items, ""), items, executions, calls, [], "", 103.0, 110.0)
    found = check(run)
    assert found.problems == []
    assert found.times["recovery"] == pytest.approx(2.0)
    assert found.times["p99_during"] == pytest.approx(9.0)
    assert found.times["p99_after"] == pytest.approx(0.01)
