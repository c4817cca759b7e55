"""Whether what a client sends fits the declared JSON Schema of a capability: schemas made ready once, and kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from legivellum.base.bounded_schema import BoundedSchema

_KEPT: Final = 1_024


class InputSchemas:
    """Those of declared capabilities. A schema is made ready again only when its declaration changed."""

    def __init__(self) -> None:
        self._kept: dict[tuple[Any, ...], tuple[Mapping[str, Any], BoundedSchema]] = {}

    def problem(self, key: tuple[Any, ...], schema: Mapping[str, Any], value: Any) -> str | None:
        """`key` names the capability; a declaration that changed is another object."""
        kept = self._kept.get(key)
        if kept is None or kept[0] is not schema:
            if len(self._kept) >= _KEPT:
                self._kept.clear()
            kept = self._kept[key] = (schema, BoundedSchema(schema))
        return kept[1].problem(value)
