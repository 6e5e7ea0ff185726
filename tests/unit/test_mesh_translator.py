"""What the translator from Istio resources to Envoy makes of single fields, and that it passes over none."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.support.mesh import istio
from tests.support.mesh.fields import Untranslatable
from tests.support.mesh.istio import Mesh, Mode, Workload
from tests.support.mesh.sidecar import merged
from tests.support.mesh.traffic import DEFAULT_RETRIES, UNBOUNDED

HOST = "user-service.whispr.svc.cluster.local"
US = Workload("scheduling-service", {"app": "scheduling"})

#: One of each kind, with every field that is understood.
EVERYTHING = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: whispr, labels: {app: x}}
spec:
  selector: {matchLabels: {app: scheduling}}
  mtls: {mode: STRICT}
  portLevelMtls: {9464: {mode: PERMISSIVE}}
---
apiVersion: security.istio.io/v1beta1
kind: AuthorizationPolicy
metadata: {name: all, namespace: whispr}
spec:
  selector: {matchLabels: {app: scheduling}}
  action: ALLOW
  rules:
  - from:
    - source:
        principals: [cluster.local/ns/whispr/sa/messaging-service]
        notPrincipals: [cluster.local/ns/whispr/sa/x]
        namespaces: [whispr]
        notNamespaces: [other]
    to:
    - operation:
        paths: [/a]
        notPaths: [/b]
        methods: [POST]
        notMethods: [GET]
        hosts: [h]
        notHosts: [i]
        ports: ["1"]
        notPorts: ["2"]
    when:
    - {key: source.principal, values: ["*"], notValues: [cluster.local/ns/whispr/sa/y]}
    - {key: source.namespace, values: [whispr]}
    - {key: destination.port, values: ["1"]}
    - {key: "request.headers[x-a]", values: [b]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: user, namespace: whispr}
spec:
  host: user-service
  exportTo: ["."]
  workloadSelector: {matchLabels: {app: scheduling}}
  trafficPolicy:
    loadBalancer: {simple: ROUND_ROBIN}
    tls: {mode: ISTIO_MUTUAL}
    connectionPool:
      tcp: {maxConnections: 50, connectTimeout: 2s, maxConnectionDuration: 1h,
            tcpKeepalive: {probes: 3, time: 1m, interval: 10s}}
      http: {http1MaxPendingRequests: 100, http2MaxRequests: 200, maxRetries: 1, maxRequestsPerConnection: 9,
             idleTimeout: 5m, h2UpgradePolicy: UPGRADE}
    outlierDetection: {consecutive5xxErrors: 3, consecutiveGatewayErrors: 0, interval: 30s, baseEjectionTime: 30s,
                       maxEjectionPercent: 50, minHealthPercent: 10, splitExternalLocalOriginErrors: true,
                       consecutiveLocalOriginFailures: 4}
    portLevelSettings:
    - port: {number: 8080}
      tls: {mode: DISABLE}
---
apiVersion: networking.istio.io/v1alpha3
kind: VirtualService
metadata: {name: user, namespace: whispr}
spec:
  hosts: [user-service]
  gateways: [mesh]
  exportTo: ["*"]
  http:
  - name: reads
    match:
    - name: get
      uri: {prefix: /user.UserService/Get}
      method: {exact: POST}
      headers: {x-a: {regex: "b.*"}}
      sourceLabels: {app: scheduling}
    route: [{destination: {host: user-service, port: {number: 50051}}, weight: 100}]
    timeout: 1.5s
    retries: {attempts: 3, perTryTimeout: 500ms, retryOn: unavailable}
    headers: {request: {set: {a: b}, add: {c: d}, remove: [e]}, response: {set: {f: g}}}
  - route: [{destination: {host: user-service}}]
    retries: {attempts: 0}
---
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: limit, namespace: whispr}
spec:
  workloadSelector: {labels: {app: scheduling}}
  priority: 10
  configPatches:
  - applyTo: HTTP_FILTER
    match:
      context: SIDECAR_INBOUND
      listener:
        portNumber: 50051
        filterChain:
          destinationPort: 50051
          filter: {name: envoy.filters.network.http_connection_manager, subFilter: {name: envoy.filters.http.router}}
    patch: {operation: INSERT_BEFORE, value: {name: x, typed_config: {}}}
  - applyTo: HTTP_ROUTE
    match: {context: SIDECAR_INBOUND, routeConfiguration: {vhost: {name: "inbound|http|50051", route: {action: ANY}}}}
    patch: {operation: MERGE, value: {typed_per_filter_config: {x: {}}}}
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: logs, namespace: whispr}
spec:
  selector: {matchLabels: {app: scheduling}}
  accessLogging:
  - providers: [{name: envoy}]
    match: {mode: SERVER}
    filter: {expression: "response.code >= 400"}
    disabled: false
  tracing: [{randomSamplingPercentage: 1.0}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: postgresql, namespace: whispr}
spec: {hosts: [db.internal], ports: [{number: 5432, name: tcp, protocol: TCP}]}
"""


