"""The real engine of Helm over our chart, as a function: no cluster, no `helm` binary."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

import helm_python
import yaml

CHART: Final = Path(__file__).resolve().parent / "whispr-scheduling"
NAMESPACE: Final = "whispr"
RELEASE: Final = "scheduling"


def values_of(environment: str) -> dict[str, Any]:
    """What `values-<environment>.yaml` holds."""
    return cast("dict[str, Any]", yaml.safe_load((CHART / f"values-{environment}.yaml").read_text()) or {})


def render(
    values: Mapping[str, Any] | None = None, *, name: str = RELEASE, namespace: str = NAMESPACE, chart: Path = CHART
) -> dict[str, str]:
    """The text of every template under these values, by its path. Raises helm_python.HelmError.

    The engine tells on standard error that it follows links: policy and descriptors lie where they are made.
    """
    with helm_python.Chart.load(str(chart)) as loaded:
        return loaded.render(dict(values or {}), name=name, namespace=namespace)


def documents(rendered: Mapping[str, str]) -> list[dict[str, Any]]:
    """The resources in what was rendered, in the order of the templates' names."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [
        document
        for name in sorted(rendered)
        if name.endswith(".yaml")
        for document in yaml.load_all(rendered[name], loader)
        if document
    ]
