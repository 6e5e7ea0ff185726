"""What has to hold among the resources of a release, beyond their schemas: every function yields what is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from inspect import signature
from typing import Any, Final

import yaml

from scheduling.app import service_names
from scheduling.domain.target import Queue
from scheduling.rpc.server import RpcServer
from scheduling.settings import PREFIX, Settings, SettingsError, address_variable, env_name, load_settings
from scheduling.telemetry.metrics import NAMESPACE, TABLE
from tests.helm.crds import Resource

#: What a pod needs after its drain: a worker records outcomes and signs off, each within its statement's timeout.
AFTER_DRAIN: Final = 5
#: Seconds that a server gives its calls.
GRACE: Final = float(signature(RpcServer.stop).parameters["grace"].default)
URLS: Final = {"SCHEDULING_DATABASE_URL": "postgresql://db/scheduling", "SCHEDULING_REDIS_URL": "redis://cache/0"}
KNOWN_ENV: Final = {env_name(field) for field in Settings.model_fields if field != "addresses"} | {
    address_variable(service) for service in service_names()
}
_SUFFIXES: Final = {
    "": Decimal(1), "m": Decimal("0.001"), "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9),
    "T": Decimal(10**12), "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40),
}  # fmt: skip
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)(m|k|M|G|T|Ki|Mi|Gi|Ti)?")
_WITH_PASSWORD = re.compile(r"[a-z+]+://[^/\s:@]*:[^/\s@]+@")
_SIDECAR = "sidecar.istio.io/proxy"
#: The siblings' pods are not ours; their label is what the chart's values say.
_SIBLING = re.compile(r"[a-z]+-service")

Labels = dict[str, str]
Check = Callable[[list[Resource]], Iterator[str]]


def told(resource: Resource) -> str:
    """How a resource is named in what is wrong with it."""
    return f"{resource['kind']}/{resource['metadata']['name']}"


def of_kind(resources: list[Resource], *kinds: str) -> Iterator[Resource]:
    """The resources of some kinds."""
    return (one for one in resources if one["kind"] in kinds)


def templates(resources: list[Resource]) -> Iterator[tuple[Resource, Resource]]:
    """Every workload with its pod template."""
    return ((one, one["spec"]["template"]) for one in of_kind(resources, "Deployment", "Job"))


def containers(resources: list[Resource]) -> Iterator[tuple[str, Resource, Resource]]:
    """Every container with its workload's name and its pod template."""
    for workload, template in templates(resources):
        spec = template["spec"]
        for container in (*spec.get("initContainers", []), *spec["containers"]):
            yield f"{told(workload)}/{container['name']}", template, container


def matches(selector: Labels, labels: Labels) -> bool:
    """Whether labels have all that a selector asks for."""
    return selector.items() <= labels.items()


def quantity(value: object) -> Decimal:
    """The number that a quantity of Kubernetes means. ValueError if it is none."""
    found = _QUANTITY.fullmatch(str(value))
    if found is None:
        raise ValueError(f"{value!r} is no quantity")
    return Decimal(found[1]) * _SUFFIXES[found[2] or ""]


def environment(container: Resource) -> dict[str, str]:
    """The variables of a container, with stand-ins for what secrets hold."""
    return {one["name"]: one.get("value", URLS.get(one["name"], "secret")) for one in container["env"]}


# --- selectors --------------------------------------------------------------------------------------------------------


def _pod_selector(one: Resource) -> Labels | None:
    spec = one.get("spec", {})
    match one["kind"]:
        case "Service":
            found = spec["selector"]
        case "PodDisruptionBudget" | "AuthorizationPolicy" | "PeerAuthentication" | "Telemetry":
            found = spec.get("selector", {}).get("matchLabels")
        case "DestinationRule":
            found = spec.get("workloadSelector", {}).get("matchLabels")
        case "NetworkPolicy":
            found = spec["podSelector"].get("matchLabels")
        case "EnvoyFilter":
            found = spec.get("workloadSelector", {}).get("labels")
        case _:
            found = None
    return dict(found) if found else None


