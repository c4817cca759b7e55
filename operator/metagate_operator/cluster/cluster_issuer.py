"""What the operator asks its own cluster about tokens: who issues them, and with which public keys."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import structlog

from metagate_crds.objects import CompileSettings
from metagate_operator.cluster.kubernetes_client import KubernetesClient, KubernetesError
from metagate_operator.cluster.reporter import ClusterReporter
from metagate_operator.issuers.key_fetcher import HttpsKeyFetcher, KeysUnavailable
from metagate_operator.issuers.key_refresher import KeyRefresher, KeyStore
from metagate_operator.reconcile.reconciler import Reconciler

log = structlog.get_logger(__name__)

DISCOVERY_RETRY_SECONDS = 10.0


def key_refresher(
    kubernetes: KubernetesClient, store: KeyStore, reporter: ClusterReporter, web: HttpsKeyFetcher
) -> KeyRefresher:
    """Who fetches issuers' public keys, and tells it in the status of their TokenIssuer."""
    telling: set[asyncio.Task[None]] = set()

    async def cluster(url: str) -> bytes:
        try:
            return await kubernetes.raw("GET", url)
        except KubernetesError as error:
            raise KeysUnavailable(f"the API server does not say: {type(error).__name__}") from error

    def changed(name: str) -> None:
        task = asyncio.create_task(reporter.keys_changed(name), name=f"keys of {name}")
        telling.add(task)
        task.add_done_callback(telling.discard)

    keys = KeyRefresher(store=store, web=web, cluster=cluster, on_change=changed)
    reporter.freshness = keys.freshness
    return keys


async def discover_cluster_issuer(
    kubernetes: KubernetesClient, settings: CompileSettings, reconciler: Reconciler
) -> None:
    """The API server did not name its issuer at the start: ask until it does."""
    while True:
        await asyncio.sleep(DISCOVERY_RETRY_SECONDS)
        known = await with_cluster_issuer(kubernetes, settings)
        if known.cluster_issuer is not None:
            reconciler.resync("the cluster's issuer became known", compile_settings=known)
            await asyncio.Event().wait()


async def with_cluster_issuer(kubernetes: KubernetesClient, settings: CompileSettings) -> CompileSettings:
    """With the issuer of the cluster's own tokens, as the API server names it; without, when it does not say."""
    try:
        discovery = await kubernetes.get("/.well-known/openid-configuration")
        return replace(settings, cluster_issuer=str(discovery["issuer"]))
    except (KubernetesError, KeyError, TypeError) as error:
        log.warning("cluster_issuer_unknown", error=str(error))
        return settings
