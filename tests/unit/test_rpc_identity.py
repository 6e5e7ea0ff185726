"""Who calls, as a sidecar tells it: what is read, and that nothing which others put in front changes it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduling.rpc.authentication import KEPT_BYTES, FixedPrincipal, MeshIdentity, address_of
from scheduling.rpc.client_cert import MAX_LENGTH, last_element
from scheduling.rpc.errors import Unauthenticated

OWN = "spiffe://cluster.local/ns/whispr/sa/scheduling-service"
MESSAGING = "spiffe://cluster.local/ns/whispr/sa/messaging-service"
OPERATOR = "spiffe://cluster.local/ns/whispr/sa/operator"
HASH = "468ed33be74eee6556d90c0149c1309e9ba61d6425303443c0748a02dd8de688"
#: As Envoy writes it for a certificate without a subject.
ELEMENT = f'By={OWN};Hash={HASH};Subject="";URI={MESSAGING}'


@dataclass(frozen=True)
class Incoming:
    headers: tuple[str, ...] = (ELEMENT,)
    address: str = "ipv4:127.0.0.6:4711"

    def invocation_metadata(self) -> list[tuple[str, str | bytes]]:
        lines: list[tuple[str, str | bytes]] = [("x-forwarded-client-cert", each) for each in self.headers]
        return [("user-agent", "grpc"), *lines, ("x-bin", b"\0")]

    def peer(self) -> str:
        return self.address


def mesh() -> MeshIdentity:
    return MeshIdentity(OWN, ("127.0.0.6", "::6"))


def principal(*headers: str) -> str:
    return mesh()(Incoming(headers)).principal


def reason(call: Incoming) -> str:
    with pytest.raises(Unauthenticated) as caught:
        mesh()(call)
    assert MESSAGING not in caught.value.message
    return caught.value.reason


@pytest.mark.parametrize(
    "header",
    [
        ELEMENT,
        f"By={OWN};URI={MESSAGING}",
        f"URI={MESSAGING};By={OWN}",
        f'Hash={HASH};Cert="-----BEGIN%20CERTIFICATE-----%0A";Subject="CN=a\\,b,O=\\"x\\"";URI={MESSAGING};By={OWN}',
        f"By={OWN};Hash={HASH};URI={MESSAGING};DNS=a.example;DNS=b.example",
        f"By=spiffe://other/a;URI={OPERATOR},{ELEMENT}",
        f"By={OWN};URI={OPERATOR}, {ELEMENT}",
        f'By={OWN};Subject="a,b;URI={OPERATOR}";URI={OPERATOR},{ELEMENT}',
    ],
)
def test_the_caller_is_the_uri_of_the_last_element(header: str) -> None:
    assert principal(header) == MESSAGING


def test_several_lines_are_one_list() -> None:
    assert principal(f"By={OWN};URI={OPERATOR}", ELEMENT) == MESSAGING


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("nonsense", "MALFORMED_IDENTITY"),
        (ELEMENT + ",", "MALFORMED_IDENTITY"),
        ("," + ELEMENT, "MALFORMED_IDENTITY"),
        (ELEMENT + ";", "MALFORMED_IDENTITY"),
        (f'By="{OWN};URI={MESSAGING}', "MALFORMED_IDENTITY"),
        (f'By={OWN};Subject="x"y;URI={MESSAGING}', "MALFORMED_IDENTITY"),
        (f'Subject="{ELEMENT}', "MALFORMED_IDENTITY"),
        (f'Subject="\\,{ELEMENT}', "MALFORMED_IDENTITY"),
        ("By=" + "x" * MAX_LENGTH, "MALFORMED_IDENTITY"),
        (f"By={MESSAGING};URI={MESSAGING}", "FOREIGN_IDENTITY"),
        (f"By={OWN}x;URI={MESSAGING}", "FOREIGN_IDENTITY"),
        (f"By={OWN};By={OWN};URI={MESSAGING}", "FOREIGN_IDENTITY"),
        (f"{ELEMENT},URI={OPERATOR}", "FOREIGN_IDENTITY"),
        (f"By={OWN};Hash={HASH}", "NO_IDENTITY"),
        (f"By={OWN};URI={MESSAGING};URI={OPERATOR}", "NO_IDENTITY"),
        (f"By={OWN};URI={MESSAGING};uri={OPERATOR}", "NO_IDENTITY"),
        (f"By={OWN};URI=", "NO_IDENTITY"),
        (f"By={OWN};URI=https://example.com/x", "NO_IDENTITY"),
        (f"By={OWN};URI={MESSAGING} ", "NO_IDENTITY"),
        (f"By={OWN};URI=spiffe://cluster.local", "NO_IDENTITY"),
        (f"By={OWN};URI=spiffe://cluster.local/{'a' * 3000}", "NO_IDENTITY"),
    ],
)
def test_anything_else_is_refused(header: str, expected: str) -> None:
    assert reason(Incoming((header,))) == expected


def test_without_the_header_nobody_is_known() -> None:
    assert reason(Incoming(())) == "NO_IDENTITY"


@pytest.mark.parametrize(
    "address",
    ["ipv4:127.0.0.1:1", "ipv4:10.1.2.3:1", "ipv6:%5B::1%5D:1", "unix:/run/x", "unix:", "", "ipv4:x", "ipv4:127.0.0.6"],
)
def test_only_the_sidecar_is_believed(address: str) -> None:
    assert reason(Incoming((ELEMENT,), address)) == "UNTRUSTED_PEER"


@pytest.mark.parametrize(
    "address", ["ipv4:127.0.0.6:1", "ipv6:%5B::6%5D:1", "ipv6:[::6]:1", "ipv6:%5B::ffff:127.0.0.6%5D:9"]
)
def test_a_sidecar_is_known_by_its_address_of_either_kind(address: str) -> None:
    assert mesh()(Incoming((ELEMENT,), address)).principal == MESSAGING


def test_what_is_kept_of_callers_is_bounded_and_changes_no_answer() -> None:
    identity = mesh()
    for number in range(2000):
        uri = f"{MESSAGING}-{number:x<1900}"
        call = Incoming((f"By={OWN};URI={uri}",), f"ipv4:127.0.0.6:{number}")
        assert identity(call).principal == uri
        assert identity(call).principal == uri
    assert 0 < identity._callers.weight <= KEPT_BYTES
    assert 0 < identity._peers.weight <= KEPT_BYTES


def test_a_fixed_principal_asks_nobody() -> None:
    assert FixedPrincipal(MESSAGING)(Incoming((), "")).principal == MESSAGING


_PIECES = st.lists(
    st.sampled_from([",", ";", '"', "\\", "=", " ", f"By={OWN}", f"URI={OPERATOR}", 'Subject="', "Hash=a", "x", "\n"])
).map("".join)
_SUBJECTS = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=20).map(
    lambda text: text.replace("\\", "\\\\").replace('"', '\\"')
)


@given(front=_PIECES | st.text(max_size=60), subject=st.none() | _SUBJECTS)
def test_whatever_stands_in_front_never_changes_the_principal(front: str, subject: str | None) -> None:
    told = "" if subject is None else f'Subject="{subject}";'
    try:
        found = principal(f"{front},By={OWN};Hash={HASH};{told}URI={MESSAGING}")
    except Unauthenticated:
        return
    assert found == MESSAGING


@given(st.text() | _PIECES)
def test_no_header_fails_in_another_way_than_refusal(header: str) -> None:
    try:
        pairs = last_element(header)
    except ValueError:
        return
    assert pairs


_KEYS = st.sampled_from(["By", "Hash", "Cert", "Subject", "URI", "DNS"])


@given(st.lists(st.lists(st.tuples(_KEYS, st.text(max_size=30)), min_size=1, max_size=6), min_size=1, max_size=4))
def test_what_is_written_by_the_rules_is_read_back(elements: list[list[tuple[str, str]]]) -> None:
    def quoted(value: str) -> str:
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'

    header = ",".join(";".join(f"{key}={quoted(value)}" for key, value in element) for element in elements)
    assert last_element(header) == [(key.lower(), value) for key, value in elements[-1]]


def test_addresses_are_read_from_the_names_of_peers() -> None:
    assert str(address_of("ipv4:127.0.0.6:80")) == "127.0.0.6"
    assert str(address_of("ipv6:%5B2001:db8::1%5D:80")) == "2001:db8::1"
    assert address_of("unix:/tmp/socket") is None
