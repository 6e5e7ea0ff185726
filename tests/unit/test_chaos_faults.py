"""The chaos suite kills backends under statements that it knows by their text."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

import pytest

import scheduling.storage
from scheduling.storage.binary import Numbered
from tests.chaos.faults import KINDS, Kind, is_kind


def statements() -> Iterator[tuple[str, str]]:
    """All statements that the modules of the storage room hold, by their names."""
    for module in pkgutil.iter_modules(scheduling.storage.__path__):
        if not module.ispkg:
            for name, value in vars(importlib.import_module(f"scheduling.storage.{module.name}")).items():
                if isinstance(value, str | Numbered):
                    yield f"{module.name}.{name}", value if isinstance(value, str) else value.text.decode()


STATEMENTS = dict(statements())


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_each_kind_of_statement_is_known_by_its_text(kind: Kind) -> None:
    found = [name for name, text in STATEMENTS.items() if is_kind(kind, text)]
    assert found, f"no statement of the storage room is a {kind.name}: its pattern has to follow the SQL"


def test_no_statement_is_of_two_kinds() -> None:
    for name, text in STATEMENTS.items():
        found = [kind.name for kind in KINDS if is_kind(kind, text)]
        assert len(found) <= 1, f"{name} is taken for {' and '.join(found)}"