def selectors_match(resources: list[Resource]) -> Iterator[str]:
    """What selects pods selects some, of ours or of a sibling."""
    pods = [template["metadata"]["labels"] for _, template in templates(resources)]
    if not pods:
        return  # the release that holds what colours share: their pods are in releases of their own
    for one in resources:
        selector = _pod_selector(one)
        siblings = selector is not None and list(selector) == ["app"] and _SIBLING.fullmatch(selector["app"])
        if selector is not None and not siblings and not any(matches(selector, labels) for labels in pods):
            yield f"{told(one)}: its selector matches no pod"
    for one in of_kind(resources, "VirtualService"):
        for route in one["spec"]["http"]:
            for match in route.get("match", []):
                selector = match.get("sourceLabels")
                if selector and not any(matches(selector, labels) for labels in pods):
                    yield f"{told(one)}: sourceLabels match no pod"


def workloads_select_their_own_pods(resources: list[Resource]) -> Iterator[str]:
    """A Deployment selects its own pods and no other's; so do the spread constraints and one disruption budget."""
    pods = [(told(workload), template["metadata"]["labels"]) for workload, template in templates(resources)]
    for workload, template in templates(resources):
        own = template["metadata"]["labels"]
        if workload["kind"] != "Deployment":
            continue
        selector = workload["spec"]["selector"]["matchLabels"]
        if [name for name, labels in pods if matches(selector, labels)] != [told(workload)]:
            yield f"{told(workload)}: its selector does not match its own pods alone"
        for spread in template["spec"].get("topologySpreadConstraints", []):
            if not matches(spread["labelSelector"]["matchLabels"], own):
                yield f"{told(workload)}: spreads other pods than its own"
        budgets = of_kind(resources, "PodDisruptionBudget")
        if sum(matches(one["spec"]["selector"]["matchLabels"], own) for one in budgets) != 1:
            yield f"{told(workload)}: expected exactly one disruption budget"


def services_reach_ports(resources: list[Resource]) -> Iterator[str]:
    """The ports of a Service are ports of every pod that it selects, and monitors select a port of a Service."""
    services = list(of_kind(resources, "Service"))
    for service in services:
        for _, template in templates(resources):
            if matches(service["spec"]["selector"], template["metadata"]["labels"]):
                names = {port["name"] for each in template["spec"]["containers"] for port in each.get("ports", [])}
                for port in service["spec"]["ports"]:
                    if port["targetPort"] not in names:
                        yield f"{told(service)}: no container port is called {port['targetPort']}"
    for monitor in of_kind(resources, "ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"]
        found = [one for one in services if matches(wanted, one["metadata"]["labels"])]
        if not found:
            yield f"{told(monitor)}: its selector matches no Service"
        ports = {port["name"] for one in found for port in one["spec"]["ports"]}
        if not {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} <= ports:
            yield f"{told(monitor)}: no such port at the Service"


def references_exist(resources: list[Resource]) -> Iterator[str]:
    """What is named is there: targets of autoscalers, service accounts, ConfigMaps, hosts of our own."""
    names = {told(one) for one in resources}
    for one in of_kind(resources, "HorizontalPodAutoscaler", "ScaledObject"):
        target = f"Deployment/{one['spec']['scaleTargetRef']['name']}"
        if target not in names:
            yield f"{told(one)}: there is no {target}"
    shared = any(of_kind(resources, "ServiceAccount"))
    for workload, template in templates(resources):
        if shared and f"ServiceAccount/{template['spec']['serviceAccountName']}" not in names:
            yield f"{told(workload)}: there is no such service account"
        mounted = {mount["name"] for each in template["spec"]["containers"] for mount in each["volumeMounts"]}
        if mounted != {volume["name"] for volume in template["spec"]["volumes"]}:
            yield f"{told(workload)}: volumes and mounts differ"
        for volume in template["spec"]["volumes"]:
            config = volume.get("configMap", {}).get("name")
            if config and not config.startswith("own-") and f"ConfigMap/{config}" not in names:
                yield f"{told(workload)}: there is no ConfigMap {config}"
    if len(names) != len(resources):
        yield "two resources have the same kind and name"
    hosts = {f"{one['metadata']['name']}.{one['metadata']['namespace']}.svc.cluster.local" for one in resources}
    for _, _, container in containers(resources):
        called = (value for name, value in environment(container).items() if name.endswith("_ADDRESS"))
        hosts.update(address.partition(":")[0] for address in called)
    for one in of_kind(resources, "DestinationRule", "VirtualService") if any(templates(resources)) else ():
        for host in one["spec"].get("hosts", [one["spec"].get("host")]):
            if host not in hosts:
                yield f"{told(one)}: neither we nor a sibling that we call is at {host}"


