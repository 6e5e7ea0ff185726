"""The Istio resources of a mesh, read strictly, and what of them applies to a workload or a host.

Kinds that are read and have no part in a call between two sidecars here are kept in `passed_over`; every other kind is
an error, as is any field that is not understood.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from tests.support.mesh import authorization
from tests.support.mesh.fields import Fields, Untranslatable
from tests.support.mesh.traffic import Route, TrafficPolicy, default_route, read_routes, read_traffic_policy

Json = dict[str, Any]
#: Kinds that change no call between two sidecars on one machine: what lies outside the mesh, and what a sidecar is
#: told of the mesh.
PASSED_OVER = frozenset({"ServiceEntry", "Sidecar"})
GROUPS = frozenset({"security.istio.io", "networking.istio.io", "telemetry.istio.io"})
_VERSIONS = frozenset({"v1", "v1beta1", "v1alpha3"})
ROOT_NAMESPACE = "istio-system"
_CONTEXTS = ("SIDECAR_INBOUND", "SIDECAR_OUTBOUND", "ANY")


class Mode(StrEnum):
    """What a port takes."""

    STRICT = "STRICT"
    PERMISSIVE = "PERMISSIVE"
    DISABLE = "DISABLE"


@dataclass(frozen=True, slots=True)
class Workload:
    """A deployment: what selectors and identities see of it."""

    account: str
    labels: Mapping[str, str]
    namespace: str = "whispr"


@dataclass(frozen=True, slots=True)
class Where:
    """Namespace and labels that a resource applies to."""

    namespace: str
    labels: Mapping[str, str]

    def covers(self, workload: Workload) -> bool:
        """Whether it applies: the root namespace's resources to all."""
        near = self.namespace in (ROOT_NAMESPACE, workload.namespace)
        return near and self.labels.items() <= workload.labels.items()

    @property
    def rank(self) -> int:
        """Nearer is higher: mesh, namespace, workload."""
        return 2 if self.labels else int(self.namespace != ROOT_NAMESPACE)


@dataclass(frozen=True, slots=True)
class _PeerAuthentication:
    where: Where
    mode: str
    ports: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class _DestinationRule:
    host: str
    clients: Where
    policy: TrafficPolicy
    ports: Mapping[int, TrafficPolicy]


@dataclass(frozen=True, slots=True)
class FilterPatch:
    """A patch of an EnvoyFilter: an HTTP filter to insert, or fields to merge into routes or virtual hosts."""

    where: Where
    apply_to: str
    context: str
    port: int | None
    operation: str
    value: Json
    priority: int = 0


@dataclass(slots=True)
class Mesh:
    """Resources, read. Build it with `read`."""

    passed_over: list[str] = field(default_factory=list)
    patches: list[FilterPatch] = field(default_factory=list)
    access_logs: list[Where] = field(default_factory=list)
    _authentications: list[_PeerAuthentication] = field(default_factory=list)
    _policies: list[tuple[Where, authorization.Policy]] = field(default_factory=list)
    _rules: list[_DestinationRule] = field(default_factory=list)
    _routes: dict[str, list[Route]] = field(default_factory=dict)

    def mode(self, workload: Workload, port: int) -> Mode:
        """What `port` of a workload takes; PERMISSIVE where nothing is said."""
        for found in sorted(self._authentications, key=lambda each: each.where.rank, reverse=True):
            if not found.where.covers(workload):
                continue
            said = found.ports.get(port, "UNSET") if found.where.labels else "UNSET"
            for mode in (said, found.mode):
                if mode != "UNSET":
                    return Mode(mode)
        return Mode.PERMISSIVE

    def authorization_filters(self, workload: Workload, port: int) -> list[Json]:
        """The HTTP filters that decide who may call `port` of a workload."""
        return authorization.filters([policy for where, policy in self._policies if where.covers(workload)], port)

    def authorizes(self, workload: Workload) -> bool:
        """Whether any ALLOW policy applies, so that what none allows is refused."""
        return any(policy.action == "ALLOW" for where, policy in self._policies if where.covers(workload))

    def traffic_policy(self, host: str, port: int, client: Workload) -> TrafficPolicy:
        """How a client calls a host: by the rule that names the client's labels, else by the host's."""
        near = [rule for rule in self._rules if rule.host == host and rule.clients.covers(client)]
        found = max(near, key=lambda rule: rule.clients.rank, default=None)
        if found is None:
            return read_traffic_policy(None)
        return found.ports.get(port, found.policy)

    def routes(self, host: str, client: Workload) -> list[Route]:
        """How a client's requests to a host are routed."""
        routes = self._routes.get(host)
        if routes is None:
            return [default_route(host)]
        return [route for route in routes if route.sources.items() <= client.labels.items()]

    def http_filters(self, workload: Workload, context: str, port: int) -> tuple[list[Json], list[Json]]:
        """The HTTP filters that patches put before all others, and right before the router."""
        first: list[Json] = []
        last: list[Json] = []
        for patch in self._patches_for(workload, context, port, "HTTP_FILTER"):
            (first if patch.operation == "INSERT_FIRST" else last).append(copy.deepcopy(patch.value))
        return first, last

    def route_patches(self, workload: Workload, context: str, port: int) -> list[FilterPatch]:
        """Patches of routes and virtual hosts."""
        return [
            *self._patches_for(workload, context, port, "VIRTUAL_HOST"),
            *self._patches_for(workload, context, port, "HTTP_ROUTE"),
        ]

    def _patches_for(self, workload: Workload, context: str, port: int, apply_to: str) -> list[FilterPatch]:
        return [
            patch
            for patch in self.patches
            if patch.where.covers(workload)
            and patch.apply_to == apply_to
            and patch.context in (context, "ANY")
            and patch.port in (None, port)
        ]


