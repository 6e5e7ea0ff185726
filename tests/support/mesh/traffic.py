"""DestinationRule and VirtualService → what Envoy's clusters and routes are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.support.mesh.fields import Fields, Untranslatable

Json = dict[str, Any]
#: Istio leaves what no rule bounds practically unbounded.
UNBOUNDED = 4_294_967_295
#: What Istio does for a route that says nothing of retries. A scheduler must not have it.
DEFAULT_RETRIES: Json = {
    "retry_on": "connect-failure,refused-stream,unavailable,cancelled",
    "num_retries": 2,
    "retry_host_predicate": [
        {
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
            },
        }
    ],
    "host_selection_retry_max_attempts": 5,
}
#: A route without a timeout, which leaves the caller's own deadline (grpc-timeout) in force.
UNTIMED: Json = {"timeout": "0s", "max_stream_duration": {"max_stream_duration": "0s", "grpc_timeout_header_max": "0s"}}
_BALANCERS = {"ROUND_ROBIN": "ROUND_ROBIN", "LEAST_REQUEST": "LEAST_REQUEST", "RANDOM": "RANDOM"}
_TLS_MODES = ("ISTIO_MUTUAL", "DISABLE")


@dataclass(slots=True)
class TrafficPolicy:
    """What a DestinationRule makes of the cluster of a host."""

    tls: str = "ISTIO_MUTUAL"
    cluster: Json = field(default_factory=dict)
    http_options: Json = field(default_factory=dict)


def read_traffic_policy(policy: Fields | None) -> TrafficPolicy:
    """The cluster that a trafficPolicy asks for; without one, Istio's defaults: mutual TLS and no bounds."""
    made = TrafficPolicy()
    thresholds = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests", "max_retries"), UNBOUNDED)
    made.cluster = {"lb_policy": "LEAST_REQUEST", "connect_timeout": "10s"}
    if policy is not None:
        with policy:
            tls, pool = policy.part("tls"), policy.part("connectionPool")
            outliers, balancer = policy.part("outlierDetection"), policy.part("loadBalancer")
        if tls is not None:
            with tls:
                made.tls = tls.text("mode", *_TLS_MODES) or "DISABLE"
        if balancer is not None:
            with balancer:
                made.cluster["lb_policy"] = _BALANCERS[balancer.text("simple", *_BALANCERS) or "LEAST_REQUEST"]
        if pool is not None:
            _pool(pool, thresholds, made)
        if outliers is not None:
            _outliers(outliers, made.cluster)
    made.cluster["circuit_breakers"] = {"thresholds": [{**thresholds, "track_remaining": True}]}
    return made


def _pool(pool: Fields, thresholds: dict[str, int], made: TrafficPolicy) -> None:
    with pool:
        tcp, http = pool.part("tcp"), pool.part("http")
    if tcp is not None:
        with tcp:
            _bound(thresholds, "max_connections", tcp.number("maxConnections"))
            made.cluster["connect_timeout"] = tcp.duration("connectTimeout") or "10s"
            longest, alive = tcp.duration("maxConnectionDuration"), tcp.part("tcpKeepalive")
        if longest:
            made.http_options["max_connection_duration"] = longest
        if alive is not None:
            made.cluster["upstream_connection_options"] = {"tcp_keepalive": _keepalive(alive)}
    if http is not None:
        with http:
            _bound(thresholds, "max_pending_requests", http.number("http1MaxPendingRequests"))
            _bound(thresholds, "max_requests", http.number("http2MaxRequests"))
            _bound(thresholds, "max_retries", http.number("maxRetries"))
            per_connection, idle = http.number("maxRequestsPerConnection"), http.duration("idleTimeout")
            # Every port here is gRPC, so that HTTP/2 needs no upgrade.
            http.text("h2UpgradePolicy", "UPGRADE", "DEFAULT")
        if per_connection:
            made.http_options["max_requests_per_connection"] = per_connection
        if idle:
            made.http_options["idle_timeout"] = idle


def _bound(thresholds: dict[str, int], name: str, value: int | None) -> None:
    if value is not None:
        thresholds[name] = value


def _keepalive(alive: Fields) -> Json:
    with alive:
        probes, time, interval = alive.number("probes"), alive.duration("time"), alive.duration("interval")
    made: Json = {}
    if probes is not None:
        made["keepalive_probes"] = probes
    for name, span in (("keepalive_time", time), ("keepalive_interval", interval)):
        if span is not None:
            made[name] = int(float(span.removesuffix("s")))
    return made


def _outliers(outliers: Fields, cluster: Json) -> None:
    made: Json = {"enforcing_success_rate": 0}
    with outliers:
        for ours, theirs in (
            ("consecutive5xxErrors", "consecutive_5xx"),
            ("consecutiveGatewayErrors", "consecutive_gateway_failure"),
        ):
            count = outliers.number(ours)
            if count is not None:
                made[theirs] = count
                made[f"enforcing_{theirs}"] = 100 if count else 0
        for ours, theirs in (("interval", "interval"), ("baseEjectionTime", "base_ejection_time")):
            span = outliers.duration(ours)
            if span is not None:
                made[theirs] = span
        percent, healthy = outliers.number("maxEjectionPercent"), outliers.number("minHealthPercent")
        local = outliers.number("consecutiveLocalOriginFailures")
        if outliers.flag("splitExternalLocalOriginErrors"):
            made |= {"split_external_local_origin_errors": True, "enforcing_local_origin_success_rate": 0}
            if local:
                made |= {"consecutive_local_origin_failure": local, "enforcing_consecutive_local_origin_failure": 100}
        elif local is not None:
            raise Untranslatable(f"{outliers.path}.consecutiveLocalOriginFailures: has no effect without the split")
    if percent:
        made["max_ejection_percent"] = percent
    cluster["outlier_detection"] = made
    # Never back to ejected hosts unless the rule says from when on.
    cluster["common_lb_config"] = {"healthy_panic_threshold": {"value": healthy or 0}}