# --- pods -------------------------------------------------------------------------------------------------------------


def nothing_runs_as_root(resources: list[Resource]) -> Iterator[str]:
    """Numeric user, no privileges, nothing of the node, nothing writable but /tmp, no token of Kubernetes."""
    for workload, template in templates(resources):
        spec = template["spec"]
        pod = spec.get("securityContext", {})
        if not (
            pod.get("runAsNonRoot") is True and pod.get("runAsUser", 0) >= 1000 and pod.get("runAsGroup", 0) >= 1000
        ):
            yield f"{told(workload)}: may run as root"
        if pod.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{told(workload)}: no seccomp profile"
        if any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
            yield f"{told(workload)}: shares the node's namespaces"
        if spec.get("automountServiceAccountToken") is not False:
            yield f"{told(workload)}: mounts a token of Kubernetes"
        if any("hostPath" in volume for volume in spec.get("volumes", [])):
            yield f"{told(workload)}: mounts a folder of the node"
    for name, _, container in containers(resources):
        context = container.get("securityContext", {})
        if context.get("runAsUser", 1000) < 1000 or context.get("runAsNonRoot") is False:
            yield f"{name}: may run as root"
        if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
            yield f"{name}: may gain privileges"
        if context.get("readOnlyRootFilesystem") is not True:
            yield f"{name}: may write to its root"
        if context.get("capabilities") != {"drop": ["ALL"]}:
            yield f"{name}: keeps capabilities"


def images_are_pinned(resources: list[Resource]) -> Iterator[str]:
    """A tag that means one version, or a digest."""
    for name, _, container in containers(resources):
        image = container["image"]
        tag = image.partition("@")[0].rpartition("/")[2].partition(":")[2]
        if "@sha256:" not in image and not re.fullmatch(r"v?[0-9]+\.[0-9]+\.[0-9]+.*", tag):
            yield f"{name}: {image} is not pinned"


def secrets_are_references(resources: list[Resource]) -> Iterator[str]:
    """URLs come from a Secret that the chart does not hold, and no text has a password in it."""
    for one in of_kind(resources, "Secret"):
        yield f"{told(one)}: a secret in the chart"
    for name, _, container in containers(resources):
        for one in container["env"]:
            if one["name"] in URLS and "secretKeyRef" not in one.get("valueFrom", {}):
                yield f"{name}: {one['name']} is not taken from a Secret"
    for one in resources:
        if _WITH_PASSWORD.search(json.dumps(one)):
            yield f"{told(one)}: a password in a URL"


def environments_are_settings(resources: list[Resource]) -> Iterator[str]:
    """Every variable is a setting, and together they are settings that the process accepts."""
    for name, _, container in containers(resources):
        variables = [one["name"] for one in container["env"]]
        if len(variables) != len(set(variables)):
            yield f"{name}: a variable twice"
        for variable in variables:
            if variable not in KNOWN_ENV:
                yield f"{name}: {variable} is no setting"
        try:
            load_settings(environment(container), service_names())
        except SettingsError as error:
            yield f"{name}: {error}"


def quantities_are_quantities(resources: list[Resource]) -> Iterator[str]:
    """Requests and limits can be read, and nothing requests more than its limit."""
    for name, template, container in containers(resources):
        amounts = container["resources"]
        annotations = template["metadata"].get("annotations") or {}
        sidecar = [value for key, value in annotations.items() if key.startswith(_SIDECAR)]
        sizes = [volume["emptyDir"]["sizeLimit"] for volume in template["spec"]["volumes"] if "emptyDir" in volume]
        try:
            for value in (*sidecar, *sizes):
                quantity(value)
            for what, wanted in amounts["requests"].items():
                limit = amounts.get("limits", {}).get(what)
                if quantity(wanted) <= 0 or (limit is not None and quantity(wanted) > quantity(limit)):
                    yield f"{name}: requests more {what} than its limit"
        except ValueError as error:
            yield f"{name}: {error}"
        if "memory" not in amounts.get("limits", {}) or not {"cpu", "memory"} <= amounts["requests"].keys():
            yield f"{name}: requests of cpu and memory and a limit of memory are needed"


