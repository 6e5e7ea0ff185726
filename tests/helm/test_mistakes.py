"""Each check can fail: deliberate mistakes, one at a time, in what production renders."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from helm.rendering import documents, render, values_of
from tests.helm import checks, schemas
from tests.helm.checks import changed
from tests.helm.crds import Resource, folder

Mistake = Callable[[list[Resource]], object]


@cache
def production() -> list[Resource]:
    """Production as it is."""
    return documents(render(values_of("production")))


def spec(resources: list[Resource], kind: str, name: str) -> Any:
    """The spec of one resource."""
    return changed(resources, kind, name)["spec"]


def pod(resources: list[Resource], name: str = "scheduling-api") -> Any:
    """The spec of a Deployment's pods."""
    return spec(resources, "Deployment", name)["template"]["spec"]


def container(resources: list[Resource], name: str = "scheduling-api") -> Any:
    """The container of a Deployment."""
    return pod(resources, name)["containers"][0]


def policy_of(resources: list[Resource], kind: str = "DestinationRule") -> Any:
    """How workers treat their connections to messaging."""
    return spec(resources, kind, "scheduling-to-messaging")["trafficPolicy"]


def route(resources: list[Resource]) -> Any:
    """The workers' route to messaging."""
    return spec(resources, "VirtualService", "scheduling-to-messaging")["http"][0]


def rule(resources: list[Resource], name: str = "scheduling-api") -> Any:
    """The first rule of a policy."""
    return spec(resources, "AuthorizationPolicy", name)["rules"][0]


def variable(resources: list[Resource], name: str) -> Any:
    """A variable of the server."""
    return next(one for one in container(resources)["env"] if one["name"] == name)


def split_rule(resources: list[Resource]) -> None:
    """Who in one rule and what in another: either would do."""
    one = rule(resources)
    spec(resources, "AuthorizationPolicy", "scheduling-api")["rules"] = [{"from": one["from"]}, {"to": one["to"]}]


