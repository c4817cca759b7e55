"""Artifacts as they are answered."""

from __future__ import annotations

from depotgate.artifact import Artifact
from legivellum.base.timestamps import rfc3339
from legivellum.http import strict_json


def deposited(artifact: Artifact, location: str) -> bytes:
    return strict_json.encode({
        "pointer": str(artifact.pointer),
        "artifact_id": artifact.artifact_id,
        "sha256": artifact.sha256,
        "size_bytes": artifact.size_bytes,
        "media_type": artifact.media_type,
        "role": artifact.role,
        "task_id": artifact.task_id,
        "location": location,
        "stored_at": rfc3339(artifact.stored_at),
        "receipt_id": artifact.receipt_id,
    })  # fmt: skip


def manifest(artifact: Artifact) -> bytes:
    return strict_json.encode({
        "pointer": str(artifact.pointer),
        "media_type": artifact.media_type,
        "size_bytes": artifact.size_bytes,
        "sha256": artifact.sha256,
        "role": artifact.role,
        "task_id": artifact.task_id,
        "name": artifact.name,
        "depositor": artifact.depositor,
        "lease_number": artifact.lease_number,
        "stored_at": rfc3339(artifact.stored_at),
        "state": artifact.state,
        "receipt_id": artifact.receipt_id,
    })  # fmt: skip
