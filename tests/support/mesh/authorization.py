"""AuthorizationPolicy → the policies of Envoy's RBAC filter.

Within a rule one of `from`, one of `to` and all of `when` must hold; the rules of a policy, and the policies of an
action, are alternatives. A denial wins over a permission, and where there is any ALLOW policy, what none allows is
refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tests.support.mesh.fields import Fields, Untranslatable

Json = dict[str, Any]
_RBAC = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"
_HEADER_KEY = re.compile(r"request\.headers\[([A-Za-z0-9-]+)\]")
ANY: Json = {"any": True}


@dataclass(frozen=True, slots=True)
class Policy:
    """An AuthorizationPolicy. `rules` are Envoy's policies but for ports, which depend on where a request comes in."""

    name: str
    action: str
    rules: tuple[Json, ...]


def read_policy(name: str, spec: Fields) -> Policy:
    """Reads the rest of a policy, whose selector is known already. Raises Untranslatable."""
    action = spec.text("action", "ALLOW", "DENY") or "ALLOW"
    return Policy(name, action, tuple(_rule(rule) for rule in spec.parts("rules") or ()))


def filters(policies: Iterable[Policy], port: int) -> list[Json]:
    """The HTTP filters that enforce these policies for requests to `port` of a workload."""
    known = list(policies)
    made = []
    for action in ("DENY", "ALLOW"):
        of_action = [policy for policy in known if policy.action == action]
        if of_action:
            rules = {
                f"{policy.name}[{n}]": _for_port(rule, port)
                for policy in of_action
                for n, rule in enumerate(policy.rules)
            }
            config = {"@type": _RBAC, "rules": {"action": action, "policies": rules}}
            made.append({"name": f"envoy.filters.http.rbac.{action.lower()}", "typed_config": config})
    return made


def _rule(rule: Fields) -> Json:
    with rule:
        sources, operations = rule.parts("from"), rule.parts("to")
        principals_when, permissions_when = _conditions(rule.parts("when") or ())
        principals = [_source(each) for each in sources] if sources is not None else [[]]
        permissions = [_operation(each) for each in operations] if operations is not None else [[]]
    if not principals or not permissions:
        raise Untranslatable(f"{rule.path}: an empty list of sources or operations")
    return {
        "principals": [_all(each + principals_when, "and_ids", "ids") for each in principals],
        "permissions": [_all(each + permissions_when, "and_rules", "rules") for each in permissions],
    }


def _all(conditions: list[Json], combine: str, items: str) -> Json:
    if not conditions:
        return ANY
    return conditions[0] if len(conditions) == 1 else {combine: {items: conditions}}


def _source(entry: Fields) -> list[Json]:
    with entry:
        source = entry.part("source")
    if source is None:
        raise Untranslatable(f"{entry.path}: has no source")
    with source:
        made = _pair(source, "principals", _principal, "or_ids", "ids", "not_id")
        made += _pair(source, "namespaces", _namespace, "or_ids", "ids", "not_id")
    if not made:
        raise Untranslatable(f"{source.path}: is empty")
    return made


def _operation(entry: Fields) -> list[Json]:
    with entry:
        operation = entry.part("operation")
    if operation is None:
        raise Untranslatable(f"{entry.path}: has no operation")
    with operation:
        made = _pair(operation, "paths", _path, "or_rules", "rules", "not_rule")
        made += _pair(operation, "methods", _method, "or_rules", "rules", "not_rule")
        made += _pair(operation, "hosts", _host, "or_rules", "rules", "not_rule")
        made += _pair(operation, "ports", _port, "or_rules", "rules", "not_rule")
    if not made:
        raise Untranslatable(f"{operation.path}: is empty")
    return made


def _pair(part: Fields, name: str, make: Any, either: str, items: str, negate: str) -> list[Json]:
    """The condition of a list and that of its `not…` twin."""
    made = []
    for field in (name, f"not{name[0].upper()}{name[1:]}"):
        values = part.texts(field)
        if field in part and not values:
            raise Untranslatable(f"{part.path}.{field}: is empty")
        if values:
            one = [make(value, f"{part.path}.{field}") for value in values]
            condition = one[0] if len(one) == 1 else {either: {items: one}}
            made.append(condition if field == name else {negate: condition})
    return made


def _conditions(entries: Iterable[Fields]) -> tuple[list[Json], list[Json]]:
    principals: list[Json] = []
    permissions: list[Json] = []
    for entry in entries:
        with entry:
            key = entry.text("key") or ""
            header = _HEADER_KEY.fullmatch(key)
            renamed = {name: entry.texts(name) for name in ("values", "notValues") if name in entry}
        if not renamed or not all(renamed.values()):
            raise Untranslatable(f"{entry.path}: has no values")
        twin = Fields({"keys" if name == "values" else "notKeys": each for name, each in renamed.items()}, entry.path)
        if key == "source.principal":
            principals += _pair(twin, "keys", _principal, "or_ids", "ids", "not_id")
        elif key == "source.namespace":
            principals += _pair(twin, "keys", _namespace, "or_ids", "ids", "not_id")
        elif header:
            name = header.group(1)
            principals += _pair(twin, "keys", lambda v, _p, n=name: _header(n, v), "or_ids", "ids", "not_id")
        elif key == "destination.port":
            permissions += _pair(twin, "keys", _port, "or_rules", "rules", "not_rule")
        else:
            raise Untranslatable(f"{entry.path}: no translation for the key {key!r}")
    return principals, permissions


def matcher(value: str, prefix: str = "") -> Json:
    """A pattern of Istio: `*` for any value, `x*` for a prefix, `*x` for a suffix, else exact."""
    if value == "*":
        return {"safe_regex": {"regex": ".+"}}
    if value.startswith("*"):
        if not prefix:
            return {"suffix": value[1:]}
        return {"safe_regex": {"regex": f"{re.escape(prefix)}.*{re.escape(value[1:])}"}}
    if value.endswith("*"):
        return {"prefix": prefix + value[:-1]}
    return {"exact": prefix + value}


def _principal(value: str, path: str) -> Json:
    if value.startswith("spiffe://"):
        raise Untranslatable(f"{path}: a principal is written without spiffe://, so {value!r} would match nobody")
    return {"authenticated": {"principal_name": matcher(value, "spiffe://")}}


def _namespace(value: str, _path: str) -> Json:
    pattern = ".*".join(re.escape(part) for part in value.split("*"))
    return {"authenticated": {"principal_name": {"safe_regex": {"regex": f".*/ns/{pattern}/.*"}}}}


def _path(value: str, path: str) -> Json:
    if "{" in value:
        raise Untranslatable(f"{path}: no translation for templates: {value!r}")
    return {"url_path": {"path": matcher(value)}}


def _header(name: str, value: str) -> Json:
    return {"header": {"name": name, "string_match": matcher(value)}}


def _method(value: str, _path: str) -> Json:
    return _header(":method", value)


def _host(value: str, _path: str) -> Json:
    return {"header": {"name": ":authority", "string_match": matcher(value) | {"ignore_case": True}}}


def _port(value: str, path: str) -> Json:
    if not value.isdecimal():
        raise Untranslatable(f"{path}: is not a port: {value!r}")
    return {"port": int(value)}


def _for_port(value: Any, port: int) -> Any:
    """The rule as it reads for one port: here the ports of listeners are not those that the resources speak of."""
    match value:
        case {"port": int(wanted)}:
            return ANY if wanted == port else {"not_rule": ANY}
        case dict():
            return {key: _for_port(each, port) for key, each in value.items()}
        case list():
            return [_for_port(each, port) for each in value]
        case _:
            return value
