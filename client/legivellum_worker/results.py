"""How the work under a lease ends: an Output, or one of three exceptions that a handler raises.

HandlerResult
├── Failed      the task ends as a failure
├── Escalate    somebody else takes the obligation
└── Release     the task goes back to the queue
"""

from __future__ import annotations

import re

from metagate_client.errors import MisconfiguredError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from legivellum_worker.artifacts import StoredArtifact

LARGEST_TEXT = 24 * 1024
"""Bytes of an output that are sent with the completion. The body of `/complete` may have 32 KB, escapes included."""
LARGEST_BODY = 32 * 1024
NOT_MET = "DEPENDENCY_NOT_MET"
INPUT_REFUSED = "INPUT_REFUSED"
AUTHORITY_INSUFFICIENT = "AUTHORITY_INSUFFICIENT"
OUTPUT_TOO_LARGE = "OUTPUT_TOO_LARGE"
OUTPUT_REFUSED = "OUTPUT_REFUSED"
_LARGEST_REASON = 2_048
_LIMIT = "LIMIT_"
_CODE = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,99}\Z")
_ESCALATION_CLASSES = frozenset({"owner", "capability", "trust", "policy", "scope", "other"})


class Output:
    """What a handler made: a text, bytes, or a pointer to what it stored itself.

    Where the task's authority grants the sink `depotgate/output`, text and bytes are deposited there, and their pointer
    is sent. Without it a text travels in the receipt; bytes do not, and end as AUTHORITY_INSUFFICIENT.
    `usage` is kept in the metadata of the receipt: what the work cost.
    """

    __slots__ = ("checksum", "content", "location", "media_type", "pointer", "size_bytes", "text", "usage")

    def __init__(
        self,
        text: str | bytes | None = None,
        media_type: str = "text/plain",
        *,
        pointer: str | None = None,
        checksum: str | None = None,
        size_bytes: int | None = None,
        location: str | None = None,
        usage: Mapping[str, Any] | None = None,
    ) -> None:
        if text is not None and not isinstance(text, str | bytes):
            raise TypeError("an Output is a str or bytes")
        if isinstance(text, bytes) and pointer is not None:
            raise TypeError("an Output has bytes or a pointer, not both")
        self.text = text if isinstance(text, str) else None
        self.content = text if isinstance(text, bytes) else None
        """What has to be deposited before it can be named."""
        self.media_type, self.usage = media_type, usage
        self.pointer, self.checksum, self.size_bytes = pointer, checksum, size_bytes
        self.location = location or pointer

    @classmethod
    def of(cls, artifact: StoredArtifact, text: str | None = None, *, usage: Mapping[str, Any] | None = None) -> Output:
        """What was deposited in DepotGate, perhaps with a text beside it."""
        return cls(
            text,
            artifact.media_type,
            pointer=artifact.pointer,
            checksum=f"sha256:{artifact.sha256}",
            size_bytes=artifact.size_bytes,
            location=artifact.location,
            usage=usage,
        )

    def claim(self) -> dict[str, Any]:
        """The outcome fields of `/complete`. Raises Failed for a text that does not fit into a receipt."""
        if self.text is not None and len(self.text.encode("utf-8", "surrogatepass")) > LARGEST_TEXT:
            raise Failed(OUTPUT_TOO_LARGE, usage=self.usage)
        metadata: dict[str, Any] = {}
        if self.usage is not None:
            metadata["usage"] = dict(self.usage)
        if self.text and self.media_type != "text/plain":
            metadata["media_type"] = self.media_type
        claim: dict[str, Any] = {"status": "success", "outcome_kind": self._outcome_kind()}
        if self.text:
            claim["outcome_text"] = self.text
        if self.pointer is not None:
            claim |= {"artifact_pointer": self.pointer, "artifact_location": self.location}
            claim["artifact_mime"] = self.media_type
            if self.checksum is not None:
                claim["artifact_checksum"] = self.checksum
            if self.size_bytes is not None:
                claim["artifact_size_bytes"] = self.size_bytes
        return {**claim, "metadata": metadata} if metadata else claim

    def _outcome_kind(self) -> str:
        if self.pointer is None:
            return "response_text" if self.text else "none"
        return "mixed" if self.text else "artifact_pointer"


class HandlerResult(Exception):  # noqa: N818 - what a handler decides, which is no error
    """What a handler raises to end its work otherwise than with an output."""


class Failed(HandlerResult):
    """The task ends as a failure, or is escalated where a rule of its step says so.

    `code` stands in `metadata.reason`: a name, never a value that somebody declared. `usage`: what the work cost.
    """

    def __init__(self, code: str, text: str | None = None, *, usage: Mapping[str, Any] | None = None) -> None:
        if not _CODE.match(code):
            raise MisconfiguredError("the code of a failure is a word of letters, digits, '_' and '.'")
        super().__init__(code)
        self.code, self.text, self.usage = code, text, usage

    @property
    def cause(self) -> str:
        """What a rule names: `dependency`, `limit` for codes that begin with `LIMIT_`, else `failure`."""
        if self.code == NOT_MET:
            return "dependency"
        return "limit" if self.code.startswith(_LIMIT) else "failure"

    @property
    def reason(self) -> str:
        """For an escalation: the code, and the text where there is one."""
        return self.code if not self.text else f"{self.code}: {self.text}"[:_LARGEST_REASON]

    def claim(self) -> dict[str, Any]:
        """The outcome fields of `/complete`."""
        claim: dict[str, Any] = {"status": "failure", "outcome_kind": "response_text" if self.text else "none"}
        if self.text:
            claim["outcome_text"] = self.text
        usage = {} if self.usage is None else {"usage": dict(self.usage)}
        return {**claim, "metadata": {"reason": self.code, **usage}}


class Escalate(HandlerResult):
    """Somebody else takes the obligation: `to`, or the first one whom the task names."""

    def __init__(self, reason: str, *, to: str | None = None, escalation_class: str = "other") -> None:
        if escalation_class not in _ESCALATION_CLASSES:
            raise MisconfiguredError(f"the class of an escalation is one of {', '.join(sorted(_ESCALATION_CLASSES))}")
        super().__init__(reason)
        self.reason, self.to, self.escalation_class = reason, to, escalation_class


class Release(HandlerResult):
    """The task goes back to the end of the queue, available again `after` so many seconds (at most 3600)."""

    def __init__(self, after: int = 0, reason: str | None = None) -> None:
        if not 0 <= after <= 3600:
            raise MisconfiguredError("a task is given back for 0 to 3600 seconds")
        super().__init__(reason or "released")
        self.after, self.reason = after, reason
