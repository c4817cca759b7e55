"""Applying the CRDs of this release to a cluster: Helm installs them once and never again, so its upgrade hook does it.

Server-side apply with a field manager of its own and force: the release that was applied last owns the schema. Nothing
is ever removed from a cluster; a CRD that went away would take everybody's objects with it.
"""

from __future__ import annotations

import asyncio
import time

from metagate_crds.crd_yaml import crd_documents
from metagate_operator.cluster.kubernetes_client import (
    APPLY_PATCH,
    KubernetesClient,
    KubernetesRefused,
    KubernetesUnreachable,
)

COLLECTION = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
MANAGER = "metagate-crds"
WAIT_SECONDS = 0.5


async def apply_crds(kubernetes: KubernetesClient, *, within: float, manager: str = MANAGER) -> tuple[str, ...]:
    """Apply every CRD and wait until the API server serves it; the names of those that changed.

    Helm 4 applies the CRDs of a chart server-side too, and never by force: where it does so, `manager` must be its own,
    or installing another release over CRDs that an earlier one left would end in a conflict.

    Raises:
        KubernetesRefused: the API server will not have one of them.
        KubernetesUnreachable: it does not answer, or does not serve them within that many seconds.

    """
    changed: list[str] = []
    deadline = time.monotonic() + within
    for document in crd_documents():
        name = str(document["metadata"]["name"])
        before = await _generation(kubernetes, name)
        applied = await kubernetes.call(
            "PATCH",
            f"{COLLECTION}/{name}",
            query={"fieldManager": manager, "force": "true"},
            body=document,
            content_type=APPLY_PATCH,
        )
        if applied["metadata"]["generation"] != before:
            changed.append(name)
    for document in crd_documents():
        await _established(kubernetes, str(document["metadata"]["name"]), deadline)
    return tuple(changed)


async def _generation(kubernetes: KubernetesClient, name: str) -> int | None:
    """None when there is none yet. By name: the right to list cannot be limited to ours."""
    try:
        return int((await kubernetes.get(f"{COLLECTION}/{name}"))["metadata"]["generation"])
    except KubernetesRefused as error:
        if error.status != 404:
            raise
        return None


async def _established(kubernetes: KubernetesClient, name: str, deadline: float) -> None:
    while True:
        definition = await kubernetes.get(f"{COLLECTION}/{name}")
        conditions = definition.get("status", {}).get("conditions", ())
        if any(condition["type"] == "Established" and condition["status"] == "True" for condition in conditions):
            return
        if time.monotonic() > deadline:
            raise KubernetesUnreachable(f"{name} was applied, and is not served yet")
        await asyncio.sleep(WAIT_SECONDS)
