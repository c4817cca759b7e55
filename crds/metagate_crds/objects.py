"""Declared objects and namespaces, as a source of them reports them. Compiling has no other input."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple


class ObjectKey(NamedTuple):
    """Names one declared object; the namespace of a cluster-scoped one is empty."""

    kind: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class DeclaredObject:
    """One object as its source reports it. `spec` is not validated and may be anything. `created` is UTC."""

    key: ObjectKey
    uid: str
    generation: int
    created: datetime
    spec: Any
    manager: str | None = None

    @property
    def age(self) -> tuple[datetime, str, str]:
        """Sorts the oldest first: creation, then namespace, then name (D-21)."""
        return (self.created, self.key.namespace, self.key.name)


@dataclass(frozen=True, slots=True)
class Namespace:
    """One incarnation of a namespace; its uid is the tenant (D-46)."""

    name: str
    uid: str
    created: datetime


@dataclass(frozen=True, slots=True)
class CompileSettings:
    """The settings of an installation that change what is compiled.

    `cluster_issuer` is the issuer discovered at the cluster; `jwt_issuer` is None while HS256 is off (D-37);
    `jwt_namespaces` may claim its subjects, `*` admits any.
    """

    system_namespace: str = "metagate-system"
    default_sla_seconds: int = 120
    cluster_issuer: str | None = None
    jwt_issuer: str | None = None
    jwt_namespaces: tuple[str, ...] = ("*",)


LastGood = Mapping[str, DeclaredObject]
"""By uid: the last valid generation of each object (D-33)."""
