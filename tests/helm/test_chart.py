"""The chart under every values file and every switch: it renders, is valid, and its parts agree with each other."""

from __future__ import annotations

import itertools
import json
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml

from helm.rendering import CHART, documents, render, values_of
from scheduling import __version__
from scheduling.domain.target import Queue
from tests.helm import checks, schemas
from tests.helm.crds import ROOT, definitions, folder

ENVIRONMENTS = ("production", "staging", "development")
OFF: dict[str, Any] = {"enabled": False}
ON: dict[str, Any] = {"enabled": True}
#: What takes Istio away: then somebody has to say that it is meant.
NO_ISTIO: dict[str, Any] = {"istio": OFF, "api": {"exposedWithoutIdentity": True}}
SWITCHES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "without Istio": NO_ISTIO,
    "with Istio": {"istio": ON},
    "KEDA": {"worker": {"autoscaling": {"kind": "keda"}}},
    "HPA for workers": {"worker": {"autoscaling": {"kind": "hpa"}}},
    "workers not scaled": {"worker": {"autoscaling": {"kind": "none"}}},
    "API not scaled": {"api": {"autoscaling": OFF}},
    "API scaled": {"api": {"autoscaling": ON}},
    "without Prometheus operator": {"serviceMonitor": OFF},
    "with Prometheus operator": {"serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}}},
    "plaintext metrics": {"istio": {"prometheus": {"mtls": False}}},
    "without network policies": {"networkPolicy": OFF},
    "with network policies": {
        "networkPolicy": {
            "enabled": True,
            "callerNamespaces": ["gateways"],
            "extraEgress": [{"ports": [{"port": 4317, "protocol": "TCP"}]}],
        },
        "postgresql": {"peers": [{"ipBlock": {"cidr": "10.20.0.0/24"}}]},
        "redis": {"peers": [{"podSelector": {"matchLabels": {"app": "redis"}}}]},
    },
    "external secret": {"secrets": {"externalSecret": {"enabled": True, "store": {"name": "vault"}}}},
    "own secret": {"secrets": {"existingSecret": "ours", "externalSecret": OFF}},
    "own policy": {
        "policy": {"existingConfigMap": "own-policy"},
        "istio": {"callers": [{"principals": ["cluster.local/ns/a/sa/b"], "paths": ["/c.D/E"]}]},
    },
    "transcoder": {"istio": {"transcoder": ON}},
    "without rate limit": {"istio": {"rateLimit": OFF}},
    "without telemetry": {"istio": {"telemetry": OFF}},
    "tracing": {"istio": {"telemetry": {"tracingProvider": "otlp", "accessLogFilter": "response.code >= 400"}}},
    "without policies of siblings": {"istio": {"siblingPolicies": OFF}},
    "datastores through the mesh": {
        "istio": {"datastores": "serviceEntry"},
        "postgresql": {"host": "db.internal"},
        "redis": {"host": "cache.internal"},
    },
    "datastores in the mesh": {"istio": {"datastores": "mesh"}},
    "native sidecars": {"istio": {"nativeSidecar": True}},
    "without migration": {"migration": OFF},
    "a digest": {"image": {"digest": "sha256:" + "0" * 64}},
    "another port": {
        "ports": {"grpc": 8443},
        "siblings": {"port": 9000, "addresses": {"media": "media.other.svc:50051"}},
    },
    "a colour": {"shared": False},
    "what colours share": {"workloads": False, "api": {"service": {"instance": "scheduling-green"}}},
    "placed": {
        "nodeSelector": {"pool": "work"},
        "tolerations": [{"key": "work", "operator": "Exists", "effect": "NoSchedule"}],
        "priorityClassName": "high",
        "image": {"pullSecrets": [{"name": "registry"}]},
        "podLabels": {"team": "platform"},
        "podAnnotations": {"note": "theirs"},
        "spread": "DoNotSchedule",
    },
    "longer drains": {
        "settings": {"server_drain": "1500ms", "worker_drain": "5m"},
        "worker": {"settings": {"slots_low": 32, "worker_drain": "10m"}},
    },
}


