"""JSON as it leaves the gate: compact, UTF-8, times and ids as text."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from legivellum.base.timestamps import rfc3339


def shallow(value: Any) -> dict[str, Any]:
    """The fields of a dataclass with slots as they are; `asdict` would copy whatever is in them."""
    return {name: getattr(value, name) for name in value.__slots__}


def _other(value: Any) -> Any:
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__qualname__} has no JSON form")


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_other)


def rendered(value: Any) -> bytes:
    return _ENCODER.encode(value).encode()
