"""A short run of the generated requests: never INTERNAL or UNKNOWN, never a stored half."""

from __future__ import annotations

from pathlib import Path
from secrets import randbits

from tests.fuzz.run import fuzz
from tests.support.service import tell


def test_generated_requests_get_the_right_codes_and_leave_nothing_half_done(
    tmp_path: Path, database_url: str, redis_url: str, environment: str
) -> None:
    seed = randbits(32)
    report = fuzz(tmp_path, database_url, redis_url, environment, count=1500, seed=seed)
    tell(f"fuzz: seed {seed}, {dict(report.tally.codes)}, {report.seconds:.0f} s")
    assert report.problems == [], f"seed {seed}"
    assert report.tally.codes["OK"] > report.tally.count / 10
    assert report.tally.codes["INVALID_ARGUMENT"] > report.tally.count / 10