_PARSED: list[dict[str, Any]] = list(yaml.safe_load_all(EVERYTHING))


def resources() -> list[dict[str, Any]]:
    """Fresh copies of all of them."""
    return copy.deepcopy(_PARSED)


def read(text: str) -> Mesh:
    """The mesh of these resources."""
    return istio.read(yaml.safe_load_all(text))


def test_everything_that_is_understood_is_read() -> None:
    mesh = istio.read(resources())
    assert mesh.mode(US, 50051) is Mode.STRICT
    assert mesh.mode(US, 9464) is Mode.PERMISSIVE
    assert mesh.mode(Workload("x", {}), 50051) is Mode.PERMISSIVE
    assert [each["name"] for each in mesh.authorization_filters(US, 1)] == ["envoy.filters.http.rbac.allow"]
    assert mesh.authorizes(US)
    assert not mesh.authorization_filters(Workload("x", {"app": "other"}), 1)
    assert mesh.passed_over == [
        "Telemetry logs tracing",
        "Telemetry logs accessLogging.filter",
        "ServiceEntry postgresql",
    ]
    assert [where.labels for where in mesh.access_logs] == [{"app": "scheduling"}]
    assert mesh.http_filters(US, "SIDECAR_INBOUND", 50051) == ([], [{"name": "x", "typed_config": {}}])
    assert mesh.http_filters(US, "SIDECAR_INBOUND", 1) == ([], [])
    assert mesh.http_filters(US, "SIDECAR_OUTBOUND", 50051) == ([], [])
    assert len(mesh.route_patches(US, "SIDECAR_INBOUND", 50051)) == 1


def test_a_destination_rule_becomes_a_cluster() -> None:
    policy = istio.read(resources()).traffic_policy(HOST, 50051, US)
    assert policy.tls == "ISTIO_MUTUAL"
    assert policy.cluster["connect_timeout"] == "2s"
    assert policy.cluster["lb_policy"] == "ROUND_ROBIN"
    assert policy.cluster["circuit_breakers"]["thresholds"] == [
        {
            "max_connections": 50,
            "max_pending_requests": 100,
            "max_requests": 200,
            "max_retries": 1,
            "track_remaining": True,
        }
    ]
    assert policy.cluster["outlier_detection"] == {
        "enforcing_success_rate": 0,
        "consecutive_5xx": 3,
        "enforcing_consecutive_5xx": 100,
        "consecutive_gateway_failure": 0,
        "enforcing_consecutive_gateway_failure": 0,
        "interval": "30s",
        "base_ejection_time": "30s",
        "max_ejection_percent": 50,
        "split_external_local_origin_errors": True,
        "enforcing_local_origin_success_rate": 0,
        "consecutive_local_origin_failure": 4,
        "enforcing_consecutive_local_origin_failure": 100,
    }
    assert policy.http_options == {
        "max_connection_duration": "3600s",
        "max_requests_per_connection": 9,
        "idle_timeout": "300s",
    }