#: What is done wrong, and a word of what is said about it.
MISTAKES: dict[str, tuple[Mistake, str]] = {
    # fields
    "an unknown field of a DestinationRule": (lambda r: policy_of(r).update(circuitBreaker={}), "circuitBreaker"),
    "a deprecated field of a DestinationRule": (
        lambda r: policy_of(r)["outlierDetection"].update(consecutiveErrors=3),
        "deprecated",
    ),
    "a number as text": (lambda r: policy_of(r)["connectionPool"]["tcp"].update(maxConnections="50"), "not of type"),
    "a duration without a unit": (lambda r: policy_of(r)["outlierDetection"].update(interval="30"), "duration"),
    "a timeout without a unit": (lambda r: route(r).update(timeout="1805"), "duration"),
    "a mode that is none": (lambda r: policy_of(r)["tls"].update(mode="STRICT"), "STRICT"),
    "mtls in small letters": (
        lambda r: spec(r, "PeerAuthentication", "default")["mtls"].update(mode="strict"),
        "strict",
    ),
    "principal instead of principals": (lambda r: rule(r)["from"][0]["source"].update(principal=["x"]), "principal"),
    "a misspelt field of a route": (lambda r: route(r)["retries"].update(perTryTimout="2s"), "perTryTimout"),
    "a misspelt field of a ServiceMonitor": (
        lambda r: spec(r, "ServiceMonitor", "scheduling")["endpoints"][0].update(intervall="15s"),
        "intervall",
    ),
    "a misspelt field of a ScaledObject": (
        lambda r: spec(r, "ScaledObject", "scheduling-worker-high").update(maxReplicas=3),
        "maxReplicas",
    ),
    "a misspelt field of a Deployment": (lambda r: pod(r).update(terminationGracePeriod=60), "terminationGracePeriod"),
    "a probe without a port": (lambda r: container(r)["readinessProbe"]["grpc"].pop("port"), "port"),
    "a version that is gone": (
        lambda r: changed(r, "PodDisruptionBudget", "scheduling-api").update(apiVersion="policy/v1beta1"),
        "unknown to Kubernetes",
    ),
    "an autoscaler without a maximum": (
        lambda r: spec(r, "HorizontalPodAutoscaler", "scheduling-api").pop("maxReplicas"),
        "maxReplicas",
    ),
    # selectors and references
    "a Service that selects nothing": (
        lambda r: spec(r, "Service", "scheduling-service")["selector"].update(
            {"app.kubernetes.io/component": "server"}
        ),
        "selector matches no pod",
    ),
    "a policy of the mesh that selects nothing": (
        lambda r: spec(r, "AuthorizationPolicy", "scheduling-api")["selector"]["matchLabels"].update(app="scheduler"),
        "selector matches no pod",
    ),
    "a network policy that selects nothing": (
        lambda r: spec(r, "NetworkPolicy", "scheduling-worker")["podSelector"]["matchLabels"].update(role="worker"),
        "selector matches no pod",
    ),
    "a route for callers that are not there": (
        lambda r: route(r)["match"][0]["sourceLabels"].update({"app.kubernetes.io/component": "workers"}),
        "sourceLabels",
    ),
    "a Deployment that does not select its pods": (
        lambda r: spec(r, "Deployment", "scheduling-api")["selector"]["matchLabels"].update(tier="api"),
        "its own pods",
    ),
    "a Deployment that selects another's pods": (
        lambda r: spec(r, "Deployment", "scheduling-worker-low")["selector"]["matchLabels"].pop(
            "scheduling.whispr/pool"
        ),
        "its own pods",
    ),
    "a disruption budget for nobody": (
        lambda r: spec(r, "PodDisruptionBudget", "scheduling-api")["selector"]["matchLabels"].update(x="y"),
        "disruption budget",
    ),
    "a monitor that selects no Service": (
        lambda r: spec(r, "ServiceMonitor", "scheduling")["selector"]["matchLabels"].update(x="y"),
        "matches no Service",
    ),
    "a Service with a port that is not there": (
        lambda r: spec(r, "Service", "scheduling-service")["ports"][0].update(targetPort="http"),
        "no container port",
    ),
    "an autoscaler of nothing": (
        lambda r: spec(r, "ScaledObject", "scheduling-worker-low")["scaleTargetRef"].update(name="worker-low"),
        "there is no Deployment/worker-low",
    ),
    "an autoscaler that asks for a metric that is not there": (
        lambda r: spec(r, "ScaledObject", "scheduling-worker-low")["triggers"][0]["metadata"].update(
            query="max(whispr_scheduling_queue_length)"
        ),
        "no metric queue_length",
    ),
    "replicas beside an autoscaler": (lambda r: spec(r, "Deployment", "scheduling-api").update(replicas=2), "twice"),
    "an account that is not there": (lambda r: pod(r).update(serviceAccountName="default"), "no such service account"),
    "a rule for a host that is not there": (
        lambda r: spec(r, "DestinationRule", "scheduling-api").update(host="scheduler.whispr.svc.cluster.local"),
        "neither we nor a sibling",
    ),
    # pods
    "root": (lambda r: pod(r)["securityContext"].update(runAsUser=0), "root"),
    "a container as root": (lambda r: container(r)["securityContext"].update(runAsUser=0), "root"),
    "a root that can be written to": (
        lambda r: container(r)["securityContext"].update(readOnlyRootFilesystem=False),
        "write to its root",
    ),
    "a capability": (
        lambda r: container(r)["securityContext"]["capabilities"].update(add=["NET_ADMIN"]),
        "keeps capabilities",
    ),
    "no seccomp profile": (lambda r: pod(r)["securityContext"].pop("seccompProfile"), "seccomp"),
    "a token of Kubernetes": (lambda r: pod(r).update(automountServiceAccountToken=True), "token"),
    "a folder of the node": (
        lambda r: pod(r)["volumes"].append({"name": "node", "hostPath": {"path": "/"}}),
        "folder of the node",
    ),
    "the image of today": (lambda r: container(r).update(image="ghcr.io/whispr/scheduling:latest"), "not pinned"),
    "a password in the chart": (
        lambda r: variable(r, "SCHEDULING_ENVIRONMENT").update(value="postgresql://u:secret@db/x"),
        "password",
    ),
    "a URL that is not from a Secret": (
        lambda r: (
            variable(r, "SCHEDULING_REDIS_URL").pop("valueFrom"),
            variable(r, "SCHEDULING_REDIS_URL").update(value="redis://c/0"),
        ),
        "not taken from a Secret",
    ),
    "a variable that is no setting": (
        lambda r: variable(r, "SCHEDULING_LOG_FORMAT").update(name="SCHEDULING_LOGS_FORMAT"),
        "is no setting",
    ),
    "a value that the service refuses": (lambda r: variable(r, "SCHEDULING_SERVER_DRAIN").update(value="10"), "DRAIN"),
    "a quantity that is none": (lambda r: container(r)["resources"]["requests"].update(cpu="banana"), "banana"),
    "a request above its limit": (
        lambda r: container(r)["resources"]["requests"].update(memory="5Gi"),
        "than its limit",
    ),
    "too little time to stop": (lambda r: pod(r).update(terminationGracePeriodSeconds=20), "before it has drained"),
    "a drain that is longer than the pod's time": (
        lambda r: next(
            one for one in container(r, "scheduling-worker-high")["env"] if one["name"] == "SCHEDULING_WORKER_DRAIN"
        ).update(value="10m"),
        "before it has drained",
    ),
    "no liveness probe": (lambda r: container(r).pop("livenessProbe"), "livenessProbe"),
    "readiness at another port": (
        lambda r: container(r)["readinessProbe"]["grpc"].update(port=50052),
        "another port than the server's",
    ),
    "a migration after the release": (
        lambda r: changed(r, "Job", "scheduling-migrate")["metadata"]["annotations"].pop("helm.sh/hook"),
        "does not run before",
    ),
    "a migration with a sidecar": (
        lambda r: spec(r, "Job", "scheduling-migrate")["template"]["metadata"]["labels"].update(
            {"sidecar.istio.io/inject": "true"}
        ),
        "has a sidecar",
    ),
    "a queue that nobody serves": (
        lambda r: r.remove(changed(r, "Deployment", "scheduling-worker-low")),
        "queue LOW has no worker",
    ),
    # mesh
    "who and what in two rules": (split_rule, "a rule without"),
    "everybody": (lambda r: rule(r)["from"][0]["source"].update(principals=["*"]), "allows everybody"),
    "every path": (lambda r: rule(r)["to"][0]["operation"].update(paths=["/*"]), "every path"),
    "plaintext let in": (
        lambda r: spec(r, "PeerAuthentication", "scheduling-api")["mtls"].update(mode="PERMISSIVE"),
        "plaintext",
    ),
    "calls in plaintext": (lambda r: policy_of(r)["tls"].update(mode="DISABLE"), "plaintext"),
    "a mesh that repeats calls to targets": (lambda r: route(r)["retries"].update(attempts=2), "repeats calls"),
    "a mesh that cuts calls short": (lambda r: route(r).update(timeout="15s"), "cuts calls short"),
    "a filter at a port that nobody listens on": (
        lambda r: spec(r, "EnvoyFilter", "scheduling-rate-limit")["configPatches"][0]["match"]["listener"].update(
            portNumber=8080
        ),
        "nobody listens",
    ),
}


@pytest.mark.parametrize(("mistake", "told"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_caught(mistake: Mistake, told: str) -> None:
    resources = copy.deepcopy(production())
    mistake(resources)
    assert resources != production()
    found = checks.problems(resources)
    fresh = [one for one in resources if one not in production()]
    found += [problem for one in fresh for problem in schemas.problems(one, schemas.VERSIONS[-1])]
    caught = any(told in problem for problem in found)
    if not caught and folder() is None and any(schemas.is_custom(one) for one in fresh):
        pytest.skip("no definitions of custom resources: SCHEDULING_TEST_CRDS is not set and there is no shared/crds")
    assert caught, found