def pods_have_time_to_stop(resources: list[Resource]) -> Iterator[str]:
    """A pod is not killed before its process has drained; its sidecar lasts as long."""
    for name, template, container in containers(resources):
        if container["args"][0] not in ("server", "worker"):
            continue
        given = {key: value for key, value in environment(container).items() if key in KNOWN_ENV}
        try:
            settings = load_settings(given, service_names())
        except SettingsError:
            continue  # told by environments_are_settings
        drains = {
            "server": settings.server_drain.total_seconds() + GRACE,
            "worker": settings.worker_drain.total_seconds() + AFTER_DRAIN,
        }
        if template["spec"].get("terminationGracePeriodSeconds", 30) <= drains[container["args"][0]]:
            yield f"{name}: is killed before it has drained"
        if template["metadata"]["labels"].get("sidecar.istio.io/inject") == "true":
            config = yaml.safe_load(template["metadata"]["annotations"]["proxy.istio.io/config"])
            if config.get("proxyMetadata", {}).get("EXIT_ON_ZERO_ACTIVE_CONNECTIONS") != "true":
                yield f"{name}: the sidecar goes before the process"
            if config.get("holdApplicationUntilProxyStarts") is not True:
                yield f"{name}: the process starts before the sidecar"


def probes_ask_what_answers(resources: list[Resource]) -> Iterator[str]:
    """Three probes, at ports that the process listens on; liveness does not depend on PostgreSQL."""
    for name, _, container in containers(resources):
        role = container["args"][0]
        if role not in ("server", "worker"):
            continue
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        if environment(container)[f"{PREFIX}METRICS_LISTEN"] != f"0.0.0.0:{ports['metrics']}":
            yield f"{name}: metrics are listened on elsewhere"
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            given = container.get(probe, {})
            http = given.get("httpGet", {}) == {"path": "/healthz", "port": "metrics"}
            if role == "server" and probe == "readinessProbe":
                listen = environment(container)[f"{PREFIX}GRPC_LISTEN"]
                if listen != f"0.0.0.0:{given.get('grpc', {}).get('port')}" or given["grpc"]["port"] != ports["grpc"]:
                    yield f"{name}: {probe} asks another port than the server's"
            elif not http:
                yield f"{name}: {probe} does not ask /healthz"


def migrations_come_first(resources: list[Resource]) -> Iterator[str]:
    """The migration is a hook without a sidecar that would keep it from ending."""
    for workload, template in templates(resources):
        if workload["kind"] == "Job":
            hooks = workload["metadata"].get("annotations", {}).get("helm.sh/hook", "").split(",")
            if not {"pre-install", "pre-upgrade"} <= set(hooks):
                yield f"{told(workload)}: does not run before the release"
            if template["metadata"]["labels"].get("sidecar.istio.io/inject", "false") != "false":
                yield f"{told(workload)}: has a sidecar"


def queues_have_workers(resources: list[Resource]) -> Iterator[str]:
    """Each queue is served by a pool."""
    served = {
        queue
        for _, _, container in containers(resources)
        if container["args"][0] == "worker"
        for queue in environment(container)["SCHEDULING_QUEUES"].split(",")
    }
    if any(of_kind(resources, "Deployment")):
        yield from (f"queue {queue} has no worker" for queue in Queue if queue.lower() not in served)


def autoscalers_decide_alone(resources: list[Resource]) -> Iterator[str]:
    """What is autoscaled has no number of replicas of its own, and autoscalers ask for metrics that there are."""
    scaled = {}
    for one in of_kind(resources, "HorizontalPodAutoscaler", "ScaledObject"):
        spec = one["spec"]
        low, high = (
            spec.get(f"{edge}Replica{'s' if one['kind'][0] == 'H' else 'Count'}", 0) for edge in ("min", "max")
        )
        scaled[spec["scaleTargetRef"]["name"]] = one
        if not 1 <= low <= high:
            yield f"{told(one)}: {low} to {high} replicas"
        for metric in set(re.findall(rf"{NAMESPACE}_(\w+)", json.dumps(spec))):
            if metric not in {row.name for row in TABLE}:
                yield f"{told(one)}: there is no metric {metric}"
    for one in of_kind(resources, "Deployment"):
        if (one["metadata"]["name"] in scaled) == ("replicas" in one["spec"]):
            yield f"{told(one)}: replicas are said twice or never"


