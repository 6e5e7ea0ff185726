"""The shape of a case.

A module of `bench.cases` measures one group of figures. It has

    ABOUT: str                      one line for people
    FULL_ONLY: bool                 whether only `make bench-full` runs it; such a case repeats what it measures itself
    def measure(size: Size, say: Say) -> Measured

`measure` does one run, with a stack of its own (`bench.stack.running`), and returns what it found by name: those of
`bench.figures` are the budget, others are told beside them. The harness runs it `size.runs` times and takes the
medians. A ratio is taken of two things measured in the same run. Whatever changes a promise (durability, gates,
interceptors) is left as it is by default; the one limit that is lifted is L1, the jobs of an owner and day.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

#: Tells people what is going on.
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured. `full` is for what takes long; `scale` shrinks everything, to try a case out; `keep` is a
    folder for what takes long to make, which is found there the next time.
    """

    runs: int = 3
    full: bool = False
    scale: float = 1.0
    keep: str | None = None

    def of(self, count: int, least: int = 1) -> int:
        """A count at this scale."""
        return max(least, int(count * self.scale))


@dataclass(frozen=True, slots=True)
class Measured:
    """What one run found: figures by name, and series of numbers that plots are made of."""

    values: Mapping[str, float]
    series: Mapping[str, Sequence[float]] = field(default_factory=dict)
