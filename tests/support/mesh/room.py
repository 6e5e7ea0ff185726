"""The whole service in a mesh: real server, worker and siblings, each behind a real Envoy whose configuration is
derived from the chart's rendered resources.

    callers ──▶ Envoy ══▶ Envoy ──▶ server          worker ──▶ Envoy ══▶ Envoy ──▶ siblings
            outbound    inbound                          outbound    inbound

One Envoy stands for the sidecars of all callers, one for those of all siblings; each port has certificates of its own.
"""

from __future__ import annotations

import copy
import functools
import json
import os
import signal
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from helm.rendering import documents, render
from scheduling.app import service_names
from scheduling.settings import address_variable
from tests.support.mesh import istio
from tests.support.mesh.certificates import Authority, SecretFiles, spiffe
from tests.support.mesh.envoy import Envoy
from tests.support.mesh.istio import GROUPS, Mesh, Workload
from tests.support.mesh.sidecar import Inbound, Outbound, Proof, configuration
from tests.support.processes import Process, start_siblings
from tests.support.service import Api, Service, eventually, service

Json = dict[str, Any]
PORT, METRICS_PORT = 50051, 9464
API_HOST = "scheduling-service.whispr.svc.cluster.local"
#: What the chart is rendered with: siblings are in the mesh as strictly as we are, JSON is on.
VALUES: Json = {
    "secrets": {"existingSecret": "scheduling"},
    "istio": {
        "strictNamespace": True,
        "siblingPolicies": {"enabled": True},
        "transcoder": {"enabled": True},
    },
}


POLICY = """
[[grants]]
principals = "*"
rpcs = ["*"]
targets = ["*"]
owners = ["*"]
jobs = "all"
"""


def ours(component: str, account: str) -> Workload:
    """A workload of the chart."""
    labels = {"name": "whispr-scheduling", "instance": "scheduling", "component": component}
    return Workload(account, {f"app.kubernetes.io/{name}": value for name, value in labels.items()})


def sibling(name: str) -> Workload:
    """A sibling's workload, which is also what calls us."""
    return Workload(f"{name}-service", {"app": f"{name}-service"})


def host_of(name: str) -> str:
    """A sibling's host."""
    return f"{name}-service.whispr.svc.cluster.local"


API, WORKER = ours("api", "scheduling-service"), ours("worker", "scheduling-worker")


def rendered(**istio_values: Any) -> list[Json]:
    """The Istio resources that the chart renders, with these values below `istio` over `VALUES`."""
    return copy.deepcopy(_rendered(json.dumps(istio_values)))


@functools.cache
def _rendered(istio_values: str) -> list[Json]:
    found = documents(render(merge(VALUES, {"istio": json.loads(istio_values)})))
    return [each for each in found if each["apiVersion"].partition("/")[0] in GROUPS]


def merge(base: Mapping[str, Any], more: Mapping[str, Any]) -> Json:
    """Values over values."""
    made = copy.deepcopy(dict(base))
    for key, value in more.items():
        made[key] = merge(made.get(key) or {}, value) if isinstance(value, Mapping) else value
    return made


def changed(resources: Iterable[Json], kind: str, name: str, **spec: Any) -> Mesh:
    """The mesh of these resources with parts of one's spec replaced, for what no value of the chart says."""
    made = copy.deepcopy(list(resources))
    (found,) = [each for each in made if each["kind"] == kind and each["metadata"]["name"] == name]
    found["spec"] = merge(found["spec"], spec)
    return istio.read(made)


def short_of_tokens(resources: Iterable[Json]) -> Mesh:
    """The API's rate limit in front of the user service, with one token for an hour."""
    made = copy.deepcopy(list(resources))
    (limit,) = [each for each in made if each["kind"] == "EnvoyFilter" and each["metadata"]["name"].endswith("limit")]
    limit["spec"]["workloadSelector"] = {"labels": dict(sibling("user").labels)}
    value = limit["spec"]["configPatches"][0]["patch"]["value"]["typed_config"]
    value["token_bucket"] = {"max_tokens": 1, "tokens_per_fill": 1, "fill_interval": "3600s"}
    return istio.read(made)


@dataclass(slots=True)
class Secrets:
    """Everybody's certificates."""

    folder: Path
    authority: Authority = field(default_factory=Authority)
    stranger: Authority = field(default_factory=Authority)

    def of(self, account: str, name: str = "", **more: Any) -> SecretFiles:
        """A service account's certificate and the mesh's root, as files of their own under `name`."""
        ends_in = more.pop("ends_in", timedelta(days=1))
        certificate = more.pop("issuer", self.authority).issue(spiffe(account, **more), ends_in=ends_in)
        return SecretFiles(self.folder / (name or account), certificate, self.authority.root)


