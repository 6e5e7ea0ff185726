"""The header `x-forwarded-client-cert`, in which a sidecar tells whose certificate a connection showed.

It is a list of elements, one for each proxy on the way, the nearest last; an element is a list of `Key=value`. A value
that holds `,`, `;` or `"` stands in double quotes, and inside them a backslash takes the next character as it is. Only
what is well formed from its first character to its last is read: an unfinished quote, sent by whoever is in front,
would otherwise swallow the separator before the element that our own sidecar adds.
"""

from __future__ import annotations

import re
from typing import Final

#: The longest header that is read, in characters: certificates with their chains fit.
MAX_LENGTH: Final = 65_536

_PAIR = re.compile(r'[ \t]*([A-Za-z]{1,32})=(?:"((?:[^"\\]|\\.)*)"|([^",;]*))([,;]|\Z)', re.DOTALL)


def last_element(header: str) -> list[tuple[str, str]]:
    """The pairs of the last element, keys in lower case, values without their quotes and escapes.

    Raises ValueError, with what is wrong but nothing of the header, unless all of it is well formed.
    """
    if len(header) > MAX_LENGTH:
        raise ValueError(f"is longer than {MAX_LENGTH} characters")
    pairs: list[tuple[str, str]] = []
    position, separator = 0, ","
    while separator:
        found = _PAIR.match(header, position)
        if found is None:
            raise ValueError(f"is malformed at character {position}")
        if separator == ",":
            pairs = []
        key, quoted, plain, separator = found.groups()
        pairs.append((key.lower(), plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL)))
        position = found.end()
    return pairs