@dataclass(frozen=True, slots=True)
class Route:
    """One route of a VirtualService: which requests, to which hosts with which weights, and Envoy's action for it.

    It is for clients with the labels `sources` only.
    """

    match: Json
    destinations: tuple[tuple[str, int], ...]
    action: Json
    headers: Json
    sources: Mapping[str, str] = field(default_factory=dict)


def default_route(host: str) -> Route:
    """What Istio does without a VirtualService: no timeout, and its own retries."""
    return Route({"prefix": "/"}, ((host, 1),), {**UNTIMED, "retry_policy": DEFAULT_RETRIES}, {})


def read_routes(routes: list[Fields]) -> list[Route]:
    """The routes of `spec.http`, in order."""
    return [route for each in routes for route in _read_route(each)]


def _read_route(http: Fields) -> list[Route]:
    with http:
        http.text("name")
        matches = [_match(each) for each in http.parts("match") or ()] or [({"prefix": "/"}, {})]
        destinations = [_destination(each) for each in http.parts("route") or ()]
        timeout, retries, headers = http.duration("timeout") or "0s", http.part("retries"), http.part("headers")
    if not destinations:
        raise Untranslatable(f"{http.path}: has no route")
    # A caller's own deadline (grpc-timeout) stands in place of the route's timeout, which bounds it.
    action: Json = {"timeout": timeout, "max_grpc_timeout": timeout}
    policy = DEFAULT_RETRIES if retries is None else _retries(retries)
    if policy is not None:
        action["retry_policy"] = policy
    changes = _headers(headers) if headers is not None else {}
    return [Route(match, tuple(destinations), action, changes, sources) for match, sources in matches]


def _destination(entry: Fields) -> tuple[str, int]:
    with entry:
        destination, weight = entry.part("destination"), entry.number("weight")
    if destination is None:
        raise Untranslatable(f"{entry.path}: has no destination")
    with destination:
        host, port = destination.text("host"), destination.part("port")
        if port is not None:
            with port:
                port.number("number")
    if not host:
        raise Untranslatable(f"{destination.path}: has no host")
    return host, 1 if weight is None else weight


def _match(entry: Fields) -> tuple[Json, dict[str, str]]:
    with entry:
        entry.text("name")
        sources = entry.labels("sourceLabels")
        uri, headers, method = entry.part("uri"), entry.raw("headers"), entry.part("method")
    made: Json = {"prefix": "/"}
    if uri is not None:
        kind, value = _string(uri)
        made = {{"exact": "path", "prefix": "prefix"}[kind]: value} if kind != "regex" else _regex_path(value)
    conditions = []
    if method is not None:
        kind, value = _string(method)
        conditions.append({"name": ":method", "string_match": _string_match(kind, value)})
    with Fields(headers or {}, f"{entry.path}.headers") as named:
        for name in headers or {}:
            part = named.part(name)
            if part is None:
                raise Untranslatable(f"{entry.path}.headers.{name}: no translation for presence alone")
            kind, value = _string(part)
            conditions.append({"name": name, "string_match": _string_match(kind, value)})
    return made | ({"headers": conditions} if conditions else {}), sources


def _string(part: Fields) -> tuple[str, str]:
    with part:
        found = [(kind, part.text(kind)) for kind in ("exact", "prefix", "regex") if kind in part]
    if len(found) != 1 or not found[0][1]:
        raise Untranslatable(f"{part.path}: is not one of exact, prefix, regex")
    return found[0][0], found[0][1]


def _regex_path(value: str) -> Json:
    return {"safe_regex": {"regex": value}}


def _string_match(kind: str, value: str) -> Json:
    return {"safe_regex": {"regex": value}} if kind == "regex" else {kind: value}


def _retries(retries: Fields) -> Json | None:
    with retries:
        attempts, per_try = retries.number("attempts"), retries.duration("perTryTimeout")
        retry_on = retries.text("retryOn")
    if not attempts:
        return None
    made: Json = DEFAULT_RETRIES | {"num_retries": attempts}
    if retry_on:
        made["retry_on"] = retry_on
    if per_try:
        made["per_try_timeout"] = per_try
    return made


def _headers(headers: Fields) -> Json:
    made: Json = {}
    with headers:
        for side in ("request", "response"):
            part = headers.part(side)
            if part is None:
                continue
            with part:
                added = [
                    {"header": {"key": key, "value": value}, "append_action": action}
                    for name, action in (("set", "OVERWRITE_IF_EXISTS_OR_ADD"), ("add", "APPEND_IF_EXISTS_OR_ADD"))
                    for key, value in part.labels(name).items()
                ]
                removed = part.texts("remove")
            if added:
                made[f"{side}_headers_to_add"] = added
            if removed:
                made[f"{side}_headers_to_remove"] = removed
    return made