@dataclass(slots=True)
class Room:
    """The running parts."""

    service: Service
    secrets: Secrets
    access_log: Path
    envoys: dict[str, Envoy] = field(default_factory=dict)
    #: What the worker and the messaging service show each other; a test may replace it.
    rotating: tuple[SecretFiles, ...] = ()
    _apis: dict[str, Api] = field(default_factory=dict)

    def address(self, caller: str) -> str:
        """Where a caller's outbound sidecar listens for calls to the API."""
        return self.envoys["callers"].address(caller)

    def api(self, caller: str = "messaging") -> Api:
        """The API as that caller reaches it."""
        if caller not in self._apis:
            self._apis[caller] = Api(self.address(caller))
        return self._apis[caller]

    def bad_calls(self) -> list[Json]:
        """What the siblings have received that refuse everything."""
        path = self.service.folder / "bad.jsonl"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []

    def close(self) -> None:
        """Ends the callers and the Envoys."""
        for api in self._apis.values():
            api.close()
        for envoy in self.envoys.values():
            envoy.close()


def _inbound_of_api(secrets: Secrets, server: int, metrics: int) -> list[tuple[Mesh, list[Inbound | Outbound]]]:
    own = secrets.of(API.account)
    app = ("127.0.0.1", server)
    resources = rendered()
    mesh = istio.read(resources)
    limited = istio.read(rendered(rateLimit={"perSecond": 1, "burst": 1}))
    plain = istio.read(rendered(prometheus={"mtls": False}))
    scraped = ("127.0.0.1", metrics)
    return [
        (
            mesh,
            [
                Inbound("api", API, PORT, own, app),
                Inbound("api-sanitising", API, PORT, own, app, forward="SANITIZE_SET"),
                Inbound("metrics", API, METRICS_PORT, own, scraped, is_grpc=False),
            ],
        ),
        (limited, [Inbound("api-limited", API, PORT, own, app)]),
        (plain, [Inbound("metrics-plain", API, METRICS_PORT, own, scraped, is_grpc=False)]),
    ]


def _callers(secrets: Secrets, server: Envoy) -> list[Outbound]:
    def to(name: str, account: str = "", listener: str = "api", **more: Any) -> Outbound:
        of = {key: more.pop(key) for key in ("issuer", "ends_in", "trust_domain", "namespace") if key in more}
        workload = sibling("messaging") if not account else Workload(account, {"app": account})
        files = secrets.of(workload.account, f"caller-{name}", **of)
        # Port 1 takes no connections: an instance of the API that has just gone.
        endpoints = [("127.0.0.1", each) for each in (server.port(listener), *more.pop("gone", ()))]
        port = METRICS_PORT if listener.startswith("metrics") else PORT
        return Outbound(name, workload, API_HOST, port, endpoints, [API.account], files, **more)

    return [
        to("messaging"),
        to("intruder", "intruder-service"),
        to("operator", "operator"),
        to("gateway", "api-gateway"),
        to("anonymous", proof=Proof.ANONYMOUS),
        to("plaintext", proof=Proof.PLAINTEXT),
        to("foreign", trust_domain="elsewhere.local"),
        to("other-authority", issuer=secrets.stranger),
        to("expired", ends_in=-timedelta(minutes=5)),
        to("forger", forward="ALWAYS_FORWARD_ONLY"),
        to("forger-sanitised", listener="api-sanitising", forward="ALWAYS_FORWARD_ONLY"),
        to("limited", listener="api-limited"),
        to("unsteady", gone=[1]),
    ]


def _inbound_of_siblings(secrets: Secrets, good: int, bad: int) -> list[tuple[Mesh, list[Inbound | Outbound]]]:
    def to(name: str, listener: str = "", port: int = good, account: str = "") -> Inbound:
        files = secrets.of(account or sibling(name).account, f"inbound-{listener or name}")
        return Inbound(listener or name, sibling(name), PORT, files, ("127.0.0.1", port))

    resources = rendered()
    return [
        (
            istio.read(resources),
            [
                to("messaging"),
                to("notification"),
                to("notification", "notification-bad", bad),
                to("auth"),
                to("content"),
                to("matching", account="impostor-service"),
                # Its own app is not there.
                to("messaging", "messaging-empty", 1),
            ],
        ),
        (short_of_tokens(resources), [to("user")]),
    ]


def _outbound_of_worker(room: Room, siblings: Envoy, media: Envoy) -> list[tuple[Mesh, list[Inbound | Outbound]]]:
    own = room.secrets.of(WORKER.account)
    rotating = room.secrets.of(WORKER.account, "worker-rotating")
    other = room.secrets.of(API.account, "worker-with-another-identity")
    room.rotating = (rotating,)

    def to(name: str, *listeners: str, files: SecretFiles = own, ports: Iterable[int] = (), as_: str = "") -> Outbound:
        found = [siblings.port(each) for each in listeners] or list(ports)
        endpoints = [("127.0.0.1", each) for each in found]
        return Outbound(as_ or name, WORKER, host_of(name), PORT, endpoints, [sibling(name).account], files)

    resources = rendered()
    # As ejected as in production, for longer than any test takes.
    strict = istio.read(rendered(outliers={"ejection": "600s"}))
    patient = istio.read(rendered(pendingRequests=2, connectTimeout="60s"))
    return [
        (
            istio.read(resources),
            [
                to("content", "content", files=other),
                to("matching", "matching"),
                to("user", "user"),
                to("moderation", ports=[1]),
                to("messaging", "messaging-empty", as_="messaging-empty"),
                to("messaging", as_="messaging-nobody"),
            ],
        ),
        # New connections all the time, so that new certificates are shown.
        (
            changed(
                resources,
                "DestinationRule",
                "scheduling-to-messaging",
                trafficPolicy={"connectionPool": {"http": {"maxRequestsPerConnection": 5}}},
            ),
            [to("messaging", "messaging", files=rotating)],
        ),
        (_impatient(resources), [to("auth", "auth")]),
        (strict, [to("notification", "notification-bad", "notification")]),
        (patient, [to("media", ports=[media.port("media")])]),
    ]


