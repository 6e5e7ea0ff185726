"""Checks custom resources as an API server would: by the schema of their definition, strictly, and by its CEL rules.

The definitions are read from the folder that SCHEDULING_TEST_CRDS names, or `shared/crds` beside the project. They are
not part of it: without them custom resources are checked against each other only, and a test says so by being skipped.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, cast

import celpy
import celpy.adapter
import celpy.evaluation
import jsonschema
import yaml

ROOT: Final = Path(__file__).resolve().parents[2]
#: Fields that a definition still has although they are deprecated: (kind, field).
DEPRECATED: Final = frozenset({("DestinationRule", "consecutiveErrors")})
Resource = dict[str, Any]
LOADER: Final = cast("type[yaml.SafeLoader]", getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def folder() -> Path | None:
    """Where the definitions are, or None if they are nowhere. A folder that is named has to exist."""
    named = os.environ.get("SCHEDULING_TEST_CRDS")  # noqa: TID251 - belongs to the tests
    if named:
        return Path(named)
    # A worktree may lie deeper than a checkout.
    return next((path for parent in ROOT.parents if (path := parent / "shared" / "crds").is_dir()), None)


@cache
def definitions() -> Definitions:
    """The definitions, read once."""
    found = folder()
    assert found is not None
    return Definitions(sorted(found.glob("*.yaml")))


class Definitions:
    """Custom resource definitions from files."""

    def __init__(self, files: list[Path]) -> None:
        self._schemas: dict[tuple[str, str], dict[str, Any]] = {}
        for path in files:
            for definition in yaml.load_all(path.read_text(), LOADER):
                if definition:
                    spec = definition["spec"]
                    for version in spec["versions"]:
                        key = f"{spec['group']}/{version['name']}", spec["names"]["kind"]
                        self._schemas[key] = version["schema"]["openAPIV3Schema"]
        self._validators: dict[tuple[str, str], jsonschema.Draft202012Validator] = {}
        self._environment = celpy.Environment()
        self._programs: dict[str, celpy.Runner] = {}

    def __contains__(self, resource: Resource) -> bool:
        return (resource["apiVersion"], resource["kind"]) in self._schemas

    def problems(self, resource: Resource) -> list[str]:
        """What is wrong with a resource. Raises KeyError for a kind that is not defined."""
        key = resource["apiVersion"], resource["kind"]
        schema = self._schemas[key]
        validator = self._validators.get(key)
        if validator is None:
            strict = _strict(schema)
            strict["properties"] = strict["properties"] | {
                "apiVersion": {"type": "string"},
                "kind": {"type": "string"},
                "metadata": {"type": "object"},
            }
            validator = self._validators[key] = jsonschema.Draft202012Validator(strict)
        found = [f"{'/'.join(map(str, one.absolute_path))}: {one.message}" for one in validator.iter_errors(resource)]
        return found + list(self._broken_rules(schema, resource, "", resource["kind"]))

    def _broken_rules(self, schema: Mapping[str, Any], value: Any, path: str, kind: str) -> Iterator[str]:
        for rule in schema.get("x-kubernetes-validations", ()):
            if not self._holds(rule["rule"], value):
                yield f"{path}: {rule.get('message') or rule['rule']}"
        if isinstance(value, dict):
            for name, inner in value.items():
                if (kind, name) in DEPRECATED:
                    yield f"{path}/{name}: deprecated"
                below = schema.get("properties", {}).get(name) or schema.get("additionalProperties")
                if isinstance(below, dict):
                    yield from self._broken_rules(below, inner, f"{path}/{name}", kind)
        elif isinstance(value, list) and isinstance(schema.get("items"), dict):
            for number, inner in enumerate(value):
                yield from self._broken_rules(schema["items"], inner, f"{path}/{number}", kind)

    def _holds(self, rule: str, value: Any) -> bool:
        program = self._programs.get(rule)
        if program is None:
            program = self._programs[rule] = self._environment.program(self._environment.compile(rule))
        try:
            return bool(program.evaluate({"self": celpy.adapter.json_to_cel(value)}))
        except celpy.evaluation.CELEvalError:
            return False


def _strict(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema as the server's strict mode has it: unknown fields are refused. Choices (oneOf …) are left alone."""
    made = dict(schema)
    if "properties" in made:
        made["properties"] = {name: _strict(inner) for name, inner in made["properties"].items()}
    for name in ("items", "additionalProperties"):
        if isinstance(made.get(name), dict):
            made[name] = _strict(made[name])
    closed = "properties" in made and "additionalProperties" not in made
    if closed and not made.get("x-kubernetes-preserve-unknown-fields"):
        made["additionalProperties"] = False
    if made.get("nullable") and isinstance(made.get("type"), str):
        made["type"] = [made["type"], "null"]
    if made.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
    return made