# --- mesh -------------------------------------------------------------------------------------------------------------


def policies_say_who_and_what(resources: list[Resource]) -> Iterator[str]:
    """Each rule names principals, ports and paths together; only plaintext metrics have no principal."""
    for one in of_kind(resources, "AuthorizationPolicy"):
        for rule in one["spec"].get("rules", []):
            operations = [to["operation"] for to in rule.get("to", [])]
            sources = [source["source"] for source in rule.get("from", [])]
            metrics = [each.get("paths") for each in operations] == [["/metrics"]]
            if not operations or not all(each.get("ports") and each.get("paths") for each in operations):
                yield f"{told(one)}: a rule without ports or paths"
            if any(path in ("*", "/*") for each in operations for path in each.get("paths", [])):
                yield f"{told(one)}: allows every path"
            if not (metrics or (sources and all(each.get("principals") for each in sources))):
                yield f"{told(one)}: a rule without principals"
            if any("*" in each.get("principals", []) for each in sources):
                yield f"{told(one)}: allows everybody"


def mesh_is_strict(resources: list[Resource]) -> Iterator[str]:
    """Mutual TLS everywhere, and never less at a port that serves calls."""
    for one in of_kind(resources, "PeerAuthentication"):
        if one["spec"].get("mtls", {}).get("mode") != "STRICT":
            yield f"{told(one)}: plaintext is let in"
        if set(one["spec"].get("portLevelMtls", {})) - {"9464"}:
            yield f"{told(one)}: plaintext is let in at a port"
    for one in of_kind(resources, "DestinationRule"):
        if one["spec"]["trafficPolicy"].get("tls", {}).get("mode") != "ISTIO_MUTUAL":
            yield f"{told(one)}: calls leave in plaintext"


def mesh_speaks_of_the_right_ports(resources: list[Resource]) -> Iterator[str]:
    """Ports in policies, filters and routes of our own API are those that the server listens on."""
    listened = {
        str(port["containerPort"]) for _, _, container in containers(resources) for port in container.get("ports", [])
    }
    if not listened:
        return
    for one in of_kind(resources, "AuthorizationPolicy"):
        if list(one["spec"]["selector"]["matchLabels"]) != ["app"]:
            for rule in one["spec"].get("rules", []):
                for to in rule.get("to", []):
                    if not set(to["operation"].get("ports", [])) <= listened:
                        yield f"{told(one)}: nobody listens on its port"
    for one in of_kind(resources, "EnvoyFilter"):
        for patch in one["spec"]["configPatches"]:
            if str(patch["match"]["listener"]["portNumber"]) not in listened:
                yield f"{told(one)}: nobody listens on its port"


def targets_are_never_retried(resources: list[Resource]) -> Iterator[str]:
    """Towards targets the mesh makes no attempts of its own, and no timeout is shorter than the longest deadline."""
    for one in of_kind(resources, "VirtualService"):
        for route in one["spec"]["http"]:
            if route["name"] == "scheduling":
                if route.get("retries") != {"attempts": 0}:
                    yield f"{told(one)}: the mesh repeats calls"
                if int(route["timeout"].removesuffix("s")) <= Settings().limit_timeout.total_seconds():
                    yield f"{told(one)}: the mesh cuts calls short"


CHECKS: Final[tuple[Check, ...]] = (
    selectors_match,
    workloads_select_their_own_pods,
    services_reach_ports,
    references_exist,
    nothing_runs_as_root,
    images_are_pinned,
    secrets_are_references,
    environments_are_settings,
    quantities_are_quantities,
    pods_have_time_to_stop,
    probes_ask_what_answers,
    migrations_come_first,
    queues_have_workers,
    autoscalers_decide_alone,
    policies_say_who_and_what,
    mesh_is_strict,
    mesh_speaks_of_the_right_ports,
    targets_are_never_retried,
)


def problems(resources: list[Resource]) -> list[str]:
    """Everything that is wrong among the resources of a release."""
    return [f"{check.__name__}: {found}" for check in CHECKS for found in check(resources)]


def changed(resources: list[Resource], kind: str, name: str) -> Any:
    """The one resource of this kind and name, to be changed by a test."""
    (found,) = [one for one in of_kind(resources, kind) if one["metadata"]["name"] == name]
    return found