def _impatient(resources: Iterable[Json]) -> Mesh:
    made = copy.deepcopy(list(resources))
    for each in made:
        if each["kind"] == "VirtualService" and each["metadata"]["name"] == "scheduling-to-auth":
            each["spec"]["http"][0]["timeout"] = "0.3s"
    return istio.read(made)


@contextmanager
def stopped(envoy: Envoy) -> Iterator[None]:
    """An Envoy that does nothing meanwhile; the kernel goes on taking connections for it."""
    os.kill(envoy.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(envoy.pid, signal.SIGCONT)


@contextmanager
def room(folder: Path, database_url: str, redis_url: str, name: str) -> Iterator[Room]:
    """Everything running, and able to call and be called."""
    settings = {
        "identity": "mesh",
        "identity_self": spiffe(API.account),
        "metrics_listen": "127.0.0.1:0",
        "slots_high": "200",
    }
    # What the mesh lets through the policy lets through too: refusals here are the mesh's.
    policy = folder / "policy.toml"
    policy.write_text(POLICY, encoding="utf-8")
    settings["policy_file"] = str(policy)
    with ExitStack() as stack:
        running = stack.enter_context(service(folder, database_url, redis_url, name, **settings))
        made = Room(running, Secrets(folder / "secrets"), folder / "access.log")
        stack.callback(made.close)
        good = running.start_siblings("auth.* hang", "messaging.MessagingService/CleanupExpiredMessages hang")
        bad = stack.enter_context(start_siblings(folder, "* code=UNAVAILABLE", name="bad"))
        running.start_server()
        good_port = int(good.wait_ready())

        secrets = made.secrets
        inbound = _inbound_of_siblings(secrets, good_port, int(bad.wait_ready()))
        siblings = made.envoys["siblings"] = Envoy(configuration(inbound, made.access_log), folder, "siblings")
        media_port = Inbound("media", sibling("media"), PORT, secrets.of("media-service"), ("127.0.0.1", good_port))
        media = made.envoys["media"] = Envoy(configuration([(istio.read(rendered()), [media_port])]), folder, "media")
        siblings.wait_ready()
        media.wait_ready()
        outbound = _outbound_of_worker(made, siblings, media)
        made.rotating += tuple(port.secrets for _, ports in inbound for port in ports if port.name == "messaging")
        worker = made.envoys["worker"] = Envoy(configuration(outbound, made.access_log), folder, "worker")
        worker.wait_ready()
        running.settings |= {
            address_variable(each).removeprefix("SCHEDULING_").lower(): worker.address(each) for each in service_names()
        }
        running.start_worker()

        assert running.server is not None
        server_port = int(running.server.wait_ready())
        server = made.envoys["server"] = Envoy(
            configuration(_inbound_of_api(secrets, server_port, _metrics_port(running.server)), made.access_log),
            folder,
            "server",
        )
        server.wait_ready()
        made.envoys["callers"] = Envoy(
            configuration(_callers_parts(secrets, server), made.access_log), folder, "callers"
        ).wait_ready()
        running.connect()
        running.worker.wait_ready()
        eventually(running.api.is_serving, bool)
        yield made


def _metrics_port(server: Process) -> int:
    def told() -> list[int]:
        events = [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]
        return [event["port"] for event in events if event["event"] == "metrics_served"]

    return eventually(told, bool)[0]


def _callers_parts(secrets: Secrets, server: Envoy) -> list[tuple[Mesh, list[Inbound | Outbound]]]:
    prometheus = Workload("prometheus", {"app": "prometheus"}, "monitoring")
    files = secrets.of("prometheus", namespace="monitoring")
    other = secrets.of("messaging-service", "scraper")
    scrapers: list[Inbound | Outbound] = [
        Outbound(
            name,
            workload,
            API_HOST,
            METRICS_PORT,
            [("127.0.0.1", server.port("metrics"))],
            [API.account],
            secret,
            is_grpc=False,
        )
        for name, workload, secret in (("prometheus", prometheus, files), ("scraper", sibling("messaging"), other))
    ]
    return [(istio.read(rendered()), [*_callers(secrets, server), *scrapers])]
