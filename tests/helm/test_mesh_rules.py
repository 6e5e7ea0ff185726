"""The mesh's rules follow the target table and the contracts, in both directions."""

from __future__ import annotations

import fnmatch
import importlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from helm.generate import PACKAGE, POLICY, ROOT, SERVICES, main
from helm.rendering import documents, render, values_of
from scheduling.app import rpc_method_names
from scheduling.delivery.targets import ROWS, module_of
from scheduling.operations.policy_file import parse_policy
from tests.helm.crds import Resource

WORKER = "cluster.local/ns/whispr/sa/scheduling-worker"
#: Beginnings of what acts on others' jobs or on the service as a whole.
OPERATORS_ONLY = (
    "Erase",
    "PauseQueue",
    "PauseService",
    "PauseTarget",
    "ResumeQueue",
    "ResumeService",
    "Restore",
    "CreateCalendar",
)


@pytest.fixture(scope="module")
def production() -> list[Resource]:
    """Every resource of production."""
    return documents(render(values_of("production")))


def of_kind(resources: list[Resource], kind: str) -> Iterator[Resource]:
    """The resources of a kind."""
    return (one for one in resources if one["kind"] == kind)


def named(resources: list[Resource], kind: str, name: str) -> Any:
    """The spec of one resource."""
    (found,) = [one for one in of_kind(resources, kind) if one["metadata"]["name"] == name]
    return found["spec"]


def calls_of(resources: list[Resource]) -> dict[str, set[str]]:
    """The paths that the workers may call, by the label of the sibling's pods."""
    found: dict[str, set[str]] = {}
    for policy in of_kind(resources, "AuthorizationPolicy"):
        for rule in policy["spec"].get("rules", []):
            principals = [one for source in rule.get("from", []) for one in source["source"]["principals"]]
            if WORKER in principals:
                assert principals == [WORKER]
                (app,) = policy["spec"]["selector"]["matchLabels"].values()
                paths = [path for to in rule["to"] for path in to["operation"]["paths"]]
                found.setdefault(app, set()).update(paths)
    return found


def test_each_target_has_its_policy_and_each_policy_its_targets(production: list[Resource]) -> None:
    table: dict[str, set[str]] = {}
    for row in ROWS:
        table.setdefault(f"{row.method.partition('.')[0]}-service", set()).add(f"/{row.method}")
    assert calls_of(production) == table


def test_each_sibling_has_a_destination_rule_and_a_virtual_service(production: list[Resource]) -> None:
    hosts = {f"{row.method.partition('.')[0]}-service.whispr.svc.cluster.local" for row in ROWS}
    ours = "scheduling-service.whispr.svc.cluster.local"
    assert {one["spec"]["host"] for one in of_kind(production, "DestinationRule")} == hosts | {ours}
    assert {host for one in of_kind(production, "VirtualService") for host in one["spec"]["hosts"]} == hosts | {ours}


def test_who_and_what_always_stand_in_one_rule(production: list[Resource]) -> None:
    rules = [rule for one in of_kind(production, "AuthorizationPolicy") for rule in one["spec"].get("rules", [])]
    assert rules
    for rule in rules:
        assert rule["from"]
        assert rule["to"]
        for source in rule["from"]:
            assert source["source"]["principals"]
        for to in rule["to"]:
            assert to["operation"]["ports"]
            assert all(path.startswith("/") and path != "/*" for path in to["operation"]["paths"])


def test_what_no_policy_allows_is_denied_at_every_workload_of_ours(production: list[Resource]) -> None:
    (spec,) = [one["spec"] for one in of_kind(production, "AuthorizationPolicy") if "rules" not in one["spec"]]
    assert spec["action"] == "ALLOW"
    assert "app.kubernetes.io/component" not in spec["selector"]["matchLabels"]


def allowed(resources: list[Resource], principal: str, path: str) -> bool:
    """Whether the mesh lets a principal call a path of the API."""
    for rule in named(resources, "AuthorizationPolicy", "scheduling-api")["rules"]:
        principals = [one for source in rule["from"] for one in source["source"]["principals"]]
        paths = [one for to in rule["to"] for one in to["operation"]["paths"]]
        if principal in principals and any(fnmatch.fnmatchcase(path, one) for one in paths):
            return True
    return False