def test_the_settings_of_a_port_stand_in_place_of_the_hosts() -> None:
    policy = istio.read(resources()).traffic_policy(HOST, 8080, US)
    assert policy.tls == "DISABLE"
    assert policy.cluster["circuit_breakers"]["thresholds"][0]["max_connections"] == UNBOUNDED


def test_routes_keep_their_order_and_say_what_is_retried() -> None:
    reads, rest = istio.read(resources()).routes(HOST, US)
    assert reads.match["prefix"] == "/user.UserService/Get"
    assert reads.action["timeout"] == "1.5s"
    assert reads.action["retry_policy"]["num_retries"] == 3
    assert reads.action["retry_policy"]["per_try_timeout"] == "0.5s"
    assert rest.match == {"prefix": "/"}
    assert "retry_policy" not in rest.action


def test_rules_and_routes_for_certain_clients_are_not_for_others() -> None:
    mesh = istio.read(resources())
    other = Workload("x", {"app": "other"})
    assert "outlier_detection" not in mesh.traffic_policy(HOST, 50051, other).cluster
    assert [route.match for route in mesh.routes(HOST, other)] == [{"prefix": "/"}]


def test_a_host_nobody_speaks_of_is_retried_as_istio_does() -> None:
    mesh = read("")
    (route,) = mesh.routes("other.whispr.svc.cluster.local", US)
    assert route.action["retry_policy"] == DEFAULT_RETRIES
    assert mesh.traffic_policy("other.whispr.svc.cluster.local", 1, US).tls == "ISTIO_MUTUAL"


def test_merging_is_deep_and_appends_to_lists() -> None:
    assert merged({"a": {"b": 1}, "c": [1], "d": 1}, {"a": {"e": 2}, "c": [2], "d": 2}) == {
        "a": {"b": 1, "e": 2},
        "c": [1, 2],
        "d": 2,
    }


