"""Carries the code over into the chart and the chart into `istio/`: `python helm/generate.py [--check]`.

From the target table and the access policy it writes `files/mesh.yaml` of the chart; then it renders the production
values and writes the mesh's resources to `istio/`, for those who install without Helm. With `--check` nothing is
written; the exit code is 1 when something differs.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from helm.rendering import CHART, render, values_of
from scheduling.app import rpc_method_names
from scheduling.delivery.targets import ROWS, module_of
from scheduling.domain.policy import Globs
from scheduling.operations.policy_file import parse_policy

ROOT: Final = Path(__file__).resolve().parent.parent
POLICY: Final = ROOT / "docs" / "policy.toml"
ISTIO: Final = ROOT / "istio"
PACKAGE: Final = "whispr.scheduling.v1."
SCHEDULING: Final = f"{PACKAGE}SchedulingService"
OPERATIONS: Final = f"{PACKAGE}OperationsService"
SERVICES: Final = (SCHEDULING, OPERATIONS)

#: Who speaks HTTP to us, for others: it gets the REST paths on top, and the policy decides behind the transcoder.
GATEWAY: Final = "/sa/api-gateway"
REST: Final = "/api/v1/*"
#: RPCs that change nothing and those that stream, by the beginnings of their names.
READS: Final = ("Get", "List", "Preview")
STREAMS: Final = ("Watch",)
#: Creations that a request_id makes safe to repeat.
CREATIONS: Final = ("CreateJob", "BatchCreateJobs", "ScheduleJob", "RunJob", "BackfillSchedule")
HEALTH: Final = ("/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch")
#: For those who may call every RPC.
TOOLS: Final = ("/grpc.reflection.*", "/grpc.channelz.*")
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
        "callers": callers(),
        "reads": [f"{service}/{word}" for service in SERVICES for word in READS],
        "creations": [f"{SCHEDULING}/{name}" for name in CREATIONS],
        "streams": [f"{service}/{word}" for service in SERVICES for word in STREAMS],
    }


def callers() -> list[dict[str, Any]]:
    """Who may call which paths by the access policy: the principals with the same RPCs stand together.

    Which jobs, targets and owners they may touch is not the mesh's to see; the service asks the policy for that.
    """
    for name in SERVICES:
        importlib.import_module(module_of(name))
    rpcs = [name.removeprefix(PACKAGE) for name in rpc_method_names(SERVICES)]
    policy = parse_policy(POLICY.read_text(), rpcs, [row.method for row in ROWS])
    patterns: dict[str, set[str]] = {}
    for grant in policy.grants:
        for principal in grant.principals or ["spiffe://*"]:
            patterns.setdefault(principal.removeprefix("spiffe://"), set()).update(grant.rpcs.patterns)
    groups: dict[tuple[str, ...], list[str]] = {}
    for principal, granted in sorted(patterns.items()):
        paths = {path for pattern in granted for path in _paths(pattern, rpcs)}
        if "*" in granted:
            paths = {f"/{name}/*" for name in SERVICES}.union(TOOLS)
        rest = [REST] if principal.endswith(GATEWAY) else []
        groups.setdefault((*sorted(paths), *rest, *HEALTH), []).append(principal)
    return [{"principals": principals, "paths": list(paths)} for paths, principals in groups.items()]


def _paths(pattern: str, rpcs: Iterable[str]) -> Iterator[str]:
    """Paths of a pattern of RPCs. Istio knows a star at the end only; another one is written out."""
    whole = [pattern] if "/" in pattern else [f"{name.removeprefix(PACKAGE)}/{pattern}" for name in SERVICES]
    for each in whole:
        found = [rpc for rpc in rpcs if rpc in Globs((each,))]
        if found:
            yield from (f"/{PACKAGE}{one}" for one in (found if "*" in each[:-1] else [each]))


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
        documents = [one for one in yaml.safe_load_all(text) if one] if folder.endswith("/istio") else []
        if documents:
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
