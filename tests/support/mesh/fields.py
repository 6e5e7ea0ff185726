"""Reading a resource so that no field of it is passed over: what nobody asked for is an error."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

#: Durations as Istio writes them: `1h30m`, `0.5s`, `500ms`.
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")


class Untranslatable(Exception):
    """A resource says something that has no translation here."""


class Fields:
    """The fields of one mapping. Use it in a `with` block, at whose end each of them must have been asked for."""

    def __init__(self, value: object, path: str) -> None:
        if not isinstance(value, Mapping):
            raise Untranslatable(f"{path}: is not a mapping")
        self._value = value
        self._left = set(value)
        self.path = path

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._left:
            names = ", ".join(sorted(map(str, self._left)))
            raise Untranslatable(f"{self.path}: no translation for {names}")

    def __contains__(self, name: str) -> bool:
        return name in self._value

    def _take(self, name: str) -> Any:
        self._left.discard(name)
        return self._value.get(name)

    def _typed(self, name: str, kind: type | tuple[type, ...], what: str) -> Any:
        value = self._take(name)
        if value is not None and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
            raise Untranslatable(f"{self.path}.{name}: is not {what}")
        return value

    def raw(self, name: str) -> Any:
        """Whatever it is, untouched."""
        return self._take(name)

    def text(self, name: str, *allowed: str) -> str | None:
        """A text, one of those allowed if any are named."""
        value = self._typed(name, str, "a text")
        if value is not None and allowed and value not in allowed:
            raise Untranslatable(f"{self.path}.{name}: no translation for {value!r}")
        return value if value is None else str(value)

    def number(self, name: str) -> int | None:
        """A whole number."""
        value = self._typed(name, int, "a whole number")
        return None if value is None else int(value)

    def flag(self, name: str) -> bool:
        """A boolean, false when it is not there."""
        return bool(self._typed(name, bool, "a boolean"))

    def duration(self, name: str) -> str | None:
        """A duration, as Envoy's JSON takes it (`1.5s`)."""
        text = self.text(name)
        if text is None:
            return None
        match = _DURATION.fullmatch(text)
        if not text or match is None:
            raise Untranslatable(f"{self.path}.{name}: is not a duration: {text!r}")
        hours, minutes, seconds, millis = (float(part or 0) for part in match.groups())
        return f"{hours * 3600 + minutes * 60 + seconds + millis / 1000:.6f}".rstrip("0").rstrip(".") + "s"

    def texts(self, name: str) -> list[str]:
        """A list of texts, empty when it is not there."""
        value = self._typed(name, Sequence, "a list")
        if isinstance(value, str) or any(not isinstance(each, str) for each in value or ()):
            raise Untranslatable(f"{self.path}.{name}: is not a list of texts")
        return list(value or ())

    def labels(self, name: str) -> dict[str, str]:
        """A mapping of texts, empty when it is not there."""
        value = self._typed(name, Mapping, "a mapping")
        return {str(key): str(each) for key, each in (value or {}).items()}

    def part(self, name: str) -> Fields | None:
        """A mapping, None when it is not there."""
        value = self._take(name)
        return None if value is None else Fields(value, f"{self.path}.{name}")

    def parts(self, name: str) -> list[Fields] | None:
        """A list of mappings, None when it is not there."""
        value = self._typed(name, list, "a list")
        return None if value is None else [Fields(each, f"{self.path}.{name}[{n}]") for n, each in enumerate(value)]
