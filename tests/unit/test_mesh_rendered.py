"""What the chart renders for the mesh, read as a sidecar would: who may call, what is repeated, what is bounded."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from helm.rendering import CHART, documents, render, values_of
from scheduling.delivery.targets import TargetTable
from tests.support.mesh import istio
from tests.support.mesh.istio import GROUPS, Mesh, Mode, Workload
from tests.support.mesh.room import API, API_HOST, METRICS_PORT, PORT, WORKER, host_of, rendered, sibling
from tests.support.mesh.traffic import DEFAULT_RETRIES, Route

ISTIO = Path(__file__).resolve().parents[2] / "istio"
ENVIRONMENTS = sorted(path.stem.removeprefix("values-") for path in CHART.glob("values-*.yaml"))
CALLER = sibling("messaging")


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    """The mesh as the chart makes it."""
    return istio.read(rendered())


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_resources_of_every_environment_are_understood_to_the_last_field(environment: str) -> None:
    found = documents(render(values_of(environment)))
    istio.read([each for each in found if each["apiVersion"].partition("/")[0] in GROUPS])


@pytest.mark.parametrize(
    "values",
    [
        {"prometheus": {"mtls": False}},
        {"rateLimit": {"enabled": False}, "telemetry": {"enabled": False}, "transcoder": {"enabled": False}},
        {"siblingPolicies": {"enabled": False}, "strictNamespace": False},
        {"telemetry": {"accessLogFilter": "response.code >= 400", "tracingProvider": "otlp"}},
    ],
    ids=str,
)
def test_the_resources_of_every_switch_are_understood_to_the_last_field(values: dict[str, object]) -> None:
    istio.read(rendered(**values))


def test_the_plain_manifests_are_understood_to_the_last_field() -> None:
    found = [each for path in sorted(ISTIO.glob("*.yaml")) for each in yaml.safe_load_all(path.read_text()) if each]
    assert istio.read(found).mode(API, PORT) is Mode.STRICT


def test_every_target_is_called_with_bounds_and_without_the_meshs_own_retries(mesh: Mesh, targets: TargetTable) -> None:
    for service in targets.services:
        host = host_of(service.partition(".")[0])
        for route in mesh.routes(host, WORKER)[:1]:
            assert "retry_policy" not in route.action
            assert route.match == {"prefix": "/"}
        policy = mesh.traffic_policy(host, PORT, WORKER)
        assert policy.tls == "ISTIO_MUTUAL"
        (bounds,) = policy.cluster["circuit_breakers"]["thresholds"]
        assert (bounds["max_connections"], bounds["max_pending_requests"]) == (50, 100)
        outliers = policy.cluster["outlier_detection"]
        assert (outliers["consecutive_5xx"], outliers["interval"], outliers["base_ejection_time"]) == (3, "30s", "30s")


def test_no_target_times_out_in_the_mesh_before_its_own_deadline(mesh: Mesh, targets: TargetTable) -> None:
    for target in targets:
        route = mesh.routes(host_of(target.service.partition(".")[0]), WORKER)[0]
        assert float(route.action["timeout"].removesuffix("s")) > target.timeout.total_seconds()


def test_other_callers_of_a_sibling_keep_what_they_had(mesh: Mesh) -> None:
    other = Workload("user-service", {"app": "user-service"})
    (route,) = mesh.routes(host_of("messaging"), other)
    assert route.action["retry_policy"] == DEFAULT_RETRIES
    assert "outlier_detection" not in mesh.traffic_policy(host_of("messaging"), PORT, other).cluster


def _route_for(mesh: Mesh, path: str, *headers: str) -> Route:
    """The first route that takes a call to this path with these headers."""
    for route in mesh.routes(API_HOST, CALLER):
        prefix, exact = route.match.get("prefix"), route.match.get("path")
        # Routes for a certain method of HTTP are those of JSON.
        named = {each["name"] for each in route.match.get("headers", ())}
        if named <= set(headers) and (path == exact or (prefix is not None and path.startswith(prefix))):
            return route
    raise AssertionError(f"no route for {path}")


@pytest.mark.parametrize("method", ["GetJob", "ListJobs", "PreviewSchedule", "ListExecutions", "GetExecution"])
def test_reads_are_repeated_by_the_callers_sidecar(mesh: Mesh, method: str) -> None:
    route = _route_for(mesh, f"/whispr.scheduling.v1.SchedulingService/{method}")
    assert route.action["retry_policy"]["num_retries"] == 2


@pytest.mark.parametrize("method", ["CreateJob", "CancelJob", "RunJob", "UpdateJob", "DeleteJob", "WatchExecutions"])
def test_changes_are_not_repeated(mesh: Mesh, method: str) -> None:
    route = _route_for(mesh, f"/whispr.scheduling.v1.SchedulingService/{method}")
    assert "retry_policy" not in route.action


def test_a_watch_may_last(mesh: Mesh) -> None:
    route = _route_for(mesh, "/whispr.scheduling.v1.SchedulingService/WatchExecutions")
    assert route.action["timeout"] == "0s"


def test_a_creation_that_can_be_repeated_without_harm_is(mesh: Mesh) -> None:
    route = _route_for(mesh, "/whispr.scheduling.v1.SchedulingService/CreateJob", "idempotency-key")
    assert route.action["retry_policy"]["num_retries"] == 2


def test_metrics_take_plaintext_only_where_the_chart_is_told_so(mesh: Mesh) -> None:
    assert mesh.mode(API, METRICS_PORT) is Mode.STRICT
    plain = istio.read(rendered(prometheus={"mtls": False}))
    assert plain.mode(API, METRICS_PORT) is Mode.PERMISSIVE
    assert plain.mode(API, PORT) is Mode.STRICT


def test_every_sibling_and_we_ourselves_refuse_whom_nobody_names(mesh: Mesh, targets: TargetTable) -> None:
    for workload in (API, WORKER, *(sibling(service.partition(".")[0]) for service in targets.services)):
        assert mesh.authorizes(workload)