def _mappings(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where mappings lie whose keys are fields, not names of the author's own."""
    if isinstance(value, dict):
        if not path or path[-1] not in (
            "matchLabels",
            "sourceLabels",
            "labels",
            "set",
            "add",
            "portLevelMtls",
            "value",
            "metadata",
        ):
            yield path
        if path and path[-1] in ("value", "metadata"):
            return
        for key, each in value.items():
            yield from _mappings(each, (*path, key))
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from _mappings(each, (*path, number))


#: What lies in here is passed over as a whole.
_OPAQUE = ("tracing", "providers")


def _unknown_fields() -> Iterator[tuple[int, tuple[Any, ...]]]:
    for number, resource in enumerate(resources()):
        for path in _mappings(resource):
            is_opaque = resource["kind"] == "ServiceEntry" and path[:1] == ("spec",)
            # Headers to match are named by the author.
            is_named = path[-1:] == ("headers",) and "match" in path
            if not is_opaque and not is_named and not any(name in path for name in _OPAQUE):
                yield number, path


@pytest.mark.parametrize(("number", "path"), list(_unknown_fields()), ids=str)
def test_a_field_that_is_not_known_is_an_error_wherever_it_stands(number: int, path: tuple[Any, ...]) -> None:
    broken = resources()
    part: Any = broken[number]
    for step in path:
        part = part[step]
    part["surprise"] = {"exact": "x"}
    with pytest.raises(Untranslatable, match="surprise"):
        istio.read(broken)


@pytest.mark.parametrize(
    ("kind", "spec", "problem"),
    [
        ("Gateway", "{}", "this kind"),
        ("PeerAuthentication", "{mtls: {mode: strict}}", "'strict'"),
        ("PeerAuthentication", "{portLevelMtls: {8080: {mode: DISABLE}}}", "no effect"),
        ("AuthorizationPolicy", "{action: AUDIT}", "AUDIT"),
        ("AuthorizationPolicy", "{action: CUSTOM, provider: {name: x}}", "CUSTOM"),
        ("AuthorizationPolicy", "{rules: [{from: []}]}", "empty"),
        ("AuthorizationPolicy", "{rules: [{from: [{}]}]}", "no source"),
        ("AuthorizationPolicy", "{rules: [{from: [{source: {}}]}]}", "empty"),
        ("AuthorizationPolicy", "{rules: [{to: [{operation: {paths: []}}]}]}", "empty"),
        ("AuthorizationPolicy", "{rules: [{from: [{source: {principals: cluster.local}}]}]}", "list of texts"),
        ("AuthorizationPolicy", "{rules: [{from: [{source: {principals: ['spiffe://a/b']}}]}]}", "match nobody"),
        ("AuthorizationPolicy", "{rules: [{from: [{source: {ipBlocks: [10.0.0.0/8]}}]}]}", "ipBlocks"),
        ("AuthorizationPolicy", "{rules: [{to: [{operation: {paths: ['/a/{*}']}}]}]}", "templates"),
        ("AuthorizationPolicy", "{rules: [{to: [{operation: {ports: [http]}}]}]}", "port"),
        ("AuthorizationPolicy", "{rules: [{when: [{key: 'request.auth.claims[iss]', values: [x]}]}]}", "key"),
        ("AuthorizationPolicy", "{rules: [{when: [{key: source.principal}]}]}", "no values"),
        ("DestinationRule", "{host: user-service, trafficPolicy: {tls: {mode: STRICT}}}", "STRICT"),
        ("DestinationRule", "{host: a, trafficPolicy: {circuitBreaker: {}}}", "circuitBreaker"),
        (
            "DestinationRule",
            "{host: a, trafficPolicy: {outlierDetection: {consecutiveErrors: 3}}}",
            "consecutiveErrors",
        ),
        ("DestinationRule", "{host: a, trafficPolicy: {outlierDetection: {interval: '10'}}}", "duration"),
        ("DestinationRule", "{host: a, trafficPolicy: {connectionPool: {tcp: {maxConnections: '100'}}}}", "number"),
        ("DestinationRule", "{host: a, subsets: [{name: v1}]}", "subsets"),
        ("DestinationRule", "{trafficPolicy: {}}", "missing"),
        ("VirtualService", "{hosts: [a], http: [{route: [{destination: {}}]}]}", "no host"),
        ("VirtualService", "{hosts: [a], http: [{route: [{destination: {host: a, subset: v1}}]}]}", "subset"),
        ("VirtualService", "{hosts: [a], http: [{timeout: 1s}]}", "no route"),
        ("VirtualService", "{hosts: [a], tcp: [], http: [{route: [{destination: {host: a}}]}]}", "tcp"),
        ("VirtualService", "{hosts: [a], http: [{route: [{destination: {host: a}}], timeout: soon}]}", "duration"),
        ("EnvoyFilter", "{configPatches: [{applyTo: CLUSTER, match: {}, patch: {}}]}", "CLUSTER"),
        (
            "EnvoyFilter",
            "{configPatches: [{applyTo: HTTP_FILTER, match: {}, patch: {operation: REMOVE, value: {}}}]}",
            "REMOVE",
        ),
    ],
)
def test_what_has_no_translation_is_refused(kind: str, spec: str, problem: str) -> None:
    group = "security" if kind.endswith(("Authentication", "Policy")) else "networking"
    with pytest.raises(Untranslatable, match=problem):
        read(f"apiVersion: {group}.istio.io/v1\nkind: {kind}\nmetadata: {{name: x, namespace: whispr}}\nspec: {spec}")


def test_two_rules_for_one_host_are_refused() -> None:
    twice = [each for each in resources() if each["kind"] in ("DestinationRule", "VirtualService")] * 2
    with pytest.raises(Untranslatable, match="second"):
        istio.read(twice)


def test_other_groups_and_versions_are_refused() -> None:
    with pytest.raises(Untranslatable, match="apps/v1"):
        read("{apiVersion: apps/v1, kind: Deployment, metadata: {name: x}, spec: {}}")
    with pytest.raises(Untranslatable, match="v9"):
        read("{apiVersion: security.istio.io/v9, kind: PeerAuthentication, metadata: {name: x}, spec: {}}")