def combined(*parts: dict[str, Any]) -> dict[str, Any]:
    """Values laid over each other, as Helm does it."""
    made: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            old = made.get(key)
            made[key] = combined(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return made


def cases() -> Iterator[Any]:
    """Every environment with Istio, autoscaler and operator in all combinations, and production under every switch."""
    for name, values in SWITCHES.items():
        yield pytest.param(combined(values_of("production"), values), id=f"production, {name}")
    mesh, scaler, operator = (
        ("without Istio", "with Istio"),
        ("KEDA", "HPA for workers", "workers not scaled"),
        ("without Prometheus operator", "with Prometheus operator"),
    )
    for environment in ENVIRONMENTS:
        yield pytest.param(values_of(environment), id=environment)
        for names in itertools.product(mesh, scaler, operator):
            values = combined(values_of(environment), *(SWITCHES[name] for name in names))
            yield pytest.param(values, id=f"{environment}, {', '.join(names)}")


@pytest.mark.parametrize("values", list(cases()))
def test_what_is_rendered_is_valid_and_agrees(values: dict[str, Any]) -> None:
    resources = documents(render(values))
    assert resources
    assert checks.problems(resources) == []
    found = [
        f"{checks.told(one)} in {version}: {problem}"
        for one in resources
        for version in schemas.VERSIONS
        for problem in schemas.problems(one, version)
    ]
    assert found == []


def test_the_custom_resources_of_the_chart_are_all_defined() -> None:
    if folder() is None:
        pytest.skip("no definitions of custom resources: SCHEDULING_TEST_CRDS is not set and there is no shared/crds")
    custom = [one for one in documents(render(values_of("staging"))) if schemas.is_custom(one)]
    kinds = {one["kind"] for one in custom if one in definitions()}
    assert {"DestinationRule", "AuthorizationPolicy", "ScaledObject", "ServiceMonitor", "EnvoyFilter"} <= kinds
    assert len(kinds) == len({one["kind"] for one in custom})


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_chart_passes_helms_own_lint(environment: str) -> None:
    found = helm_python.lint(str(CHART), values_of(environment), strict=True)
    assert found["errors"] == []


def test_chart_and_service_have_one_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert chart["version"] == chart["appVersion"] == project == __version__
    assert chart["kubeVersion"] == f">={schemas.VERSIONS[0]}.0-0"


REFUSED: dict[str, dict[str, Any]] = {
    "a value that is not there": {"apii": {}},
    "a misspelt field": {"istio": {"conections": 50}},
    "the tag latest": {"image": {"tag": "latest"}},
    "half a digest": {"image": {"digest": "sha256:abc"}},
    "a secret as a setting": {"settings": {"database_url": "postgresql://u:p@db/x"}},
    "a setting of the chart's own": {"worker": {"settings": {"queues": "high"}}},
    "an unknown queue": {"worker": {"pools": {"high": {"queues": "urgent"}}}},
    "no requests": {"api": {"resources": {"requests": None}}},
    "a quantity that is none": {"api": {"resources": {"requests": {"cpu": "banana"}}}},
    "no secret": {"secrets": {"existingSecret": ""}},
    "an API for everybody that nobody asked for": {"istio": {"enabled": False}},
    "a service entry without a host": {"istio": {"datastores": "serviceEntry"}},
    "an external secret without a store": {"secrets": {"externalSecret": {"enabled": True}}},
    "a negative margin": {"terminationMargin": -1},
}


@pytest.mark.parametrize("values", REFUSED.values(), ids=REFUSED.keys())
def test_values_that_make_no_sense_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(helm_python.HelmError):
        render(combined(values_of("production"), values))


def test_production_has_what_is_required_for_it() -> None:
    resources = documents(render(values_of("production")))
    sizes: Counter[str] = Counter()
    for workload in checks.of_kind(resources, "Deployment"):
        (container,) = workload["spec"]["template"]["spec"]["containers"]
        asked = container["resources"]["requests"]
        annotations = workload["spec"]["template"]["metadata"]["annotations"]
        assert annotations["sidecar.istio.io/proxyCPU"] == "100m"
        assert annotations["sidecar.istio.io/proxyMemory"] == "200Mi"
        wanted = ("2", "4Gi") if container["name"] == "server" else ("1", "2Gi")
        assert (asked["cpu"], asked["memory"]) == wanted
    for scaler in checks.of_kind(resources, "ScaledObject"):
        sizes["worker"] += scaler["spec"]["minReplicaCount"]
    for scaler in checks.of_kind(resources, "HorizontalPodAutoscaler"):
        sizes["server"] += scaler["spec"]["minReplicas"]
    assert sizes == {"worker": 5, "server": 2}


def test_each_role_has_an_identity_of_its_own() -> None:
    resources = documents(render(values_of("production")))
    accounts = {
        template["metadata"]["labels"]["app.kubernetes.io/component"]: template["spec"]["serviceAccountName"]
        for _, template in checks.templates(resources)
    }
    assert accounts == {"api": "scheduling-service", "worker": "scheduling-worker", "migrate": "scheduling-migrate"}


def test_the_policy_in_the_cluster_is_the_one_that_is_documented() -> None:
    policy = checks.changed(documents(render(values_of("production"))), "ConfigMap", "scheduling-policy")
    assert tomllib.loads(policy["data"]["policy.toml"]) == tomllib.loads((ROOT / "docs" / "policy.toml").read_text())


def test_two_colours_share_a_service_and_nothing_clashes() -> None:
    base = values_of("production")
    shared = documents(
        render(combined(base, {"workloads": False, "api": {"service": {"instance": "scheduling-green"}}}))
    )
    blue = documents(render(combined(base, {"shared": False}), name="scheduling-blue"))
    green = documents(render(combined(base, {"shared": False}), name="scheduling-green"))
    together = shared + blue + green
    names = [(one["kind"], one["metadata"]["name"]) for one in together]
    assert len(names) == len(set(names))
    service = checks.changed(shared, "Service", "scheduling-service")["spec"]["selector"]
    reached = {
        workload["metadata"]["name"]
        for workload, template in checks.templates(together)
        if checks.matches(service, template["metadata"]["labels"])
    }
    assert reached == {"scheduling-green-api"}
    assert [one for one in checks.problems(together) if "queue" not in one] == []


def test_every_pool_of_workers_is_a_deployment_that_takes_its_queues() -> None:
    resources = documents(render(values_of("production")))
    queues = {
        name: checks.environment(container)["SCHEDULING_QUEUES"]
        for name, _, container in checks.containers(resources)
        if container["args"] == ["worker"]
    }
    assert queues == {f"Deployment/scheduling-worker-{q.lower()}/worker": q.lower() for q in Queue}


def test_an_external_secret_asks_for_both_urls_and_leaves_the_secret_behind() -> None:
    made = checks.changed(documents(render(values_of("staging"))), "ExternalSecret", "scheduling-connections")["spec"]
    assert {one["secretKey"] for one in made["data"]} == {"database-url", "redis-url"}
    assert set(made) == {"refreshInterval", "secretStoreRef", "target", "data"}
    assert made["target"]["creationPolicy"] == "Orphan"


def test_the_packaged_chart_renders_the_same_as_the_folder(tmp_path: Path) -> None:
    # Its policy and the transcoder's descriptors are links to where they are made: the package has to hold them.
    packed = helm_python.package(str(CHART), destination=str(tmp_path))
    values = values_of("staging")
    assert render(values, chart=Path(packed)) == render(values)


def test_the_transcoder_knows_the_rest_paths() -> None:
    text = json.dumps(documents(render(values_of("staging"))))
    assert re.search(r'"proto_descriptor_bin": "[A-Za-z0-9+/=]{10000,}"', text)
