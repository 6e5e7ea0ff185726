"""Who is calling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller. `principal` is the identity of the calling service, such as `spiffe://…`."""

    principal: str


class Authenticator(Protocol):
    """Tells who makes a call."""

    def __call__(self, metadata: Mapping[str, str]) -> Caller:
        """The caller behind this request metadata (lower-case keys, text values; the last of equal keys).

        Raises `errors.Unauthenticated` when it cannot be told, PermissionDenied when that caller may not call at all.
        """
        ...


@dataclass(frozen=True, slots=True)
class FixedPrincipal:
    """Takes everybody for the same caller: for networks where no mesh vouches for identities."""

    principal: str

    def __call__(self, metadata: Mapping[str, str]) -> Caller:  # noqa: ARG002 - the protocol's signature
        """The fixed caller, whatever the metadata says."""
        return Caller(self.principal)
