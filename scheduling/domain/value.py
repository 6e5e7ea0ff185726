"""Values: dataclasses that nobody changes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(cls: type[T]) -> type[T]:
    """A dataclass with slots, equality and a hash, frozen by the type checker's word alone.

    `frozen=True` makes each field four times as dear to set, and a job on its way from the request into the tables
    passes a hundred fields: for what is made that often the check before it runs has to do.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)