def test_the_mesh_lets_exactly_those_call_whom_the_policy_names(production: list[Resource]) -> None:
    for service in SERVICES:
        importlib.import_module(module_of(service))
    rpcs = [name.removeprefix(PACKAGE) for name in rpc_method_names(SERVICES)]
    policy = parse_policy(POLICY.read_text(), rpcs, [row.method for row in ROWS])
    principals = {principal for grant in policy.grants for principal in grant.principals or ()}
    assert len(principals) > len({row.method.partition(".")[0] for row in ROWS})
    for principal, rpc in itertools.product([*principals, "spiffe://cluster.local/ns/whispr/sa/nobody"], rpcs):
        named_there = any(
            principal in (grant.principals or ()) and (rpc in grant.rpcs or rpc.rpartition("/")[2] in grant.rpcs)
            for grant in policy.grants
        )
        path = f"/{PACKAGE}{rpc}"
        assert allowed(production, principal.removeprefix("spiffe://"), path) is named_there, (principal, rpc)


def test_siblings_and_the_gateway_get_nothing_that_is_for_operators(production: list[Resource]) -> None:
    for rule in named(production, "AuthorizationPolicy", "scheduling-api")["rules"]:
        if rule["from"][0]["source"]["principals"] != ["cluster.local/ns/whispr/sa/operator"]:
            paths = rule["to"][0]["operation"]["paths"]
            assert [path for path in paths if path.endswith("*")] in ([], ["/api/v1/*"])
            assert not [path for path in paths if path.rpartition("/")[2].startswith(OPERATORS_ONLY)]
            assert not [path for path in paths if "reflection" in path or "channelz" in path]


def test_the_gateway_and_nobody_else_may_call_the_rest_paths(production: list[Resource]) -> None:
    assert allowed(production, "cluster.local/ns/whispr/sa/api-gateway", "/api/v1/jobs")
    assert not allowed(production, "cluster.local/ns/whispr/sa/messaging-service", "/api/v1/jobs")


def test_the_mesh_never_repeats_a_call_to_a_target_nor_cuts_it_short(production: list[Resource]) -> None:
    siblings = [one for one in of_kind(production, "VirtualService") if "-to-" in one["metadata"]["name"]]
    assert len(siblings) == len({row.method.partition(".")[0] for row in ROWS})
    for one in siblings:
        first, others = one["spec"]["http"]
        assert first["retries"] == {"attempts": 0}
        assert int(first["timeout"].removesuffix("s")) > max(30 * 60, *(row.timeout for row in ROWS))
        assert all(match["sourceLabels"]["app.kubernetes.io/component"] == "worker" for match in first["match"])
        assert set(others) == {"name", "route"}


def test_towards_us_only_reads_and_creations_marked_as_repeatable_are_repeated(production: list[Resource]) -> None:
    for route in named(production, "VirtualService", "scheduling-api")["http"]:
        if route["retries"]["attempts"]:
            for match in route["match"]:
                name = match["uri"].get("prefix", "").rpartition("/")[2]
                reads = name in {"Get", "List", "Preview"} or match.get("method") == {"exact": "GET"}
                assert reads or match["headers"] == {"idempotency-key": {"regex": ".+"}}


def test_pools_and_ejection_are_what_is_required(production: list[Resource]) -> None:
    for one in of_kind(production, "DestinationRule"):
        policy = one["spec"]["trafficPolicy"]
        assert policy["tls"] == {"mode": "ISTIO_MUTUAL"}
        assert policy["connectionPool"]["tcp"]["maxConnections"] == 50
        assert policy["connectionPool"]["http"]["http1MaxPendingRequests"] == 100
        ejection = policy["outlierDetection"]
        assert (ejection["consecutive5xxErrors"], ejection["interval"], ejection["baseEjectionTime"]) == (
            3,
            "30s",
            "30s",
        )


def test_what_is_made_from_the_code_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"]) == 0, capsys.readouterr().out


def test_the_plain_manifests_are_the_rendered_ones(production: list[Resource]) -> None:
    plain = [
        one for path in sorted(Path(ROOT / "istio").glob("*.yaml")) for one in yaml.safe_load_all(path.read_text())
    ]
    groups = ("networking.istio.io", "security.istio.io", "telemetry.istio.io")
    rendered = [one for one in production if one["apiVersion"].startswith(groups)]
    assert len(plain) == len(rendered)
    assert all(one in rendered for one in plain)
