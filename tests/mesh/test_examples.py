"""The translator against a real Envoy: resources in the shape of those that Istio's own pages show, and requests with
the verdict that those pages promise.
"""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import yaml

from tests.support.mesh import istio
from tests.support.mesh.certificates import Authority, SecretFiles, spiffe
from tests.support.mesh.envoy import Envoy
from tests.support.mesh.istio import Workload
from tests.support.mesh.sidecar import Inbound, configuration
from tests.support.service import PATIENCE

ALLOWED, DENIED, CUT_OFF = 200, 403, "cut off"
#: Callers: namespace and service account; nobody speaks no TLS at all.
SLEEP, TESTER, OTHER = ("default", "sleep"), ("test", "tester"), ("other", "other")
NOBODY: tuple[str, str] | None = None
WORKLOAD = Workload("httpbin", {"app": "httpbin", "version": "v1"}, "foo")

STRICT = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: foo}
spec: {mtls: {mode: STRICT}}
"""


@dataclass(frozen=True)
class Ask:
    """A request and its verdict."""

    verdict: int | str
    caller: tuple[str, str] | None = SLEEP
    method: str = "GET"
    path: str = "/"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Example:
    """Resources and what they make of requests to one port of the workload."""

    name: str
    resources: str
    asks: tuple[Ask, ...]
    port: int = 8000
    workload: Workload = WORKLOAD


def policy(spec: str, name: str = "httpbin", namespace: str = "foo") -> str:
    """An AuthorizationPolicy with this spec, written as YAML's flow style."""
    return (
        f"---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
        f"metadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )


def authentication(spec: str, name: str = "default", namespace: str = "foo") -> str:
    """A PeerAuthentication with this spec."""
    return (
        f"---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\n"
        f"metadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )


EXAMPLES = (
    Example("nothing is said, everybody may", STRICT, (Ask(ALLOWED), Ask(ALLOWED, OTHER, "POST", "/any"))),
    Example("an empty policy allows nothing", STRICT + policy("{}"), (Ask(DENIED), Ask(DENIED, OTHER, "POST"))),
    Example("an empty rule allows everything", STRICT + policy("{rules: [{}]}"), (Ask(ALLOWED), Ask(ALLOWED, OTHER))),
    Example(
        "a policy of another namespace or for other labels does not count",
        STRICT
        + policy("{selector: {matchLabels: {app: reviews}}}")
        + policy("{}", namespace="bar")
        + policy("{selector: {matchLabels: {app: httpbin, version: v2}}}", "v2"),
        (Ask(ALLOWED),),
    ),
    Example(
        "a policy of the root namespace counts everywhere",
        STRICT + policy("{selector: {matchLabels: {app: httpbin}}}", namespace="istio-system"),
        (Ask(DENIED),),
    ),
    Example(
        "only reading",
        STRICT + policy("{selector: {matchLabels: {app: httpbin}}, rules: [{to: [{operation: {methods: [GET]}}]}]}"),
        (Ask(ALLOWED), Ask(DENIED, method="POST"), Ask(DENIED, method="DELETE")),
    ),
    Example(
        "a caller or a namespace, together with one of two operations",
        STRICT
        + policy("""{action: ALLOW, rules: [{
            from: [{source: {principals: [cluster.local/ns/default/sa/sleep]}}, {source: {namespaces: [test]}}],
            to: [{operation: {methods: [GET], paths: [/info*]}}, {operation: {methods: [POST], paths: [/data]}}]}]}"""),
        (
            Ask(ALLOWED, SLEEP, "GET", "/info"),
            Ask(ALLOWED, SLEEP, "GET", "/information/more"),
            Ask(ALLOWED, TESTER, "GET", "/info?with=query"),
            Ask(ALLOWED, TESTER, "POST", "/data"),
            Ask(ALLOWED, SLEEP, "POST", "/data?x"),
            Ask(DENIED, SLEEP, "POST", "/info"),
            Ask(DENIED, SLEEP, "GET", "/data"),
            Ask(DENIED, SLEEP, "POST", "/data/more"),
            Ask(DENIED, SLEEP, "GET", "/"),
            Ask(DENIED, OTHER, "GET", "/info"),
            Ask(DENIED, ("default", "sleep2"), "GET", "/info"),
        ),
    ),
    Example(
        "from and to in separate rules are alternatives, which opens more than it looks",
        STRICT
        + policy("""{rules: [
            {from: [{source: {principals: [cluster.local/ns/default/sa/sleep]}}]},
            {to: [{operation: {paths: [/info]}}]}]}"""),
        (
            Ask(ALLOWED, SLEEP, "POST", "/secret"),
            Ask(ALLOWED, OTHER, "GET", "/info"),
            Ask(DENIED, OTHER, path="/secret"),
        ),
    ),
    Example(
        "a denial wins over any permission",
        STRICT
        + policy("{rules: [{}]}", "allow-all")
        + policy("{action: DENY, rules: [{to: [{operation: {methods: [GET]}}]}]}", "deny-get"),
        (Ask(DENIED), Ask(ALLOWED, method="POST"), Ask(DENIED, OTHER)),
    ),
    Example(
        "a denial alone lets everything else through",
        STRICT + policy("{action: DENY, rules: [{to: [{operation: {paths: [/admin*]}}]}]}"),
        (
            Ask(DENIED, path="/admin"),
            Ask(DENIED, path="/admin/x"),
            Ask(ALLOWED, path="/"),
            Ask(ALLOWED, path="/x/admin"),
        ),
    ),
    Example(
        "a denial without rules denies nothing",
        STRICT + policy("{action: DENY}"),
        (Ask(ALLOWED), Ask(ALLOWED, OTHER, "POST")),
    ),
    Example(
        "denied unless a header has the value",
        STRICT
        + policy("""{action: DENY, rules: [{
            to: [{operation: {methods: [GET]}}],
            when: [{key: "request.headers[x-token]", notValues: [admin]}]}]}"""),
        (
            Ask(DENIED),
            Ask(DENIED, headers={"x-token": "guest"}),
            Ask(ALLOWED, headers={"x-token": "admin"}),
            Ask(ALLOWED, method="POST"),
        ),
    ),
    Example(
        "conditions all have to hold, their values are alternatives",
        STRICT
        + policy("""{rules: [{when: [
            {key: "request.headers[x-kind]", values: [a*, "*z"]},
            {key: source.namespace, values: [default, test]}]}]}"""),
        (
            Ask(ALLOWED, headers={"x-kind": "abc"}),
            Ask(ALLOWED, TESTER, headers={"x-kind": "xyz"}),
            Ask(DENIED, headers={"x-kind": "bcd"}),
            Ask(DENIED),
            Ask(DENIED, OTHER, headers={"x-kind": "abc"}),
        ),
    ),
    Example(
        "everybody but some",
        STRICT
        + policy("""{action: DENY, rules: [{from: [{source: {notPrincipals: [
            cluster.local/ns/default/sa/sleep, "*/sa/tester"]}}]}]}"""),
        (Ask(ALLOWED, SLEEP), Ask(ALLOWED, TESTER), Ask(DENIED, OTHER)),
    ),
    Example(
        "everything but some paths",
        STRICT
        + policy("""{rules: [{
            from: [{source: {namespaces: [default], notPrincipals: [cluster.local/ns/default/sa/guest]}}],
            to: [{operation: {notPaths: [/private*, "*.key"]}}]}]}"""),
        (
            Ask(ALLOWED, path="/public"),
            Ask(DENIED, path="/private/x"),
            Ask(DENIED, path="/x.key"),
            Ask(DENIED, ("default", "guest"), path="/public"),
            Ask(DENIED, TESTER, path="/public"),
        ),
    ),
    Example(
        "patterns of principals: prefix, suffix, any",
        STRICT
        + policy("""{rules: [
            {from: [{source: {principals: [cluster.local/ns/test/*]}}], to: [{operation: {paths: [/prefix]}}]},
            {from: [{source: {principals: ["*/sa/sleep"]}}], to: [{operation: {paths: ["*/suffix"]}}]},
            {from: [{source: {principals: ["*"]}}], to: [{operation: {paths: [/any]}}]}]}"""),
        (
            Ask(ALLOWED, TESTER, path="/prefix"),
            Ask(DENIED, SLEEP, path="/prefix"),
            Ask(ALLOWED, SLEEP, path="/a/suffix"),
            Ask(DENIED, TESTER, path="/a/suffix"),
            Ask(ALLOWED, OTHER, path="/any"),
        ),
    ),
    Example(
        "a name is not taken for a longer one, nor a dot for any character",
        STRICT
        + policy("{rules: [{from: [{source: {namespaces: [te.t]}}]}, {from: [{source: {namespaces: [def*]}}]}]}"),
        (Ask(DENIED, TESTER), Ask(ALLOWED, SLEEP), Ask(DENIED, ("xdefault", "sleep"))),
    ),
    Example(
        "a host and a port",
        STRICT
        + policy("""{rules: [{to: [{operation: {ports: ["8000"], hosts: [httpbin.foo, "*.example.com"]}}]},
            {to: [{operation: {ports: ["9000"]}}]}]}"""),
        (
            Ask(ALLOWED, headers={"Host": "httpbin.foo"}),
            Ask(ALLOWED, headers={"Host": "WWW.example.com"}),
            Ask(DENIED, headers={"Host": "httpbin.bar"}),
        ),
    ),
    Example(
        "another port of the same workload",
        STRICT
        + policy("""{rules: [{to: [{operation: {ports: ["8000"]}}]}, {when: [
            {key: destination.port, values: ["9000"]}, {key: source.principal, values: ["*/sleep"]}]}]}"""),
        (Ask(ALLOWED, SLEEP), Ask(DENIED, OTHER)),
        port=9000,
    ),
    Example("strict mutual TLS", STRICT, (Ask(ALLOWED, SLEEP), Ask(CUT_OFF, NOBODY))),
    Example("permissive by default", policy("{rules: [{}]}"), (Ask(ALLOWED, SLEEP), Ask(ALLOWED, NOBODY))),
    Example(
        "permissive, and only the authenticated",
        authentication("{mtls: {mode: PERMISSIVE}}") + policy('{rules: [{from: [{source: {principals: ["*"]}}]}]}'),
        (Ask(ALLOWED, SLEEP), Ask(DENIED, NOBODY)),
    ),
    Example(
        "the workload's word is over the namespace's, and that over the mesh's",
        authentication("{mtls: {mode: DISABLE}}", namespace="istio-system")
        + authentication("{mtls: {mode: STRICT}}")
        + authentication("{selector: {matchLabels: {app: httpbin}}, mtls: {mode: PERMISSIVE}}", "httpbin"),
        (Ask(ALLOWED, SLEEP), Ask(ALLOWED, NOBODY)),
    ),
    Example(
        "unset is what lies around it",
        authentication("{mtls: {mode: STRICT}}", namespace="istio-system") + authentication("{mtls: {mode: UNSET}}"),
        (Ask(ALLOWED, SLEEP), Ask(CUT_OFF, NOBODY)),
    ),
    Example(
        "one port without TLS",
        STRICT
        + authentication(
            "{selector: {matchLabels: {app: httpbin}}, mtls: {mode: STRICT}, portLevelMtls: {8080: {mode: DISABLE}}}",
            "h",
        ),
        (Ask(ALLOWED, NOBODY), Ask(CUT_OFF, SLEEP)),
        port=8080,
    ),
    Example(
        "the other ports of that workload",
        STRICT
        + authentication("{selector: {matchLabels: {app: httpbin}}, portLevelMtls: {8080: {mode: DISABLE}}}", "h"),
        (Ask(ALLOWED, SLEEP), Ask(CUT_OFF, NOBODY)),
    ),
)


@pytest.fixture(scope="module")
def authority() -> Authority:
    """The mesh's authority."""
    return Authority()


@pytest.fixture(scope="module")
def gate(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Envoy]:
    """One Envoy with a listener for each example, which answers 200 to what gets through."""
    folder = tmp_path_factory.mktemp("examples")
    secrets = SecretFiles(folder / "httpbin", authority.issue(spiffe("httpbin", namespace="foo")), authority.root)
    parts = [
        (
            istio.read([each for each in yaml.safe_load_all(example.resources) if each]),
            [Inbound(example.name, example.workload, example.port, secrets, is_grpc=False)],
        )
        for example in EXAMPLES
    ]
    with Envoy(configuration(parts), folder, "examples") as envoy:
        yield envoy.wait_ready()


@pytest.fixture(scope="module")
def proofs(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], ssl.SSLContext]:
    """The TLS contexts of all callers."""
    folder = tmp_path_factory.mktemp("callers")
    made = {}
    for caller in {ask.caller for example in EXAMPLES for ask in example.asks if ask.caller}:
        namespace, account = caller
        certificate = authority.issue(spiffe(account, namespace=namespace))
        path = folder / f"{namespace}-{account}.pem"
        path.write_text(certificate.chain + certificate.key, encoding="utf-8")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # The identity is a SPIFFE one, which Python cannot check; these tests are about the server's check.
        context.check_hostname = False
        context.load_verify_locations(cadata=authority.root)
        context.load_cert_chain(path)
        made[caller] = context
    return made


def verdict(port: int, ask: Ask, context: ssl.SSLContext | None) -> int | str:
    """What a request gets."""
    connection = (
        http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        if context is None
        else http.client.HTTPSConnection("127.0.0.1", port, timeout=PATIENCE, context=context)
    )
    try:
        connection.request(ask.method, ask.path, headers=ask.headers)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return CUT_OFF
    finally:
        connection.close()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_an_example_gives_what_its_page_promises(
    example: Example, gate: Envoy, proofs: dict[tuple[str, str], ssl.SSLContext]
) -> None:
    port = gate.port(example.name)
    found = [verdict(port, ask, proofs[ask.caller] if ask.caller else None) for ask in example.asks]
    assert found == [ask.verdict for ask in example.asks]
