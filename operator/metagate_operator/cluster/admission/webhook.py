"""The ASGI application of the admission process, and the configuration that points the API server at it."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Histogram, generate_latest

from metagate_crds.kinds import GROUP, KINDS, VERSION
from metagate_crds.objects import CompileSettings
from metagate_operator.cluster.admission.review import review_object, review_response

log = structlog.get_logger(__name__)

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
WarningLookup = Callable[[Mapping[str, Any]], Awaitable[tuple[str, ...]]]

PATH = "/validate"
BODY_LIMIT = 8 << 20  # the API server takes objects up to 3 MiB, and a review may hold two
REVIEWS = Counter("metagate_admission_reviews_total", "Reviews by kind and answer", ["kind", "answer"])
SECONDS = Histogram(
    "metagate_admission_seconds",
    "Time to answer one review",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 1, 5),
)


class AdmissionApp:
    """`POST /validate`, `/livez`, `/readyz`, `/metrics`. Holds no state: any replica answers any review."""

    def __init__(
        self, settings: CompileSettings, *, warn: WarningLookup | None, ready: Callable[[], bool] = lambda: True
    ) -> None:
        self._settings = settings
        self._warn = warn
        self._ready = ready

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path = scope["path"]
        if path == PATH and scope["method"] == "POST":
            status, body, content = await self._review(receive)
        elif path == "/livez":
            status, body, content = 200, b"ok\n", "text/plain"
        elif path == "/readyz":
            status, body, content = (
                (200, b"ok\n", "text/plain") if self._ready() else (503, b"no certificate yet\n", "text/plain")
            )
        elif path == "/metrics":
            status, body, content = 200, generate_latest(), CONTENT_TYPE_LATEST
        else:
            status, body, content = 404, b"not found\n", "text/plain"
        headers = [(b"content-type", content.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _review(self, receive: Receive) -> tuple[int, bytes, str]:
        began = time.perf_counter()
        body = await _body(receive)
        if body is None:
            return 413, b"too large\n", "text/plain"
        try:
            request = json.loads(body)["request"]
            findings = review_object(request, self._settings)
        except (ValueError, KeyError, TypeError, RecursionError):
            return 400, b"not an AdmissionReview\n", "text/plain"
        ours = request.get("operation") in {"CREATE", "UPDATE"} and not request.get("subResource")
        warnings = await self._warn(request) if self._warn is not None and ours and not findings else ()
        REVIEWS.labels(
            str(request["kind"]["kind"]), "refused" if findings else "warned" if warnings else "allowed"
        ).inc()
        SECONDS.observe(time.perf_counter() - began)
        return 200, json.dumps(review_response(request, findings, warnings)).encode(), "application/json"


async def _body(receive: Receive) -> bytes | None:
    """The whole request body; None when it is larger than any review is."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part = message.get("body", b"")
        size += len(part)
        if size > BODY_LIMIT:
            return None
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def webhook_configuration(
    *,
    name: str,
    failure_policy: str,
    service: tuple[str, str, int] | None = None,
    url: str | None = None,
    ca_bundle: bytes | None = None,
    timeout_seconds: int = 5,
) -> dict[str, Any]:
    """The ValidatingWebhookConfiguration: our group, whole objects only, by Service (namespace, name, port) or by URL.

    Deletions are not reviewed: nothing that is away may keep anybody from deleting.
    """
    client: dict[str, Any] = {"caBundle": base64.b64encode(ca_bundle).decode()} if ca_bundle else {}
    if service is not None:
        namespace, service_name, port = service
        client["service"] = {"namespace": namespace, "name": service_name, "port": port, "path": PATH}
    else:
        client["url"] = f"{url}{PATH}"
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": [
            {
                "name": f"validate.{GROUP}",
                "clientConfig": client,
                "rules": [
                    {
                        "apiGroups": [GROUP],
                        "apiVersions": [VERSION],
                        "operations": ["CREATE", "UPDATE"],
                        "resources": sorted(kind.plural for kind in KINDS.values()),
                        "scope": "*",
                    }
                ],
                "failurePolicy": failure_policy,
                "matchPolicy": "Equivalent",
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
                "timeoutSeconds": timeout_seconds,
            }
        ],
    }
