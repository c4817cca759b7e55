"""What `metagate doctor --cluster` looks at in an installation: webhook, rights, pods, and their database."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from metagate_cli.observations import Observation
from metagate_cli.output import safe_text
from metagate_crds.kinds import API_VERSION, GROUP, MANIFEST
from metagate_operator.cluster.kubernetes_client import (
    KubernetesClient,
    KubernetesRefused,
    collection_items,
    collection_path,
)
from metagate_operator.cluster.preflight import account_reviews, may_account
from metagate_operator.cluster.rbac import RbacRight, admission_rights, operator_rights

_COMPONENT: Final = "app.kubernetes.io/component"
_WAITING_FOR_IMAGE: Final = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
_WAITING_FOR_OTHERS: Final = frozenset({"PodInitializing", "ContainerCreating"})
_DATABASE_CONTAINERS: Final = frozenset({"migrate", "wait-for-schema"})
"""The init containers of the chart that end once the database answers and its schema fits."""
_WEBHOOK_PAGE: Final = "docs/howto/webhook.md"


async def check_webhook(kubernetes: KubernetesClient, namespace: str) -> list[Observation]:
    path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
    ours = [
        (item["metadata"]["name"], webhook)
        async for item in collection_items(kubernetes, path)
        for webhook in item.get("webhooks") or []
        if any(GROUP in (rule.get("apiGroups") or []) for rule in webhook.get("rules") or [])
    ]
    if not ours:
        says = "there is none: what is invalid is refused by the operator only, after it was applied"
        return [Observation("note", "webhook", says, "metagate admission configuration | kubectl apply -f -")]
    without = sorted({name for name, webhook in ours if not webhook["clientConfig"].get("caBundle")})
    if without:
        advice = "does `metagate admission` run? It writes its own certificate authority there"
        return [Observation("wrong", "webhook", f"{', '.join(without)} has no caBundle: every apply fails", advice)]
    return [await _check_webhook_answers(kubernetes, namespace, ", ".join(sorted({name for name, _ in ours})))]


async def _check_webhook_answers(kubernetes: KubernetesClient, namespace: str, names: str) -> Observation:
    """Asks the API server to try, and not to store, an object that only the webhook refuses."""
    probe = {
        "apiVersion": API_VERSION,
        "kind": MANIFEST.name,
        "metadata": {"name": "metagate-doctor", "namespace": namespace},
        # a forbidden key: the CRD's schema lets it pass
        "spec": {"deploymentKey": "metagate-doctor", "version": 1, "environment": {"tasks": []}},
    }
    try:
        await kubernetes.call("POST", collection_path(MANIFEST, namespace), query={"dryRun": "All"}, body=probe)
    except KubernetesRefused as error:
        message = safe_text(error.message)
        if "denied the request" in message:
            return Observation("ok", "webhook", f"{names} answers, and refuses what is not valid")
        if "failed calling webhook" in message:
            return Observation("wrong", "webhook", f"{names}: {message}", _WEBHOOK_PAGE)
        return Observation(
            "note", "webhook", f"{names} could not be tried: {message}", "may this user create Manifests?"
        )
    says = f"{names} does not answer: an object that it refuses was let through (failurePolicy Ignore)"
    return Observation("wrong", "webhook", says, _WEBHOOK_PAGE)


async def check_account_rights(kubernetes: KubernetesClient, namespace: str) -> list[Observation]:
    """Whether the service accounts of the operator and of the admission pods may do what these processes do."""
    missing: list[str] = []
    accounts = 0
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    async for deployment in collection_items(kubernetes, path, label_selector=f"{_COMPONENT} in (operator,admission)"):
        pod = deployment["spec"]["template"]["spec"]
        namespaces = _watched_namespaces(pod)
        account = pod.get("serviceAccountName", "default")
        accounts += 1
        reviews = account_reviews(_rights(deployment, namespaces), namespace=namespace, namespaces=namespaces)
        missing += [
            f"{account} may not {review}"
            for review in reviews
            if not await may_account(kubernetes, namespace, account, review)
        ]
    if missing:
        advice = "helm upgrade writes the roles anew; by hand: metagate operator rbac | kubectl apply -f -"
        return [Observation("wrong", "rights", safe_text("; ".join(missing)), advice)]
    if not accounts:
        return []  # check_pods says that nothing is installed in this namespace
    return [Observation("ok", "rights", f"{accounts} service accounts may do what they have to")]


def _rights(deployment: Mapping[str, Any], namespaces: list[str]) -> tuple[RbacRight, ...]:
    if deployment["metadata"]["labels"][_COMPONENT] == "operator":
        return operator_rights(namespaces)
    # what it may do with its certificate is granted by names, which are those of the release
    return admission_rights(self_managed=False)


def _watched_namespaces(pod: Mapping[str, Any]) -> list[str]:
    arguments = [argument for container in pod["containers"] for argument in container.get("args") or []]
    prefix = "--namespace="
    return [argument.removeprefix(prefix) for argument in arguments if argument.startswith(prefix)]


async def check_pods(kubernetes: KubernetesClient, namespace: str) -> list[Observation]:
    """Images that cannot be pulled, containers that do not start, and what that says about the database."""
    path = f"/api/v1/namespaces/{namespace}/pods"
    pods = [pod async for pod in collection_items(kubernetes, path) if pod["status"].get("phase") != "Succeeded"]
    if not pods:
        says = f"there is none in {namespace}"
        return [Observation("note", "pods", says, "is it installed elsewhere? --system-namespace names it")]
    wrong = [observation for pod in pods for observation in _check_pod(pod)]
    if not wrong:
        wrong = [Observation("ok", "pods", f"{len(pods)} in {namespace}, all ready")]
    ready = [pod for pod in pods if _is_component(pod, "api") and _is_ready(pod)]
    if ready and not any(observation.what == "database" for observation in wrong):
        count = "1 API pod is" if len(ready) == 1 else f"{len(ready)} API pods are"
        wrong.append(Observation("ok", "database", f"its schema fits, and {count} ready, which takes its answers"))
    return wrong


def _check_pod(pod: Mapping[str, Any]) -> Iterator[Observation]:
    name, namespace = safe_text(pod["metadata"]["name"]), safe_text(pod["metadata"]["namespace"])
    for status in _container_statuses(pod):
        container = safe_text(status["name"])
        state = status.get("state") or {}
        reason, message = _obstacle(state)
        if reason in _WAITING_FOR_IMAGE:
            says = f"the image {safe_text(status['image'])} cannot be pulled ({reason})"
            yield Observation("wrong", f"pod {name}", says, "build or push it, and set image.repository and image.tag")
            return
        if container in _DATABASE_CONTAINERS and (reason or "running" in state):
            says = f"pod {name} waits in {container}{f': {reason}' if reason else ''}{message}"
            yield Observation("wrong", "database", says, f"kubectl logs {name} -c {container} -n {namespace}")
            return
        if reason:
            advice = f"kubectl logs --previous {name} -c {container} -n {namespace}"
            yield Observation("wrong", f"pod {name}", f"waits: {reason}{message}", advice)
            return
    if not _is_ready(pod):
        yield Observation("wrong", f"pod {name}", "is not ready", f"kubectl describe pod {name} -n {namespace}")


def _container_statuses(pod: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    status = pod["status"]
    return [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]


def _obstacle(state: Mapping[str, Any]) -> tuple[str, str]:
    """Reason and message of what keeps a container from running; "" and "" when nothing does."""
    waiting, terminated = state.get("waiting"), state.get("terminated")
    if waiting and waiting.get("reason") not in _WAITING_FOR_OTHERS:
        message = waiting.get("message")
        return safe_text(waiting.get("reason")), f" ({safe_text(message)})" if message else ""
    if terminated and terminated.get("exitCode"):
        return f"ended with {terminated['exitCode']}", ""
    return "", ""


def _is_component(pod: Mapping[str, Any], component: str) -> bool:
    return (pod["metadata"].get("labels") or {}).get(_COMPONENT) == component


def _is_ready(pod: Mapping[str, Any]) -> bool:
    conditions = pod["status"].get("conditions") or []
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
