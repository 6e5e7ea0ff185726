"""`make fuzz`: generated requests over every method, and a report. Exit code 0 only when nothing was wrong."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from secrets import token_hex

from tests.fuzz.run import Report, fuzz
from tests.support.servers import databases, redis_server

#: Memory may grow by so much from the warm server to the end: the least of a tenth of the run, and by a single look.
FLAT, FLAT_AT_A_LOOK = 1.1, 1.15


def main() -> int:
    """Runs, prints and perhaps writes the report."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--requests", type=int, default=200_000, help="how many requests (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="repeats the choices of a run; by chance without it")
    parser.add_argument("--out", type=Path, help="a file for the report, as JSON")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else int(token_hex(4), 16)
    _say(f"{options.requests:,} requests, seed {seed}")
    with tempfile.TemporaryDirectory(prefix="scheduling-fuzz-") as folder, databases() as server:
        place = Path(folder)
        with redis_server(place) as redis_url:
            report = fuzz(
                place,
                server.migrated(),
                redis_url,
                f"fuzz-{token_hex(4)}",
                count=options.requests,
                seed=seed,
                told=_progress,
            )
    summary = {
        "requests": report.tally.count,
        "seed": seed,
        "seconds": round(report.seconds),
        "codes": dict(report.tally.codes.most_common()),
        "kinds": dict(report.tally.kinds.most_common()),
        "wrong": len(report.tally.wrong),
        "stored_halves": len(report.halves),
        "unanswered_for_60_s": len(report.tally.slow),
        "probes": len(report.tally.probes),
        "memory_mib": {f"{share:.0%}": round(report.memory_at(share)) for share in (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)},
        "growth_since_warm": round(report.growth, 3),
        "growth_at_the_last_look": round(report.growth_at_a_look, 3),
    }
    _say(json.dumps(summary, indent=2))
    if options.out is not None:
        options.out.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    for problem in sorted(set(report.problems))[:40]:
        _say(f"WRONG: {problem[:300]}")
    is_flat = report.growth <= FLAT and report.growth_at_a_look <= FLAT_AT_A_LOOK
    if not is_flat:
        _say(
            f"WRONG: memory grew to {report.growth:.2f} of that of the warm server, to {report.growth_at_a_look:.2f} "
            "at the last look"
        )
    return 1 if report.problems or not is_flat else 0


def _progress(report: Report) -> None:
    if round(report.tally.count) % 10 == 0 or report.tally.wrong:
        _say(
            f"{report.tally.count:>8,}  {report.seconds:6.0f} s  {report.memory[-1][1]:5.0f} MiB  "
            f"wrong {len(report.tally.wrong)}  {dict(report.tally.codes.most_common(5))}"
        )


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
