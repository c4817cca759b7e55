"""From the models to structural schemas, the dialect of OpenAPI that Kubernetes accepts in a CRD.

`with_defaults` fills in what an API server fills in when it takes an object (structural defaulting), so that an object
read back from a cluster and the file it was applied from compare equal.
"""

from copy import deepcopy
from functools import cache
from typing import Any, Final

from metagate_crds.models import SPECS, Spec

# What pydantic writes and a structural schema may say; `title`, `discriminator`, `$defs` and the like may not be there.
_KEPT: Final = frozenset(
    {
        "default",
        "description",
        "enum",
        "format",
        "maxItems",
        "maxLength",
        "maxProperties",
        "maximum",
        "minItems",
        "minLength",
        "minimum",
        "pattern",
        "required",
        "type",
    }
)


def structural_schema(model: type[Spec]) -> dict[str, Any]:
    """The schema of one model without references, alternatives or nulls."""
    schema = model.model_json_schema(by_alias=True)
    return _converted(schema, schema.get("$defs", {}))


def _converted(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    node = _resolved(node, definitions)
    result = {name: value for name, value in node.items() if name in _KEPT or name.startswith("x-kubernetes-")}
    # A default of None means that the field may be absent; the schema has no nulls.
    if result.get("default", ...) is None:
        del result["default"]
    if "const" in node:
        result["enum"] = [node["const"]]
    if "properties" in node:
        result["properties"] = {name: _converted(part, definitions) for name, part in node["properties"].items()}
    if "items" in node:
        result["items"] = _converted(node["items"], definitions)
    values = node.get("additionalProperties")
    if isinstance(values, dict):
        result["additionalProperties"] = _converted(values, definitions)
    return result


def _resolved(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Follows a reference and drops the null alternative; what stands beside them wins."""
    while "$ref" in node or "anyOf" in node:
        beside = {name: value for name, value in node.items() if name not in {"$ref", "anyOf"}}
        if "$ref" in node:
            target = definitions[node["$ref"].rsplit("/", 1)[1]]
        else:
            (target,) = [part for part in node["anyOf"] if part.get("type") != "null"]
        node = {**target, **beside}
    return node


def with_defaults(kind: str, spec: Any) -> Any:
    """The spec with the defaults of its kind, where it is an object; the one given stays as it is."""
    return _fill(schema_of(kind), spec)


@cache
def schema_of(kind: str) -> dict[str, Any]:
    """The schema of a kind's spec; not to be changed."""
    return structural_schema(SPECS[kind])


def _fill(schema: dict[str, Any], value: Any) -> Any:
    if isinstance(value, list) and "items" in schema:
        return [_fill(schema["items"], item) for item in value]
    if not isinstance(value, dict):
        return value
    properties, others = schema.get("properties", {}), schema.get("additionalProperties")
    filled = {
        name: _fill(properties.get(name, others or {}), member)
        for name, member in value.items()
        if not (member is None and "default" in properties.get(name, {}))  # a null there is dropped, then filled in
    }
    for name, part in properties.items():
        if name not in filled and "default" in part:
            filled[name] = _fill(part, deepcopy(part["default"]))
    return filled