def read(resources: Iterable[Mapping[str, Any]]) -> Mesh:
    """Reads Istio resources. Raises Untranslatable for a kind or a field that is not understood."""
    mesh = Mesh()
    for resource in resources:
        kind = str(resource.get("kind"))
        with Fields(resource, kind) as whole:
            group, _, version = (whole.text("apiVersion") or "").partition("/")
            whole.text("kind")
            meta, spec = whole.part("metadata"), whole.part("spec")
        if group not in GROUPS or version not in _VERSIONS:
            raise Untranslatable(f"{kind}: no translation for {group}/{version}")
        name = str(meta.raw("name")) if meta else ""
        namespace = str((meta.raw("namespace") if meta else None) or "default")
        if kind in PASSED_OVER:
            mesh.passed_over.append(f"{kind} {name}")
            continue
        reader = _READERS.get(kind)
        if reader is None:
            raise Untranslatable(f"{kind} {name}: no translation for this kind")
        part = spec or Fields({}, "")
        part.path = f"{kind} {name}"
        with part:
            reader(mesh, name, namespace, part)
    return mesh


def _selector(spec: Fields, namespace: str) -> Where:
    selector = spec.part("selector")
    if selector is None:
        return Where(namespace, {})
    with selector:
        return Where(namespace, selector.labels("matchLabels"))


def _peer_authentication(mesh: Mesh, name: str, namespace: str, spec: Fields) -> None:
    where = _selector(spec, namespace)
    modes = ("UNSET", *(str(mode) for mode in Mode))
    mode, ports = "UNSET", {}
    if mtls := spec.part("mtls"):
        with mtls:
            mode = mtls.text("mode", *modes) or "UNSET"
    per_port = spec.raw("portLevelMtls") or {}
    for port, value in per_port.items():
        with Fields(value, f"{spec.path}.portLevelMtls.{port}") as part:
            ports[int(port)] = part.text("mode", *modes) or "UNSET"
    if ports and not where.labels:
        raise Untranslatable(f"{spec.path}: portLevelMtls has no effect without a selector")
    mesh._authentications.append(_PeerAuthentication(where, mode, ports))


def _authorization_policy(mesh: Mesh, name: str, namespace: str, spec: Fields) -> None:
    where = _selector(spec, namespace)
    mesh._policies.append((where, authorization.read_policy(f"{namespace}/{name}", spec)))


def _destination_rule(mesh: Mesh, name: str, namespace: str, spec: Fields) -> None:
    host = full_host(spec.text("host") or "", namespace)
    # Exported to all namespaces or to its own: everybody here is in one.
    _everywhere_or_here(spec)
    selector = spec.part("workloadSelector")
    clients = Where(ROOT_NAMESPACE, {})
    if selector is not None:
        with selector:
            clients = Where(namespace, selector.labels("matchLabels"))
    policy = spec.part("trafficPolicy")
    ports: dict[int, TrafficPolicy] = {}
    for entry in (policy.parts("portLevelSettings") if policy else None) or ():
        number = entry.part("port")
        if number is None:
            raise Untranslatable(f"{entry.path}: has no port")
        with number:
            port = number.number("number")
        # What a port's settings leave out is the default, not what the policy around them says.
        ports[port or 0] = read_traffic_policy(entry)
    if any(rule.host == host and rule.clients == clients for rule in mesh._rules):
        raise Untranslatable(f"{spec.path}: a second rule for {host}")
    mesh._rules.append(_DestinationRule(host, clients, read_traffic_policy(policy), ports))


def _virtual_service(mesh: Mesh, name: str, namespace: str, spec: Fields) -> None:
    hosts = [full_host(host, namespace) for host in spec.texts("hosts")]
    gateways = spec.texts("gateways") or ["mesh"]
    _everywhere_or_here(spec)
    routes = read_routes(spec.parts("http") or [])
    if not hosts or not routes:
        raise Untranslatable(f"{spec.path}: has no hosts or no routes")
    if "mesh" not in gateways:
        mesh.passed_over.append(spec.path)
        return
    for host in hosts:
        if host in mesh._routes:
            raise Untranslatable(f"{spec.path}: a second service for {host}")
        mesh._routes[host] = [
            Route(
                route.match,
                tuple((full_host(to, namespace), weight) for to, weight in route.destinations),
                route.action,
                route.headers,
                route.sources,
            )
            for route in routes
        ]


