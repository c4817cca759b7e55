"""From the models to structural schemas, the dialect of OpenAPI that Kubernetes accepts in a CRD."""

from typing import Any, Final

from metagate_crds.models import Spec

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


def structural(model: type[Spec]) -> dict[str, Any]:
    """The schema of one model without references, alternatives or nulls."""
    schema = model.model_json_schema(by_alias=True)
    return _converted(schema, schema.get("$defs", {}))


def _converted(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    node = _resolved(node, definitions)
    result = {name: value for name, value in node.items() if name in _KEPT or name.startswith("x-kubernetes-")}
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
