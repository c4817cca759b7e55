"""The product of compiling: rows for the tables that are served, a verdict per object, packet bodies by digest."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from metagate_crds.objects import DeclaredObject, ObjectKey
from metagate_crds.verdict import Verdict


@dataclass(frozen=True, slots=True)
class SnapshotRow:
    """One row of a snapshot table. `values` are JSON-able and include the key columns; times are RFC 3339 strings."""

    table: str
    key: tuple[str, ...]
    values: Mapping[str, Any]
    # A list because the row is frozen: the digest is filled in when it is first asked for.
    _content: list[str] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def content(self) -> str:
        """The sha256 (hex) of the values, equal for equal rows whatever their order. Computed once."""
        if not self._content:
            text = json.dumps(self.values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
            self._content.append(hashlib.sha256(text.encode()).hexdigest())
        return self._content[0]


@dataclass(frozen=True, slots=True)
class CompiledWorld:
    """The answer for the objects in scope.

    `rows` has every key in scope, with no rows when an object is gone or contributes nothing; `verdicts` has every
    existing object in scope; `good` (by uid) the objects valid at their present generation, the new last good;
    `packets` the canonical shared packet bodies by digest.
    """

    rows: Mapping[ObjectKey, tuple[SnapshotRow, ...]]
    verdicts: Mapping[ObjectKey, Verdict]
    good: Mapping[str, DeclaredObject]
    packets: Mapping[str, bytes]
