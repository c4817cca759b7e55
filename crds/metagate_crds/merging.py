"""JSON merge patch (RFC 7396): how overrides apply over what a Profile and a Manifest say (D-19)."""

from typing import Any


def merged(target: Any, patch: Any) -> Any:
    """`target` with `patch` applied: null removes, objects merge, anything else replaces. Neither is changed."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result
