"""Whole configurations of sidecars, as Istio's control plane would make them from the resources of a `Mesh`.

What stands here, and not in the resources, is Istio's own default: how identities are checked and passed on, and that a
sidecar speaks HTTP/2 to gRPC ports. Listeners take any free port; each host that is called has a listener of its own,
where Istio has one for all and tells hosts apart by the authority.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from tests.support.mesh.certificates import TRUST_DOMAIN, SecretFiles, spiffe
from tests.support.mesh.fields import Untranslatable
from tests.support.mesh.istio import Mesh, Mode, Workload
from tests.support.mesh.traffic import UNTIMED, Route, TrafficPolicy

Json = dict[str, Any]
Address = tuple[str, int]
_TYPES = "type.googleapis.com/envoy."
_HCM = f"{_TYPES}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
#: Where an inbound sidecar's connections to its app come from.
SIDECAR = "127.0.0.6"
#: One line for each request: what became of it, by whose doing, and what the app never sees of it.
_LOG_FORMAT = {
    "path": "%REQ(:PATH)%",
    "status": "%RESPONSE_CODE%",
    "grpc": "%GRPC_STATUS(SNAKE_STRING)%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "peer": "%DOWNSTREAM_PEER_URI_SAN%",
    "upstream": "%UPSTREAM_HOST%",
    "milliseconds": "%DURATION%",
}


class Proof(Enum):
    """How an outbound sidecar shows who it is. All but the first are what no proper sidecar does."""

    MUTUAL = "its certificate"
    ANONYMOUS = "TLS without a certificate"
    PLAINTEXT = "no TLS"


@dataclass(frozen=True, slots=True)
class Inbound:
    """A port of a workload behind its sidecar. Without `app` the sidecar itself answers 200."""

    name: str
    workload: Workload
    port: int
    secrets: SecretFiles
    app: Address | None = None
    #: Istio appends to x-forwarded-client-cert; a mesh may be told to replace it (SANITIZE_SET).
    forward: str = "APPEND_FORWARD"
    is_grpc: bool = True


@dataclass(frozen=True, slots=True)
class Outbound:
    """A host that a workload calls through its sidecar. `accounts` are the identities that the host may prove."""

    name: str
    workload: Workload
    host: str
    port: int
    endpoints: Sequence[Address]
    accounts: Sequence[str]
    secrets: SecretFiles
    proof: Proof = Proof.MUTUAL
    #: Sidecars drop what an app says in x-forwarded-client-cert; a forger's passes it on (ALWAYS_FORWARD_ONLY).
    forward: str = "SANITIZE"
    is_grpc: bool = True


@dataclass(slots=True)
class Config:
    """Listeners and clusters of one Envoy."""

    listeners: list[Json] = field(default_factory=list)
    clusters: dict[str, Json] = field(default_factory=dict)

    def envoy(self) -> Json:
        """The configuration as Envoy reads it."""
        return {
            "node": {"id": "sidecar", "cluster": "sidecar"},
            "admin": {"address": _socket(("127.0.0.1", 0))},
            "static_resources": {"listeners": self.listeners, "clusters": list(self.clusters.values())},
        }


def configuration(parts: Iterable[tuple[Mesh, Iterable[Inbound | Outbound]]], access_log: Path | None = None) -> Json:
    """The configuration of one Envoy that has all these ports, though they may belong to several workloads and be told
    of by different resources.

    It logs accesses to `access_log` for workloads of which a Telemetry resource says so.
    """
    config = Config()
    for mesh, ports in parts:
        for port in ports:
            logs = access_log if any(where.covers(port.workload) for where in mesh.access_logs) else None
            if isinstance(port, Inbound):
                _add_inbound(config, mesh, port, logs)
            else:
                _add_outbound(config, mesh, port, logs)
    return config.envoy()


def _add_inbound(config: Config, mesh: Mesh, port: Inbound, logs: Path | None) -> None:
    mode = mesh.mode(port.workload, port.port)
    if port.app is None:
        route: Json = {"match": {"prefix": "/"}, "direct_response": {"status": 200}}
    else:
        cluster = f"inbound|{port.port}||{port.name}"
        made = _cluster(cluster, [port.app], TrafficPolicy("DISABLE"), is_http2=port.is_grpc)
        # From here the app knows that a connection is its sidecar's.
        made["upstream_bind_config"] = {"source_address": {"address": SIDECAR, "port_value": 0}}
        config.clusters[cluster] = made
        route = {"match": {"prefix": "/"}, "route": {"cluster": cluster, **UNTIMED}}
    host = {"name": f"inbound|http|{port.port}", "domains": ["*"], "routes": [route]}
    first, last = mesh.http_filters(port.workload, "SIDECAR_INBOUND", port.port)
    manager = _manager(
        port.name,
        _patched(host, mesh, port.workload, "SIDECAR_INBOUND", port.port),
        [*first, *mesh.authorization_filters(port.workload, port.port), *last],
        logs,
    )
    manager |= {
        "forward_client_cert_details": port.forward,
        "set_current_client_cert_details": {"subject": True, "dns": True, "uri": True},
        "server_name": "istio-envoy",
    }
    chains = []
    if mode is not Mode.DISABLE:
        chains.append(
            {
                "filter_chain_match": {"transport_protocol": "tls"},
                "transport_socket": _downstream_tls(port.secrets),
                "filters": [{"name": "http", "typed_config": manager}],
            }
        )
    if mode is not Mode.STRICT:
        chains.append(
            {
                "filter_chain_match": {"transport_protocol": "raw_buffer"},
                "filters": [{"name": "http", "typed_config": manager}],
            }
        )
    inspector = f"{_TYPES}extensions.filters.listener.tls_inspector.v3.TlsInspector"
    config.listeners.append(
        {
            "name": port.name,
            "address": _socket(("127.0.0.1", 0)),
            "listener_filters": [
                {"name": "envoy.filters.listener.tls_inspector", "typed_config": {"@type": inspector}}
            ],
            "filter_chains": chains,
        }
    )


def _add_outbound(config: Config, mesh: Mesh, port: Outbound, logs: Path | None) -> None:
    routes = []
    for route in mesh.routes(port.host, port.workload):
        if any(host != port.host for host, _ in route.destinations):
            raise Untranslatable(f"{port.host}: routes to another host")
        routes.append(_route(route, f"outbound|{port.port}||{port.name}"))
    policy = mesh.traffic_policy(port.host, port.port, port.workload)
    cluster = f"outbound|{port.port}||{port.name}"
    made = _cluster(cluster, port.endpoints, policy, is_http2=port.is_grpc)
    if policy.tls == "ISTIO_MUTUAL" and port.proof is not Proof.PLAINTEXT:
        made["transport_socket"] = _upstream_tls(port)
    config.clusters[cluster] = made
    host = {"name": f"{port.host}:{port.port}", "domains": ["*"], "routes": routes}
    first, last = mesh.http_filters(port.workload, "SIDECAR_OUTBOUND", port.port)
    manager = _manager(
        port.name, _patched(host, mesh, port.workload, "SIDECAR_OUTBOUND", port.port), [*first, *last], logs
    )
    manager["forward_client_cert_details"] = port.forward
    config.listeners.append(
        {
            "name": port.name,
            "address": _socket(("127.0.0.1", 0)),
            "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
        }
    )


def _route(route: Route, cluster: str) -> Json:
    return {"match": route.match, "route": {**copy.deepcopy(route.action), "cluster": cluster}, **route.headers}


def _patched(host: Json, mesh: Mesh, workload: Workload, context: str, port: int) -> Json:
    for patch in mesh.route_patches(workload, context, port):
        if patch.apply_to == "VIRTUAL_HOST":
            host = merged(host, patch.value)
        else:
            host["routes"] = [merged(route, patch.value) for route in host["routes"]]
    return host


def merged(base: Mapping[str, Any], patch: Mapping[str, Any]) -> Json:
    """`base` with `patch` merged in as Envoy merges messages: mappings deeply, lists by appending."""
    made = copy.deepcopy(dict(base))
    for key, value in patch.items():
        old = made.get(key)
        if isinstance(old, dict) and isinstance(value, Mapping):
            made[key] = merged(old, value)
        elif isinstance(old, list) and isinstance(value, list):
            made[key] = [*old, *copy.deepcopy(value)]
        else:
            made[key] = copy.deepcopy(value)
    return made


def _manager(name: str, host: Json, filters: list[Json], logs: Path | None) -> Json:
    router = {"@type": f"{_TYPES}extensions.filters.http.router.v3.Router"}
    made: Json = {
        "@type": _HCM,
        "stat_prefix": name,
        "codec_type": "AUTO",
        "normalize_path": True,
        "stream_idle_timeout": "0s",
        "route_config": {"name": name, "virtual_hosts": [host]},
        "http_filters": [*filters, {"name": "envoy.filters.http.router", "typed_config": router}],
    }
    if logs is not None:
        made["access_log"] = [
            {
                "name": "envoy.access_loggers.file",
                "typed_config": {
                    "@type": f"{_TYPES}extensions.access_loggers.file.v3.FileAccessLog",
                    "path": str(logs),
                    "log_format": {"json_format": {**_LOG_FORMAT, "listener": name}},
                },
            }
        ]
    return made


def _cluster(name: str, endpoints: Sequence[Address], policy: TrafficPolicy, *, is_http2: bool) -> Json:
    explicit: Json = {"http2_protocol_options": {}} if is_http2 else {"http_protocol_options": {}}
    options: Json = {"@type": f"type.googleapis.com/{_HTTP_OPTIONS}", "explicit_http_config": explicit}
    if policy.http_options:
        options["common_http_protocol_options"] = policy.http_options
    hosts = [{"endpoint": {"address": _socket(each)}} for each in endpoints]
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "10s",
        **policy.cluster,
        "typed_extension_protocol_options": {_HTTP_OPTIONS: options},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": hosts}]},
    }


def _socket(address: Address) -> Json:
    return {"socket_address": {"address": address[0], "port_value": address[1]}}


def _tls_context(secrets: SecretFiles, names: list[Json], *, with_certificate: bool) -> Json:
    made: Json = {
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
        "combined_validation_context": {
            "default_validation_context": {
                "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": name} for name in names]
            },
            "validation_context_sds_secret_config": secrets.config("ROOTCA"),
        },
    }
    if with_certificate:
        made["tls_certificate_sds_secret_configs"] = [secrets.config("default")]
    return made


def _downstream_tls(secrets: SecretFiles) -> Json:
    context = _tls_context(secrets, [{"prefix": f"spiffe://{TRUST_DOMAIN}/"}], with_certificate=True)
    config = {
        "@type": f"{_TYPES}extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": context,
    }
    return {"name": "envoy.transport_sockets.tls", "typed_config": config}


def _upstream_tls(port: Outbound) -> Json:
    names = [{"exact": spiffe(account)} for account in port.accounts]
    context = _tls_context(port.secrets, names, with_certificate=port.proof is Proof.MUTUAL)
    context["alpn_protocols"] = ["h2" if port.is_grpc else "http/1.1"]
    config = {
        "@type": f"{_TYPES}extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": context,
        "sni": port.host,
    }
    return {"name": "envoy.transport_sockets.tls", "typed_config": config}
