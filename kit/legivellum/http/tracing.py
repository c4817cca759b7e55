"""Traces for whoever wants them: what they need is imported only where they are on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from legivellum.http.spans import SpanRecorder


class TracingSettings(Protocol):
    """What an installation chooses of it: a gate's settings."""

    @property
    def tracing(self) -> bool: ...
    @property
    def version(self) -> str: ...


def span_recorder(service: str, settings: TracingSettings) -> SpanRecorder | None:
    """Raises ModuleNotFoundError where the extra `otel` is not installed."""
    if not settings.tracing:
        return None
    from legivellum.http.spans import SpanRecorder  # noqa: PLC0415 - an extra

    return SpanRecorder(service, settings.version)
