"""What must be there before the operator starts, and the command that provides it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from metagate_crds.kinds import API_VERSION, KINDS
from metagate_operator.cluster.kubernetes_client import API_PATH, KubernetesClient, KubernetesRefused
from metagate_operator.cluster.rbac import RbacRight, Where

CRDS_COMMAND = "metagate crds | kubectl apply --server-side -f -"
RBAC_COMMAND = "metagate operator rbac | kubectl apply -f -"


class NotReady(Exception):  # noqa: N818 - it names a state
    """The cluster or the database lacks something. The message ends with the command that repairs it."""


@dataclass(frozen=True, slots=True)
class AccessReview:
    """May I do this? `inside` is a namespace, or "" for all of them."""

    verb: str
    group: str
    resource: str
    name: str
    inside: str
    url: bool

    def spec(self) -> dict[str, Any]:
        if self.url:
            return {"nonResourceAttributes": {"path": self.resource, "verb": self.verb}}
        plural, _, subresource = self.resource.partition("/")
        attributes = {"verb": self.verb, "group": self.group, "resource": plural, "subresource": subresource}
        return {"resourceAttributes": {**attributes, "name": self.name, "namespace": self.inside}}

    def __str__(self) -> str:
        if self.url:
            return f"{self.verb} {self.resource}"
        what = f"{self.resource}.{self.group}" if self.group else self.resource
        named = f" {self.name}" if self.name else ""
        return f"{self.verb} {what}{named}{f' in {self.inside}' if self.inside else ''}"


async def check_kinds(kubernetes: KubernetesClient) -> None:
    """Every kind is served, with its status subresource.

    Raises:
        NotReady: some are not.

    """
    try:
        served = {resource["name"] for resource in (await kubernetes.get(API_PATH))["resources"]}
    except KubernetesRefused as error:
        if error.status != 404:
            raise
        served = set()
    missing = sorted(
        name for kind in KINDS.values() for name in (kind.plural, f"{kind.plural}/status") if name not in served
    )
    if missing:
        raise NotReady(f"the API server does not serve {', '.join(missing)} of {API_VERSION}; run: {CRDS_COMMAND}")


async def check_rights(
    kubernetes: KubernetesClient,
    rights: Sequence[RbacRight],
    *,
    namespace: str,
    namespaces: Sequence[str],
    command: str = RBAC_COMMAND,
) -> None:
    """Every right of the list is held, asked of the API server itself.

    Raises:
        NotReady: some are not; names each of them.

    """
    questions = account_reviews(rights, namespace=namespace, namespaces=namespaces)
    gate = asyncio.Semaphore(8)

    async def ask(question: AccessReview) -> bool:
        async with gate:
            return await is_allowed(kubernetes, question)

    answers = await asyncio.gather(*(ask(question) for question in questions))
    missing = sorted(str(question) for question, allowed in zip(questions, answers, strict=True) if not allowed)
    if missing:
        raise NotReady(f"the service account may not {'; '.join(missing)}. Run: {command}")


def account_reviews(rights: Sequence[RbacRight], *, namespace: str, namespaces: Sequence[str]) -> list[AccessReview]:
    """The questions that these rights answer, for a process in `namespace` that watches `namespaces`."""
    return [
        AccessReview(verb, group, resource, name, inside, url=bool(right.urls))
        for right in rights
        for verb, group, resource, name in right.permissions()
        for inside in _namespaces(right.where, namespace, namespaces)
    ]


def _namespaces(where: Where, own: str, watched: Sequence[str]) -> Sequence[str]:
    if where is Where.OWN:
        return (own,)
    return watched if where is Where.WATCHED and watched else ("",)


async def is_allowed(kubernetes: KubernetesClient, question: AccessReview) -> bool:
    """Whether the API server says that we may."""
    answer = await kubernetes.call(
        "POST",
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
        body={
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": question.spec(),
        },
    )
    return bool(answer["status"].get("allowed"))


async def may_account(kubernetes: KubernetesClient, namespace: str, account: str, question: AccessReview) -> bool:
    """Whether the API server says that a service account may."""
    user = f"system:serviceaccount:{namespace}:{account}"
    groups = ["system:authenticated", "system:serviceaccounts", f"system:serviceaccounts:{namespace}"]
    answer = await kubernetes.call(
        "POST",
        "/apis/authorization.k8s.io/v1/subjectaccessreviews",
        body={
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": user, "groups": groups, **question.spec()},
        },
    )
    return bool(answer["status"].get("allowed"))