def _everywhere_or_here(spec: Fields) -> None:
    for scope in spec.texts("exportTo"):
        if scope not in (".", "*"):
            raise Untranslatable(f"{spec.path}.exportTo: no translation for {scope!r}")


def _envoy_filter(mesh: Mesh, name: str, namespace: str, spec: Fields) -> None:
    selector = spec.part("workloadSelector")
    labels: dict[str, str] = {}
    if selector is not None:
        with selector:
            labels = selector.labels("labels")
    priority = spec.number("priority") or 0
    for entry in spec.parts("configPatches") or ():
        with entry:
            apply_to = entry.text("applyTo", "HTTP_FILTER", "VIRTUAL_HOST", "HTTP_ROUTE") or ""
            match, patch = entry.part("match"), entry.part("patch")
        if match is None or patch is None:
            raise Untranslatable(f"{entry.path}: needs match and patch")
        with match:
            context = match.text("context", *_CONTEXTS) or "ANY"
            port = _listener_port(match.part("listener"))
            routes = match.part("routeConfiguration")
        if routes is not None:
            port = _route_port(routes)
        operations = ("INSERT_BEFORE", "INSERT_FIRST") if apply_to == "HTTP_FILTER" else ("MERGE",)
        with patch:
            operation = patch.text("operation", *operations) or ""
            value = patch.raw("value")
        if not operation or not isinstance(value, dict):
            raise Untranslatable(f"{patch.path}: needs an operation and a value")
        where = Where(namespace, labels)
        mesh.patches.append(FilterPatch(where, apply_to, context, port, operation, value, priority))
    # Those of one priority keep their order.
    mesh.patches.sort(key=lambda each: each.priority)


def _listener_port(listener: Fields | None) -> int | None:
    """The port that a listener match names. It may further name only the place before the router."""
    if listener is None:
        return None
    with listener:
        port, chain = listener.number("portNumber"), listener.part("filterChain")
    if chain is not None:
        with chain:
            chain_port, network = chain.number("destinationPort"), chain.part("filter")
        port = chain_port if port is None else port
        if network is not None:
            with network:
                network.text("name", "envoy.filters.network.http_connection_manager")
                inner = network.part("subFilter")
            if inner is not None:
                with inner:
                    inner.text("name", "envoy.filters.http.router")
    return port


def _route_port(routes: Fields) -> int | None:
    """The port that a route match names. It may further name the inbound virtual host of it, which is the only one."""
    with routes:
        port, host = routes.number("portNumber"), routes.part("vhost")
        routes.text("name")
    if host is not None:
        with host:
            name, route = host.text("name"), host.part("route")
        if route is not None:
            with route:
                route.text("action", "ANY", "ROUTE")
        if name is not None and name.startswith("inbound|http|"):
            return int(name.rpartition("|")[2])
        if name is not None:
            raise Untranslatable(f"{host.path}.name: no translation for {name!r}")
    return port


def _telemetry(mesh: Mesh, name: str, namespace: str, spec: Fields) -> None:
    """Access logs are translated to a log on standard output; tracing and metrics need collectors and are passed
    over.
    """
    where = _selector(spec, namespace)
    for section in ("tracing", "metrics"):
        if spec.raw(section) is not None:
            mesh.passed_over.append(f"{spec.path} {section}")
    for entry in spec.parts("accessLogging") or ():
        with entry:
            entry.raw("providers")
            condition = entry.part("filter")
            disabled = entry.flag("disabled")
            match = entry.part("match")
        if match is not None:
            with match:
                match.text("mode", "CLIENT_AND_SERVER", "CLIENT", "SERVER")
        if condition is not None:
            with condition:
                # CEL over attributes that Istio's own Envoy has an evaluator for; the log here is of everything.
                condition.text("expression")
                mesh.passed_over.append(f"{spec.path} accessLogging.filter")
        if not disabled:
            mesh.access_logs.append(where)


def full_host(host: str, namespace: str) -> str:
    """A host as Istio completes it: a name without dots is a Service of the resource's own namespace."""
    if not host:
        raise Untranslatable("a host is missing")
    return host if "." in host else f"{host}.{namespace}.svc.cluster.local"


_READERS = {
    "PeerAuthentication": _peer_authentication,
    "AuthorizationPolicy": _authorization_policy,
    "DestinationRule": _destination_rule,
    "VirtualService": _virtual_service,
    "EnvoyFilter": _envoy_filter,
    "Telemetry": _telemetry,
}
