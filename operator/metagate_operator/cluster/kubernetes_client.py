"""Calls to the Kubernetes API: kubernetes.aio's configuration, authentication and TLS, without its typed models.

The models cost milliseconds per object, and a listing of ten thousand objects is projected to a few fields anyway.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import quote

import aiohttp
import kopf
from kubernetes.aio import client, config

from metagate_crds.kinds import API_VERSION, KINDS, ResourceKind

API_PATH = f"/apis/{API_VERSION}"
APPLY_PATCH = "application/apply-patch+yaml"
JSON_TYPE = "application/json"
ACCEPT_HEADER = f"{JSON_TYPE}, */*;q=0.1"
"""The API server answers 406 to whoever asks /openid/v1/jwks for plain JSON only."""
PAGE_TIMEOUT_SECONDS = 30.0
MEBIBYTE = 1 << 20


class KubernetesError(Exception):
    """The API server cannot be reached, or said no."""


class KubernetesUnreachable(KubernetesError):  # noqa: N818 - names what happened
    """No answer: connection refused or broken, a timeout, a body that is not JSON."""


class KubernetesRefused(KubernetesError):  # noqa: N818 - names what happened
    """An answer other than 2xx. `status` is the HTTP status, `reason` Kubernetes' word for it (`NotFound`, `Expired`,
    …).
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


class KubernetesClient:
    """A connection to one API server, as one user; `await close()` it."""

    def __init__(self, configuration: client.Configuration) -> None:
        self.configuration = configuration
        self._client = client.ApiClient(configuration)

    @classmethod
    async def connect(cls, kubeconfig: str | None = None, context: str | None = None) -> KubernetesClient:
        """As the pod's service account where there is one and no kubeconfig is named, else as the kubeconfig says.

        Raises:
            KubernetesUnreachable: neither is there, or it cannot be read.

        """
        configuration = client.Configuration()
        configuration.retries = None  # who calls decides whether to ask again
        try:
            if kubeconfig is None:
                try:
                    config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
                    return cls(configuration)
                except config.ConfigException:
                    pass
            await config.load_kube_config(  # type: ignore[no-untyped-call]
                config_file=kubeconfig, context=context, client_configuration=configuration
            )
        except (config.ConfigException, OSError) as error:
            raise KubernetesUnreachable(f"no Kubernetes to connect to: {error}") from error
        return cls(configuration)

    async def get(self, path: str, *, within: float = PAGE_TIMEOUT_SECONDS, **query: str | int) -> Any:
        return await self.call("GET", path, query=query, within=within)

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        body: object = None,
        content_type: str = JSON_TYPE,
        within: float = PAGE_TIMEOUT_SECONDS,
    ) -> Any:
        """One request; the parsed answer.

        Raises:
            KubernetesUnreachable: there was none.
            KubernetesRefused: it is an error.

        """
        answer = await self.raw(method, path, query=query, body=body, content_type=content_type, within=within)
        try:
            # a large page is parsed beside the loop: 500 objects would hold it for tens of milliseconds
            return (
                await asyncio.to_thread(json.loads, answer) if len(answer) > MEBIBYTE else json.loads(answer or b"null")
            )
        except ValueError as error:
            raise KubernetesUnreachable(f"{method} {path}: the answer is not JSON") from error

    async def write(self, method: str, path: str, body: object) -> bool:
        """One request that writes; False when somebody else wrote first (409). Raises as `call` does."""
        try:
            await self.call(method, path, body=body)
        except KubernetesRefused as error:
            if error.status == 409:
                return False
            raise
        return True

    async def raw(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        body: object = None,
        content_type: str = JSON_TYPE,
        within: float = PAGE_TIMEOUT_SECONDS,
    ) -> bytes:
        """One request; the bytes of the answer. Raises as `call` does."""
        headers = {"Accept": ACCEPT_HEADER, "Content-Type": content_type}
        try:
            await self._client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
            url = f"{self.configuration.host}{path}"
            if query:
                url += "?" + "&".join(f"{quote(name)}={quote(str(value), safe='')}" for name, value in query.items())
            response = await self._client.rest_client.request(  # type: ignore[no-untyped-call]
                method, url, headers=headers, body=body, _request_timeout=within
            )
            answer: bytes = await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError, config.ConfigException) as error:
            raise KubernetesUnreachable(f"{method} {path}: {type(error).__name__}: {error}") from error
        if not 200 <= response.status <= 299:
            details = _status(answer)
            raise KubernetesRefused(
                response.status, str(details.get("reason", response.reason)), str(details.get("message", ""))
            )
        return answer

    async def login(self) -> kopf.ConnectionInfo:
        """The same connection, as kopf wants it; asked again whenever the server stops believing the token."""
        configuration = self.configuration
        header = await configuration.get_api_key_with_prefix("BearerToken", alias="authorization") or ""
        scheme, _, token = header.rpartition(" ")
        return kopf.ConnectionInfo(
            server=configuration.host,
            ca_path=configuration.ssl_ca_cert,
            ca_data=None if configuration.ssl_ca_cert else configuration.ca_cert_data,
            insecure=not configuration.verify_ssl,
            username=configuration.username or None,
            password=configuration.password or None,
            scheme=scheme or None,
            token=token or None,
            certificate_path=configuration.cert_file,
            private_key_path=configuration.key_file,
            proxy_url=configuration.proxy,
        )

    async def close(self) -> None:
        await self._client.close()  # type: ignore[no-untyped-call]


def _status(answer: bytes) -> dict[str, Any]:
    """Kubernetes' account of an error, where it gives one."""
    try:
        details = json.loads(answer or b"null")
    except ValueError:
        return {}
    return details if isinstance(details, dict) else {}


def collection_path(kind: ResourceKind, namespace: str | None = None) -> str:
    """The path of the kind's list; `namespace` None or "" is all of them."""
    inside = f"/namespaces/{namespace}" if namespace and kind.namespaced else ""
    return f"{API_PATH}{inside}/{kind.plural}"


async def collection_items(
    kubernetes: KubernetesClient, path: str, *, label_selector: str = ""
) -> AsyncIterator[dict[str, Any]]:
    """Every item of a collection, page by page. Raises as `KubernetesClient.call` does."""
    query: dict[str, str | int] = {"limit": 500, **({"labelSelector": label_selector} if label_selector else {})}
    while True:
        page = await kubernetes.call("GET", path, query=query)
        for item in page["items"]:
            yield item
        query["continue"] = page["metadata"].get("continue") or ""
        if not query["continue"]:
            return


def object_path(kind_name: str, namespace: str, name: str) -> str:
    """The path of one object."""
    return f"{collection_path(KINDS[kind_name], namespace)}/{name}"


async def get_by_name(kubernetes: KubernetesClient, kind_name: str, namespace: str, name: str) -> dict[str, Any] | None:
    """One object by its name, None when there is none. It is asked for as a list, so that `list` is all the right it
    takes.
    """
    query = {"fieldSelector": f"metadata.name={name}"}
    items = (await kubernetes.call("GET", collection_path(KINDS[kind_name], namespace), query=query))["items"]
    return items[0] if items else None
