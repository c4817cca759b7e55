"""The receipts that DepotGate emits (DP-06), as canonical forms with marks where only the statement knows the value.

T task and O obligation it is filed under, P principal, C cause, A number of the lease, B key of the blob
"""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from depotgate.artifact import EMITTER, Artifact, Pointer, Upload
from legivellum.receipts.phase_rules import ReceiptFinding
from legivellum.receipts.templates import placeholders, template_of

_SAMPLE_ID: Final = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
_UNKNOWN: Final = placeholders(T="task", O="task", P="alice", C=_SAMPLE_ID, A=None, B="blob")


class InvalidDeposit(Exception):  # noqa: N818 - what the deposit is
    """What the depositor said of the artifact makes no receipt: `findings` says which fields."""

    def __init__(self, findings: tuple[ReceiptFinding, ...]) -> None:
        super().__init__("; ".join(map(str, findings)))
        self.findings = findings


def stored_form(upload: Upload, artifact_id: str, receipt_id: str, location: str) -> str:
    """`artifact/stored`. Under a lease it is about the obligation and caused by what issued the lease; else principal
    and cause are the depositor and what it named. Raises InvalidDeposit.
    """
    deposit = upload.deposit
    leased = deposit.lease_id is not None
    return _form(deposit.tenant, {
        **_common("stored", receipt_id, Pointer(artifact_id, upload.sha256)),
        "principal_ai": _UNKNOWN["P"] if leased else deposit.depositor,
        "caused_by_receipt_id": _UNKNOWN["C"] if leased else deposit.caused_by_receipt_id,
        "artifact_location": location,
        "artifact_mime": deposit.media_type,
        "artifact_checksum": f"sha256:{upload.sha256}",
        "artifact_size_bytes": upload.size_bytes,
        "body": {
            "blob": _UNKNOWN["B"],
            "depositor": deposit.depositor,
            "lease_number": _UNKNOWN["A"],
            "name": deposit.name,
            "role": deposit.role,
            "task_id": deposit.task_id,
        },
    })  # fmt: skip


def retired_form(tenant: UUID, artifact: Artifact, receipt_id: str, *, by: str) -> str:
    """`artifact/retired`, caused by `artifact/stored`, of the same task and principal. Raises InvalidDeposit."""
    return _form(tenant, {
        **_common("retired", receipt_id, artifact.pointer),
        "principal_ai": _UNKNOWN["P"],
        "caused_by_receipt_id": _UNKNOWN["C"],
        "body": {"retired_by": by, "role": artifact.role},
    })  # fmt: skip


def _common(phase: str, receipt_id: str, pointer: Pointer) -> dict[str, Any]:
    return {
        "receipt_id": receipt_id,
        "kind": "artifact",
        "phase": phase,
        "task_id": _UNKNOWN["T"],
        "obligation_id": _UNKNOWN["O"],
        "artifact_pointer": str(pointer),
    }


def _form(tenant: UUID, sent: dict[str, Any]) -> str:
    form = template_of({**sent, "tenant_id": str(tenant)}, tenant=str(tenant), emitter=EMITTER)
    if isinstance(form, str):
        return form
    raise InvalidDeposit(form)
