"""Validates resources against the schemas of Kubernetes and of custom resources, each distinct one once per version."""

from __future__ import annotations

import json
from functools import cache
from typing import Final

import kubernetes_validate
from kubernetes_validate import utils

from tests.helm.crds import Resource, definitions, folder

#: From the oldest that the chart allows to the newest that there are schemas for.
VERSIONS: Final = ("1.30", "1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37")
CUSTOM: Final = ("istio.io", "keda.sh", "monitoring.coreos.com")
#: Its definition is not at hand; the chart's own test looks at the fields that it uses.
UNCHECKED: Final = ("external-secrets.io",)

# It reads a megabyte of definitions anew for each resource otherwise.
utils.schema_contents = cache(utils.schema_contents)
_seen: dict[tuple[str, str], list[str]] = {}


def group(resource: Resource) -> str:
    """The API group of a resource, empty for Kubernetes' first ones."""
    return str(resource["apiVersion"].partition("/")[0]) if "/" in resource["apiVersion"] else ""


def is_custom(resource: Resource) -> bool:
    """Whether a definition describes it, and not Kubernetes itself."""
    return group(resource).endswith(CUSTOM)


def problems(resource: Resource, version: str) -> list[str]:
    """What the schema of this version of Kubernetes, or the definition, finds wrong."""
    if group(resource) in UNCHECKED or (is_custom(resource) and folder() is None):
        return []
    key = ("crd" if is_custom(resource) else version, json.dumps(resource, sort_keys=True))
    if key not in _seen:
        _seen[key] = definitions().problems(resource) if is_custom(resource) else _kubernetes(resource, version)
    return _seen[key]


def _kubernetes(resource: Resource, version: str) -> list[str]:
    try:
        kubernetes_validate.validate(resource, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{'/'.join(map(str, error.path))}: {error.message}"]
    except kubernetes_validate.SchemaNotFoundError:
        return [f"{resource['apiVersion']} {resource['kind']} is unknown to Kubernetes {version}"]
    return []
