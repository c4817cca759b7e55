"""Where the declared kinds live in the Kubernetes API."""

from typing import Any

from metagate_crds.kinds import API_VERSION, KINDS, Kind
from metagate_operator.cluster.connection import Kubernetes

BASE = f"/apis/{API_VERSION}"


def collection(kind: Kind, namespace: str | None = None) -> str:
    """The path of the kind's list; `namespace` None or "" is all of them."""
    inside = f"/namespaces/{namespace}" if namespace and kind.namespaced else ""
    return f"{BASE}{inside}/{kind.plural}"


def item(kind_name: str, namespace: str, name: str) -> str:
    """The path of one object."""
    return f"{collection(KINDS[kind_name], namespace)}/{name}"


async def named(kubernetes: Kubernetes, kind_name: str, namespace: str, name: str) -> dict[str, Any] | None:
    """One object by its name, None when there is none. It is asked for as a list, so that `list` is all the right it
    takes.
    """
    query = {"fieldSelector": f"metadata.name={name}"}
    found = (await kubernetes.call("GET", collection(KINDS[kind_name], namespace), query=query))["items"]
    return found[0] if found else None
