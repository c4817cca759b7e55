"""The rights of the two processes, in one place: what the chart installs, what the start checks, what the tests compare
with use.

No right to create, change or delete a workload, a Secret of somebody else's or a declared object appears here
(INV-030).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from metagate_crds.kinds import GROUP, KINDS, PROBLEMATA
from metagate_operator.cluster import leader_election

OPERATOR = "metagate-operator"
ADMISSION = "metagate-admission"
WEBHOOK = "metagate"
CERTIFICATES = "metagate-admission-tls"


class Where(Enum):
    """Where a right is needed."""

    CLUSTER = "cluster"
    WATCHED = "watched"  # everywhere, or in each watched namespace
    OWN = "own"  # the namespace that the process runs in


@dataclass(frozen=True, slots=True)
class RbacRight:
    """One rule of RBAC. `names` empty: of any name. `urls` for those that are not about resources."""

    where: Where
    verbs: tuple[str, ...]
    group: str = ""
    resources: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()

    def rule(self) -> dict[str, Any]:
        if self.urls:
            return {"nonResourceURLs": list(self.urls), "verbs": list(self.verbs)}
        named = {"resourceNames": list(self.names)} if self.names else {}
        return {"apiGroups": [self.group], "resources": list(self.resources), **named, "verbs": list(self.verbs)}

    def permissions(self) -> Iterator[tuple[str, str, str, str]]:
        """(verb, group, resource with its subresource, name or ""), one by one."""
        for verb in self.verbs:
            for resource in self.resources or self.urls:
                for name in self.names or ("",):
                    yield verb, self.group, resource, name


_NAMESPACED = tuple(kind.plural for kind in KINDS.values() if kind.namespaced)
# Nothing refers to a Problemata.
_REFERENCED = tuple(kind.plural for kind in KINDS.values() if kind is not PROBLEMATA)
_GLOBAL = tuple(kind.plural for kind in KINDS.values() if not kind.namespaced)


def operator_rights(namespaces: Sequence[str] = (), *, cluster_issuers: bool = True) -> tuple[RbacRight, ...]:
    """What `metagate operator` does, cluster-wide or in `namespaces` only."""
    rights = [
        RbacRight(Where.WATCHED, ("list", "watch"), GROUP, _NAMESPACED),
        RbacRight(Where.WATCHED, ("patch",), GROUP, tuple(f"{plural}/status" for plural in _NAMESPACED)),
        RbacRight(Where.WATCHED, ("create",), "events.k8s.io", ("events",)),
        RbacRight(Where.OWN, ("create",), "coordination.k8s.io", ("leases",)),
        RbacRight(
            Where.OWN, ("get", "update"), "coordination.k8s.io", ("leases",), names=(leader_election.LEASE_NAME,)
        ),
        RbacRight(Where.CLUSTER, ("get",), urls=("/.well-known/openid-configuration", "/openid/v1/jwks")),
    ]
    if namespaces:
        rights.append(
            RbacRight(Where.CLUSTER, ("get",), "", ("namespaces",), names=("kube-system", *sorted(namespaces)))
        )
    else:
        rights.append(RbacRight(Where.CLUSTER, ("get", "list", "watch"), "", ("namespaces",)))
    if cluster_issuers:
        rights.append(RbacRight(Where.CLUSTER, ("list", "watch"), GROUP, _GLOBAL))
    if cluster_issuers and not namespaces:  # with some namespaces only, the one cluster-wide grant is to read
        rights.append(RbacRight(Where.CLUSTER, ("patch",), GROUP, tuple(f"{plural}/status" for plural in _GLOBAL)))
    return tuple(rights)


def admission_rights(*, self_managed: bool = True) -> tuple[RbacRight, ...]:
    """What `metagate admission` does: look up what an object refers to, and care for its own certificate."""
    rights = [RbacRight(Where.CLUSTER, ("list",), GROUP, _REFERENCED)]
    if self_managed:
        rights += [
            RbacRight(Where.OWN, ("create",), "", ("secrets",)),
            RbacRight(Where.OWN, ("get", "update"), "", ("secrets",), names=(CERTIFICATES,)),
            RbacRight(
                Where.CLUSTER,
                ("get", "patch"),
                "admissionregistration.k8s.io",
                ("validatingwebhookconfigurations",),
                names=(WEBHOOK,),
            ),
        ]
    return tuple(rights)


def manifests(
    account: str, rights: Sequence[RbacRight], *, namespace: str, namespaces: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Service account, roles and bindings that grant exactly `rights`."""
    objects: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account, "namespace": namespace}}
    ]
    everywhere = [
        right for right in rights if right.where is Where.CLUSTER or (right.where is Where.WATCHED and not namespaces)
    ]
    if everywhere:
        objects += _granted("ClusterRole", account, None, everywhere, namespace)
    inside: dict[str, list[RbacRight]] = {name: [] for name in namespaces}
    inside.setdefault(namespace, [])
    for right in rights:
        if right.where is Where.OWN:
            inside[namespace].append(right)
        elif right.where is Where.WATCHED:
            for name in namespaces:
                inside[name].append(right)
    for name, granted in inside.items():
        if granted:
            objects += _granted("Role", account, name, granted, namespace)
    return objects


def _granted(
    kind: str, account: str, inside: str | None, rights: Sequence[RbacRight], home: str
) -> list[dict[str, Any]]:
    metadata = {"name": account, **({"namespace": inside} if inside else {})}
    return [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": kind,
            "metadata": metadata,
            "rules": [right.rule() for right in rights],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": f"{kind}Binding",
            "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": account},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": home}],
        },
    ]
