"""What a token claims, once its signature holds: for whom, since when, until when, and whose pod.

Pure: claims and the time in, an answer out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

from legivellum.identity.caller import AuthFailure, FailureReason, Pod

LEEWAY: Final = 30
"""Seconds by which the clocks of issuer and gate may differ (F25)."""

_LONGEST_NAME: Final = 1024
_LARGEST_TIME: Final = 2**40
_SERVICE_ACCOUNT: Final = "system:serviceaccount:"

_SUBJECT: Final = AuthFailure(
    FailureReason.CLAIMS, "The token's sub must be a text of 1 to 1,024 characters without control characters."
)
_TIMES: Final = AuthFailure(
    FailureReason.CLAIMS, "The token needs iat and exp; they and nbf must be whole numbers of seconds."
)
_EXPIRED: Final = AuthFailure(FailureReason.EXPIRED, "The token has expired: read it again from where it came from.")
_NOT_YET: Final = AuthFailure(
    FailureReason.NOT_YET_VALID, "The token is from the future: check the clocks of issuer and gate."
)
_AUDIENCE: Final = AuthFailure(FailureReason.AUDIENCE, "The token was not issued for this service: check its audience.")
_AUDIENCES: Final = AuthFailure(
    FailureReason.AUDIENCE,
    "The token has several audiences, and any of them could replay it: ask for one with a single one.",
)
_LIFETIME: Final = AuthFailure(
    FailureReason.LIFETIME, "The token lives longer than its issuer's maxTokenLifetime allows."
)
_DISAGREE: Final = AuthFailure(
    FailureReason.SERVICE_ACCOUNT, "The token's service-account claims do not agree with its subject."
)


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds since the epoch."""

    issued_at: int
    not_before: int
    expires_at: int

    def refuse(self, now: float) -> AuthFailure | None:
        """Why the token is not good at this moment, if it is not."""
        if now >= self.expires_at + LEEWAY:
            return _EXPIRED
        if now < max(self.issued_at, self.not_before) - LEEWAY:
            return _NOT_YET
        return None


def times(claims: Mapping[str, Any], longest_life: int) -> Times | AuthFailure:
    """The times of a token, when they are whole numbers and the token does not live too long (seconds)."""
    issued, expires = claims.get("iat"), claims.get("exp")
    starts = claims.get("nbf", issued)
    if not (_is_time(issued) and _is_time(expires) and _is_time(starts)):
        return _TIMES
    if expires <= issued or expires <= starts:
        return _TIMES
    if expires - issued > longest_life:
        return _LIFETIME
    return Times(issued, starts, expires)


def subject(claims: Mapping[str, Any]) -> str | AuthFailure:
    """The token's subject, if it is a text that can be compared and stored."""
    value = claims.get("sub")
    if not isinstance(value, str) or not _is_name(value):
        return _SUBJECT
    return value


def audience(
    claims: Mapping[str, Any], accepted: Collection[str] | None, issued_for: Collection[str]
) -> str | AuthFailure:
    """D-44: the one audience of the token, which must be in `issued_for` (its issuer's) and in `accepted` (the gate's).

    `accepted` None: any audience of the issuer, for gates that ask about a token they received (D-48).
    """
    value = claims.get("aud")
    if isinstance(value, list):
        if len(value) > 1:
            return _AUDIENCES
        value = value[0] if value else None
    if not isinstance(value, str) or value not in issued_for or (accepted is not None and value not in accepted):
        return _AUDIENCE
    return value


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """What Kubernetes says of a token: which pod it is bound to, if any."""

    namespace: str
    pod: Pod | None


def service_account(claims: Mapping[str, Any], sub: str, *, required: bool) -> ServiceAccount | AuthFailure | None:
    """The service account of a token whose `kubernetes.io` claims agree with its subject; None for other tokens.

    `required`: this issuer's tokens are service accounts' and nothing else (the cluster's own issuer).
    """
    kubernetes = claims.get("kubernetes.io")
    if kubernetes is None and not required and not sub.startswith(_SERVICE_ACCOUNT):
        return None
    if not isinstance(kubernetes, dict) or not isinstance(kubernetes.get("serviceaccount"), dict):
        return _DISAGREE
    namespace, name = kubernetes.get("namespace"), kubernetes["serviceaccount"].get("name")
    if not isinstance(namespace, str) or not isinstance(name, str) or sub != f"{_SERVICE_ACCOUNT}{namespace}:{name}":
        return _DISAGREE
    bound = kubernetes.get("pod")
    if bound is None:
        return ServiceAccount(namespace, None)
    node = kubernetes.get("node")
    if not isinstance(bound, dict) or not (node is None or isinstance(node, dict)):
        return _DISAGREE
    uid, pod_name, node_name = bound.get("uid"), bound.get("name"), None if node is None else node.get("name")
    if not isinstance(uid, str) or not all(_is_name(text) for text in (uid, pod_name, node_name) if text is not None):
        return _DISAGREE
    return ServiceAccount(namespace, Pod(uid, pod_name, node_name))


def _is_time(value: object) -> TypeGuard[int]:
    # bool is an int in Python, and true is not a time.
    return type(value) is int and 0 <= value < _LARGEST_TIME


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _LONGEST_NAME and value.isprintable()
