"""What has been worked out and may be wanted again, within bounds of memory.

Counting entries bounds nothing where a caller decides how large one is: a filter of a hundred comparisons makes a
statement of a megabyte, a calendar has tens of thousands of dates. So entries are weighed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import fields, is_dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

#: Bytes of a small object with its place in a collection.
_SMALL = 80


class Kept(Generic[K, V]):
    """Values by key. When all together weigh more than `limit` bytes, those unused for longest go.

    What weighs more than a quarter of that is not kept at all: it would drive out everything else. `weigh` is asked
    once for each entry; what it says need not be exact. For one thread.
    """

    def __init__(self, limit: int, weigh: Callable[[K, V], int]) -> None:
        self._limit = limit
        self._weigh = weigh
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()
        #: Bytes of all entries.
        self.weight = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> V | None:
        """The value that is kept for `key`, None if none is."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def clear(self) -> None:
        """Keeps nothing any more."""
        self._entries.clear()
        self.weight = 0

    def __setitem__(self, key: K, value: V) -> None:
        _, before = self._entries.pop(key, (None, 0))
        self.weight -= before
        weight = self._weigh(key, value)
        if weight > self._limit // 4:
            return
        self._entries[key] = (value, weight)
        self.weight += weight
        while self.weight > self._limit:
            _, (_, dropped) = self._entries.popitem(last=False)
            self.weight -= dropped


class KeptFunction(Generic[V]):
    """A function of values, called by position, whose results are kept. Errors and None are not."""

    def __init__(self, function: Callable[..., V], limit: int, factor: int) -> None:
        self._function = function
        self.kept = Kept[tuple[Hashable, ...], V](limit, lambda key, _: factor * weight_of(key))

    def __call__(self, *key: Hashable) -> V:
        found = self.kept.get(key)
        if found is None:
            found = self._function(*key)
            if found is not None:
                self.kept[key] = found
        return found


def keep(limit: int, factor: int) -> Callable[[Callable[..., V]], KeptFunction[V]]:
    """Decorates a function so that its results are kept, all of them in `limit` bytes. A result with its arguments
    counts as `factor` times the weight of these.
    """
    return lambda function: KeptFunction(function, limit, factor)


def weight_of(value: object) -> int:
    """About how many bytes a value holds: collections and dataclasses with all that is in them."""
    if isinstance(value, str | bytes):
        return _SMALL + len(value)
    if isinstance(value, tuple | list | frozenset):
        return _SMALL + sum(map(weight_of, value))
    if is_dataclass(value):
        return _SMALL + sum(weight_of(getattr(value, field.name)) for field in fields(value))
    return _SMALL
