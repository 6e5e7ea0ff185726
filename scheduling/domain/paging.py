"""Pages of list methods (AIP-158): sizes, and tokens that say where the next page starts.

A token holds a keyset position, the sort key of the last item shown, so that a page costs the same wherever it is and
items that come and go in between neither repeat nor hide others. A digest binds it to the arguments it was made for. It
is not signed, since it opens nothing: a forged one is a place in a list that the caller may read anyway.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeGuard, TypeVar

from scheduling.domain.errors import InvalidRequest, invalid

DEFAULT_PAGE_SIZE: Final = 50
MAX_PAGE_SIZE: Final = 1000
MAX_TOKEN_LENGTH: Final = 1000  #: characters, as the API declares it

Position = tuple[str | int | None, ...]
Bound = Mapping[str, str | int | bool | None]

_T = TypeVar("_T")
_VERSION: Final = 1


def page_size(requested: int) -> int:
    """The size to use: the default for 0, the maximum for more than that. InvalidRequest if negative."""
    if requested < 0:
        raise invalid("page_size", "expected 0 or more", "INVALID_PAGE_SIZE")
    return min(requested or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)


@dataclass(frozen=True, slots=True)
class PageToken:
    """Where a page starts: after the item whose sort key is `position`.

    Elements are texts, whole numbers of 64 bits (times as microseconds) and None; at least one.
    """

    position: Position

    def encode(self, bound: Bound) -> str:
        """The opaque text for callers, bound to the arguments that must stay the same: parent, filter, order, view.

        The page size is not among them, as AIP-158 lets it change. ValueError if `position` is not one, or too long.
        """
        if not _is_position(self.position):
            raise ValueError("a position is at least one text, 64-bit number or None")
        body = _compact([_VERSION, _digest(bound), *self.position])
        text = base64.urlsafe_b64encode(body).decode().rstrip("=")
        if len(text) > MAX_TOKEN_LENGTH:
            raise ValueError("the position is too long for a page token")
        return text

    @classmethod
    def decode(cls, text: str, bound: Bound) -> PageToken | None:
        """The token that `encode` made with the same `bound`; None for an empty text, which means the first page.

        InvalidRequest on `page_token` if it is malformed or was made for other arguments.
        """
        if not text:
            return None
        match _content(text):
            case [int(version), str(digest), *rest] if version == _VERSION and _is_position(position := tuple(rest)):
                if digest != _digest(bound):
                    raise invalid(
                        "page_token",
                        "it belongs to a list with other arguments; expected the same ones, or no token",
                        "PAGE_TOKEN_MISMATCH",
                    )
                return cls(position)
            case _:
                raise _malformed()

    def read(self, parse: Callable[[Position], _T]) -> _T:
        """What `parse` makes of the position.

        A token may be forged, so its elements may be other than expected: where `parse` raises ValueError, TypeError,
        LookupError or OverflowError, this raises InvalidRequest on `page_token`.
        """
        try:
            return parse(self.position)
        except (ValueError, TypeError, LookupError, OverflowError) as error:
            raise _malformed() from error


def _malformed() -> InvalidRequest:
    return invalid("page_token", "expected the next_page_token of an earlier answer", "INVALID_PAGE_TOKEN")


def _content(text: str) -> object:
    """The JSON inside a token, None if it is not in the one form that `encode` writes."""
    if len(text) > MAX_TOKEN_LENGTH or not text.isascii():
        return None
    try:
        body = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        content: object = json.loads(body)
        canonical = _compact(content) == body and base64.urlsafe_b64encode(body).decode().rstrip("=") == text
    except (ValueError, RecursionError):
        return None
    return content if canonical else None


def _compact(content: object) -> bytes:
    return json.dumps(content, separators=(",", ":"), ensure_ascii=True).encode()


def _digest(bound: Bound) -> str:
    return hashlib.sha256(_compact(sorted(bound.items()))).hexdigest()[:24]


def _is_position(position: tuple[object, ...]) -> TypeGuard[Position]:
    return len(position) > 0 and all(_is_element(element) for element in position)


def _is_element(element: object) -> bool:
    match element:
        case None:
            return True
        case bool():
            return False
        case int():
            return -(2**63) <= element < 2**63
        case str():
            # PostgreSQL stores neither NUL nor halves of surrogate pairs.
            return "\0" not in element and not any("\ud800" <= character <= "\udfff" for character in element)
        case _:
            return False
