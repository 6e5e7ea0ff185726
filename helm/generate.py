"""Carries the code over into the chart and the chart into `istio/`: `python helm/generate.py [--check]`.

From the target table and the caller grants it writes `files/mesh.yaml` of the chart; then it renders the production
values and writes the mesh's resources to `istio/`, for those who install without Helm. With `--check` nothing is
written; the exit code is 1 when something differs.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from helm.rendering import CHART, render, values_of
from scheduling.delivery.targets import ROWS

ROOT: Final = Path(__file__).resolve().parent.parent
ISTIO: Final = ROOT / "istio"
SCHEDULING: Final = "whispr.scheduling.v1.SchedulingService"
OPERATIONS: Final = "whispr.scheduling.v1.OperationsService"
SERVICES: Final = (SCHEDULING, OPERATIONS)

#: What siblings call. Whatever is not named here, a new RPC too, is for operators only.
SIBLING_RPCS: Final = (
    "GetJob", "ListJobs", "CreateJob", "BatchCreateJobs", "UpdateJob", "DeleteJob", "CancelJob", "RunJob",
    "GetSchedule", "ListSchedules", "ScheduleJob", "UpdateSchedule", "DeleteSchedule", "PauseSchedule",
    "ResumeSchedule", "BackfillSchedule", "GetBackfill", "CancelBackfill", "PreviewSchedule", "GetCalendar",
    "ListCalendars", "GetExecution", "ListExecutions", "CancelExecution", "WatchExecutions",
)  # fmt: skip
#: RPCs that change nothing and those that stream, by the beginnings of their names.
READS: Final = ("Get", "List", "Preview")
STREAMS: Final = ("Watch",)
#: Creations that a request_id makes safe to repeat.
CREATIONS: Final = ("CreateJob", "BatchCreateJobs", "ScheduleJob", "RunJob", "BackfillSchedule")
HEALTH: Final = ("/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch")
HEADER: Final = "# Made by helm/generate.py; change what it is made from and run `make generate`.\n"


def mesh() -> dict[str, Any]:
    """What the chart's mesh resources are made of: siblings with their methods, callers with their RPCs."""
    siblings: dict[str, dict[str, Any]] = {}
    for row in sorted(ROWS, key=lambda row: row.method):
        sibling = siblings.setdefault(row.method.partition(".")[0], {"timeout": 0, "methods": []})
        sibling["methods"].append(row.method)
        sibling["timeout"] = max(sibling["timeout"], row.timeout)
    return {
        "services": list(SERVICES),
        "siblings": siblings,
        "callers": [
            {
                "name": "siblings",
                "accounts": [f"{name}-service" for name in siblings],
                "methods": ["POST"],
                "paths": [*(f"/{SCHEDULING}/{name}" for name in SIBLING_RPCS), f"/{OPERATIONS}/ListTargets", *HEALTH],
            },
            {"name": "api-gateway", "accounts": ["api-gateway"], "paths": ["/api/v1/*"]},
            {
                "name": "operators",
                "accounts": ["scheduling-operator"],
                "methods": ["POST"],
                "paths": [*(f"/{name}/*" for name in SERVICES), "/grpc.reflection.*", "/grpc.channelz.*", *HEALTH],
            },
        ],
        "reads": [f"{service}/{word}" for service in SERVICES for word in READS],
        "creations": [f"{SCHEDULING}/{name}" for name in CREATIONS],
        "streams": [f"{service}/{word}" for service in SERVICES for word in STREAMS],
    }


def chart_files() -> dict[Path, bytes]:
    """The file of the chart that is made from the code."""
    text = HEADER + yaml.safe_dump(mesh(), sort_keys=False, width=1000)
    return {CHART / "files" / "mesh.yaml": text.encode()}


def istio_files() -> dict[Path, bytes]:
    """The mesh's resources of the production values, one file for each template."""
    rendered: Mapping[str, str] = render(values_of("production"))
    made: dict[Path, bytes] = {}
    for template, text in rendered.items():
        folder, _, name = template.rpartition("/")
        documents = [document for document in yaml.safe_load_all(text) if document]
        if folder.endswith("/istio") and documents:
            made[ISTIO / name] = (HEADER + yaml.safe_dump_all(documents, sort_keys=False, width=1000)).encode()
    return made


def main(arguments: list[str]) -> int:
    """Writes, or compares with `--check`; the exit code is the answer."""
    check = "--check" in arguments
    stale = _written(chart_files(), check=check)
    wanted = istio_files()
    stale += _written(wanted, check=check)
    for path in set(ISTIO.glob("*.yaml")) - set(wanted):
        stale.append(path)
        if not check:
            path.unlink()
    for path in stale if check else ():
        sys.stdout.write(f"{path.relative_to(ROOT)} is out of date: run `make generate`\n")
    return 1 if stale and check else 0


def _written(files: Mapping[Path, bytes], *, check: bool) -> list[Path]:
    stale = [path for path, content in files.items() if not path.exists() or path.read_bytes() != content]
    for path in () if check else stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files[path])
    return stale


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
