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
_CODE = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,99}\Z")
_ESCALATION_CLASSES = frozenset({"owner", "capability", "trust", "policy", "scope", "other"})


class Output:
    """What a handler made: a text, or a pointer to what it stored itself.

    `usage` is kept in the metadata of the receipt: what the work cost.
    """

    __slots__ = ("checksum", "location", "media_type", "pointer", "size_bytes", "text", "usage")

    def __init__(
        self,
        text: str | None = None,
        media_type: str = "text/plain",
        *,
        pointer: str | None = None,
        checksum: str | None = None,
        size_bytes: int | None = None,
        location: str | None = None,
        usage: Mapping[str, Any] | None = None,
    ) -> None:
        if text is not None and not isinstance(text, str):
            raise TypeError("the text of an Output is a str; store bytes yourself and give their pointer")
        self.text, self.media_type, self.usage = text, media_type, usage
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
            raise Failed("OUTPUT_TOO_LARGE")
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
    """The task ends as a failure. `code` stands in `metadata.reason`: a name, never a value that somebody declared."""

    def __init__(self, code: str, text: str | None = None) -> None:
        if not _CODE.match(code):
            raise MisconfiguredError("the code of a failure is a word of letters, digits, '_' and '.'")
        super().__init__(code)
        self.code, self.text = code, text

    def claim(self) -> dict[str, Any]:
        """The outcome fields of `/complete`."""
        claim: dict[str, Any] = {"status": "failure", "outcome_kind": "response_text" if self.text else "none"}
        if self.text:
            claim["outcome_text"] = self.text
        return {**claim, "metadata": {"reason": self.code}}


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
