"""How log lines look: one event name and key/values per line, JSON for machines, columns for people; to stderr.

Nothing on the way adds a value that somebody declared: exceptions are logged by type and place, without their text
(a driver's names the value that it did not like) and without locals.
"""

import logging
import sys
import traceback
from types import TracebackType
from typing import Any, Protocol, TextIO

import structlog

ExcInfo = tuple[type[BaseException] | None, BaseException | None, TracebackType | None]


def traceback_places(exc_info: ExcInfo) -> str:
    """Where an exception came from, through all that led to it: files, lines and types, the last one first."""
    parts = []
    error, visited = exc_info[1], set[int]()
    while error is not None and id(error) not in visited:
        visited.add(id(error))
        parts.append("".join([*traceback.format_tb(error.__traceback__), type(error).__qualname__]))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\nafter\n".join(parts)


def _on_console(out: TextIO, exc_info: Any) -> None:
    out.write("\n" + traceback_places(exc_info))


class LoggingSettings(Protocol):
    """What an installation chooses of it: a gate's settings. `log_format`: json or console."""

    @property
    def debug(self) -> bool: ...
    @property
    def log_format(self) -> str: ...


def configure(settings: LoggingSettings, *, quiet: bool = False) -> None:
    """Once per process. The standard library's loggers (uvicorn, asyncio) come out the same way.

    `quiet`: warnings and errors only.
    """
    level = logging.DEBUG if settings.debug else logging.WARNING if quiet else logging.INFO
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    renderers: list[Any] = (
        [structlog.processors.ExceptionRenderer(traceback_places), structlog.processors.JSONRenderer()]
        if settings.log_format == "json"
        else [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=_on_console)]
    )
    structlog.configure(
        processors=[*shared, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
