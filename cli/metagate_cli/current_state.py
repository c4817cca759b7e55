"""What is declared now, as a plan needs it: other files, a running MetaGate, or a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5

from metagate_cli.api_client import ApiClient
from metagate_cli.local_files import contents, files
from metagate_cli.terminal import FAILURE, Stop
from metagate_crds.compile.world import World
from metagate_crds.objects import CompileSettings, DeclaredObject, Namespace, ObjectKey
from metagate_operator.sources.documents import FileContents, FileProblem

_EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)
_EXACT: Final = 2**53 - 1


ParsedFiles = dict[bytes, FileContents]
"""Files that were read already, by content."""


def declared_in(paths: Sequence[Path], parsed: ParsedFiles | None = None) -> dict[ObjectKey, Any]:
    """The specs in these files, by object.

    Raises:
        Stop: a file cannot be read whole, or two declare the same.

    """
    problems: list[FileProblem] = []
    specs: dict[ObjectKey, Any] = {}
    for file in files(paths):
        documents = contents(file, parsed)
        problems.extend(documents.problems)
        for document in documents.documents:
            if document.key in specs:
                problems.append(
                    FileProblem(document.file, document.line, "metadata.name", "DuplicateObject", "is declared twice")
                )
            specs[document.key] = document.spec
    if problems:
        raise Stop("\n".join(map(str, problems)), code=FAILURE)
    return specs


def world_from_files(paths: Sequence[Path], settings: CompileSettings, parsed: ParsedFiles | None = None) -> World:
    """As if these files had been applied, in the order of their names."""
    objects = [
        DeclaredObject(key, str(uuid5(NAMESPACE_URL, "/".join(key))), 1, _EPOCH + timedelta(seconds=place), spec)
        for place, (key, spec) in enumerate(sorted(declared_in(paths, parsed).items(), key=lambda item: item[0]))
    ]
    return World(settings, _namespaces(objects), objects)


def world_from_api(api: ApiClient, settings: CompileSettings) -> World:
    """The valid objects of one tenant. TokenIssuers are nobody's, and other tenants' claims are not seen."""
    objects = [declared_from_item(item) for item in api.items("/v1/admin/history/objects", key_digests="true")]
    return World(settings, _namespaces(objects), objects)


def world_from_cluster(
    kubeconfig: Path | None, context: str | None, namespaces: Sequence[str], settings: CompileSettings
) -> World:
    """What the API server lists. The last good version of an object that is broken there is not known."""
    from metagate_operator.cluster.cluster_source import ClusterSource
    from metagate_operator.cluster.kubernetes_client import KubernetesClient, KubernetesError
    from metagate_operator.cluster.object_cache import ObjectCache
    from metagate_operator.sources.source import Listing, SourceUnavailable

    if kubeconfig is not None and not kubeconfig.is_file():
        raise Stop(f"{kubeconfig}: there is no such kubeconfig", code=FAILURE)

    async def listed() -> tuple[Listing, str | None]:
        kubernetes = await KubernetesClient.connect(None if kubeconfig is None else str(kubeconfig), context)
        try:
            listing = await ClusterSource(kubernetes, ObjectCache(), namespaces=namespaces).listing()
            try:
                issuer = (await kubernetes.get("/.well-known/openid-configuration"))["issuer"]
            except (KubernetesError, KeyError, TypeError):
                issuer = None
            return listing, issuer
        finally:
            await kubernetes.close()

    try:
        listing, issuer = asyncio.run(listed())
    except (KubernetesError, SourceUnavailable) as error:
        raise Stop(f"the cluster cannot be listed: {error}", code=FAILURE) from error
    cluster_settings = replace(settings, cluster_issuer=None if issuer is None else str(issuer))
    return World(cluster_settings, listing.namespaces, listing.objects)


def declared_from_item(item: dict[str, Any]) -> DeclaredObject:
    """An item of `/v1/admin/history/objects`."""
    key = ObjectKey(item["kind"], item["namespace"], item["name"])
    created = datetime.fromisoformat(item["created_at"])
    return DeclaredObject(key, item["uid"], item["generation"], created, _floats(item["spec"]), item["manager"])


def _floats(spec: Any) -> Any:
    """JSON's integers that are none: 1e300 travels with all its zeros."""
    match spec:
        case dict():
            return {name: _floats(value) for name, value in spec.items()}
        case list():
            return [_floats(value) for value in spec]
        case int() if not -_EXACT <= spec <= _EXACT:
            return float(spec)
        case _:
            return spec


def _namespaces(objects: Sequence[DeclaredObject]) -> list[Namespace]:
    names = sorted({declared.key.namespace for declared in objects if declared.key.namespace})
    return [Namespace(name, str(uuid5(NAMESPACE_URL, f"namespace/{name}")), _EPOCH) for name in names]
