"""A PlanTemplate as it is published: its spec with defaults filled in, and what names this version of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from metagate_crds.canonical_json import canonical, digest


@dataclass(frozen=True, slots=True)
class PlanTemplate:
    """`digest`: sha256 of the spec in RFC 8785, in hex. `revision`: MetaGate's, of the last change."""

    name: str
    namespace: str
    revision: int
    digest: str
    spec: Mapping[str, Any]

    @classmethod
    def of(cls, spec: Mapping[str, Any], *, namespace: str, name: str, revision: int) -> PlanTemplate:
        return cls(name, namespace, revision, digest(canonical(spec)), spec)

    @property
    def capability(self) -> str:
        return str(self.spec["capability"])
