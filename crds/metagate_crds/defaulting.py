"""What an API server adds to a spec when it takes it: the defaults that the schema names (structural defaulting).

So an object read back from a cluster and the file it was applied from can be told to say the same.
"""

from copy import deepcopy
from functools import cache
from typing import Any

from metagate_crds.models import SPECS
from metagate_crds.structural import structural


def defaulted(kind: str, spec: Any) -> Any:
    """The spec with the defaults of its kind, where it is an object; the one given stays as it is."""
    return _filled(_schema(kind), spec)


@cache
def _schema(kind: str) -> dict[str, Any]:
    return structural(SPECS[kind])


def _filled(schema: dict[str, Any], value: Any) -> Any:
    if isinstance(value, list) and "items" in schema:
        return [_filled(schema["items"], each) for each in value]
    if not isinstance(value, dict):
        return value
    known, others = schema.get("properties", {}), schema.get("additionalProperties")
    filled = {
        name: _filled(known.get(name, others or {}), each)
        for name, each in value.items()
        if not (each is None and "default" in known.get(name, {}))  # a null there is dropped, then filled in
    }
    for name, part in known.items():
        if name not in filled and "default" in part:
            filled[name] = _filled(part, deepcopy(part["default"]))
    return filled
