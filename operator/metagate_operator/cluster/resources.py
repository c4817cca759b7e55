"""Where the declared kinds live in the Kubernetes API."""

from metagate_crds.kinds import API_VERSION, KINDS, Kind

BASE = f"/apis/{API_VERSION}"


def collection(kind: Kind, namespace: str | None = None) -> str:
    """The path of the kind's list; `namespace` None or "" is all of them."""
    inside = f"/namespaces/{namespace}" if namespace and kind.namespaced else ""
    return f"{BASE}{inside}/{kind.plural}"


def item(kind_name: str, namespace: str, name: str) -> str:
    """The path of one object."""
    return f"{collection(KINDS[kind_name], namespace)}/{name}"
