"""The brakes of one process: what it begins no more calls of, and until when."""

from __future__ import annotations

from scheduling.delivery.brakes import Brakes
from scheduling.domain.breaker import OPEN_AFTER

SERVICE = "messaging.MessagingService"


def failing(count: int = OPEN_AFTER) -> Brakes:
    brakes = Brakes()
    for _ in range(count):
        brakes.saw(SERVICE, 1.0, is_down=True)
    return brakes


def test_a_service_is_called_until_it_has_failed_so_many_times_in_a_row() -> None:
    assert not failing(OPEN_AFTER - 1).stops(SERVICE, 2.0)
    assert failing().stops(SERVICE, 2.0)
    assert not failing().stops("media.MediaService", 2.0)


def test_one_success_lets_go() -> None:
    brakes = failing()
    brakes.saw(SERVICE, 1.0, is_down=False)
    assert not brakes.stops(SERVICE, 1.0)


def test_what_is_claimed_after_the_breakers_were_told_is_theirs_to_judge() -> None:
    brakes = failing()
    brakes.told([SERVICE], 5.0)
    assert brakes.stops(SERVICE, 4.9)
    assert not brakes.stops(SERVICE, 5.0)


def test_answers_to_calls_that_began_before_stop_no_probe() -> None:
    brakes = failing()
    brakes.told([SERVICE], 5.0)
    for _ in range(3 * OPEN_AFTER):
        brakes.saw(SERVICE, 4.0, is_down=True)
    assert not brakes.stops(SERVICE, 6.0)
    for _ in range(OPEN_AFTER):
        brakes.saw(SERVICE, 6.0, is_down=True)
    assert brakes.stops(SERVICE, 7.0)


def test_a_service_is_untold_from_its_failures_until_the_breakers_have_heard() -> None:
    brakes = failing(OPEN_AFTER - 1)
    assert brakes.untold == []
    brakes.saw(SERVICE, 1.0, is_down=True)
    assert brakes.untold == [SERVICE]
    brakes.told([SERVICE], 5.0)
    assert brakes.untold == []
