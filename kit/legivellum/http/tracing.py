"""Traces for whoever wants them: what they need is imported only where they are on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from legivellum.http.spans import Traces


class TracingSettings(Protocol):
    """What an installation chooses of it: a gate's settings."""

    @property
    def tracing(self) -> bool: ...
    @property
    def version(self) -> str: ...


def traces(service: str, settings: TracingSettings) -> Traces | None:
    """Raises ModuleNotFoundError where the extra `otel` is not installed."""
    if not settings.tracing:
        return None
    from legivellum.http.spans import Traces  # noqa: PLC0415 - an extra

    return Traces(service, settings.version)
