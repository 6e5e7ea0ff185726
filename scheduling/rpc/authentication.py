"""Who is calling."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import unquote

from scheduling.domain.kept import Kept, weight_of
from scheduling.rpc.client_cert import last_element
from scheduling.rpc.errors import Unauthenticated

#: Where the sidecar tells who called.
CLIENT_CERT_KEY: Final = "x-forwarded-client-cert"
#: Bytes of headers, and of peers, whose meaning is kept: both are the same for as long as a connection lasts.
KEPT_BYTES: Final = 2 * 1024 * 1024

_SPIFFE_ID = re.compile(r"spiffe://[a-z0-9._-]{1,255}(?:/[A-Za-z0-9._-]+)+")
_LONGEST_ID: Final = 2048


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller. `principal` is the identity of the calling service, such as `spiffe://…`."""

    principal: str


class Incoming(Protocol):
    """What can be known of a call before it is served: the part of grpc.aio.ServicerContext that tells."""

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]]:
        """The request metadata, keys in lower case, in the order in which it came."""
        ...

    def peer(self) -> str:
        """The other end of the connection, as gRPC names it: `ipv4:127.0.0.1:4711`."""
        ...


class Authenticator(Protocol):
    """Tells who makes a call."""

    def __call__(self, call: Incoming) -> Caller:
        """The caller behind this call. Raises `errors.Unauthenticated` when it cannot be told."""
        ...


@dataclass(frozen=True, slots=True)
class FixedPrincipal:
    """Takes everybody for the same caller: for networks where no mesh vouches for identities."""

    principal: str

    def __call__(self, call: Incoming) -> Caller:  # noqa: ARG002 - the protocol's signature
        """The fixed caller, whatever the metadata says."""
        return Caller(self.principal)


class MeshIdentity:
    """Takes the sidecar's word for who calls, and nobody else's.

    Only the last element of the header counts, the one that our own sidecar wrote: its `By` has to be `own`, the
    identity that this server has in the mesh, and its `URI` is the caller. It is believed only on connections from
    `trusted` addresses.
    """

    def __init__(self, own: str, trusted: Iterable[str]) -> None:
        self._own = own
        self._trusted = frozenset(ipaddress.ip_address(each) for each in trusted)
        self._callers = Kept[str, Caller](KEPT_BYTES, lambda header, _: 2 * weight_of(header))
        self._peers = Kept[str, bool](KEPT_BYTES, lambda peer, _: 2 * weight_of(peer))

    def __call__(self, call: Incoming) -> Caller:
        """The caller that the sidecar names. Raises Unauthenticated."""
        peer = call.peer()
        trusted = self._peers.get(peer)
        if trusted is None:
            trusted = address_of(peer) in self._trusted
            self._peers[peer] = trusted
        if not trusted:
            raise Unauthenticated(
                "identities are taken from the sidecar only, and this connection does not come from it",
                reason="UNTRUSTED_PEER",
            )
        # Several lines of one header are one list (RFC 9110, 5.3).
        header = ",".join([str(value) for key, value in call.invocation_metadata() if key == CLIENT_CERT_KEY])
        if not header:
            raise Unauthenticated(f"the sidecar sent no {CLIENT_CERT_KEY}", reason="NO_IDENTITY")
        caller = self._callers.get(header)
        if caller is None:
            caller = Caller(self._read(header))
            self._callers[header] = caller
        return caller

    def _read(self, header: str) -> str:
        try:
            pairs = last_element(header)
        except ValueError as error:
            raise Unauthenticated(f"{CLIENT_CERT_KEY} {error}", reason="MALFORMED_IDENTITY") from None
        if [value for key, value in pairs if key == "by"] != [self._own]:
            raise Unauthenticated(
                f"the last element of {CLIENT_CERT_KEY} was not written by our own sidecar", reason="FOREIGN_IDENTITY"
            )
        names = [value for key, value in pairs if key == "uri"]
        if len(names) != 1 or len(names[0]) > _LONGEST_ID or not _SPIFFE_ID.fullmatch(names[0]):
            raise Unauthenticated(
                f"the last element of {CLIENT_CERT_KEY} has no single SPIFFE identity as its URI", reason="NO_IDENTITY"
            )
        return names[0]


def address_of(peer: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address in gRPC's name of a peer (`ipv4:127.0.0.6:4711`, `ipv6:%5B::6%5D:4711`); None for any other."""
    kind, _, rest = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return None
    host = unquote(rest).rpartition(":")[0].removeprefix("[").removesuffix("]")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    # A server that listens on [::] sees IPv4 peers so.
    return getattr(address, "ipv4_mapped", None) or address
