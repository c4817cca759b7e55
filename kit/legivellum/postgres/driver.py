"""The one place where the driver's errors become ours (docs/database.md).

Everything that says "not now" becomes Unavailable, and so does anything unknown from the driver: nothing from the
database may turn into a 500. What says "never" (a function is missing, a right is missing) becomes SchemaMismatch.
"""

import asyncio
import functools
import socket
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

import asyncpg

from legivellum.postgres.errors import DatabaseError, RowRefused, SchemaMismatch, Unavailable

P = ParamSpec("P")
R = TypeVar("R")

NEVER = frozenset({"42883", "42P01", "42703", "3F000", "42501", "42704"})
"""Undefined function, table, column, schema; insufficient privilege; undefined object."""

REFUSALS = {
    "28P01": "it refuses the password",
    "28000": "it refuses this role",
    "3D000": "it has no database of that name",
    "53300": "it has no connection left",
    "57P03": "it is starting or stopping",
}


def _why(error: BaseException, code: str) -> str:
    """In our words why there was no answer."""
    if isinstance(error, socket.gaierror):
        return "its host name is not known"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens at its address"
    if isinstance(error, ssl.SSLError):
        return "its certificate is not the one expected"
    if isinstance(error, asyncpg.exceptions.ClientConfigurationError):
        return "what its URL or a PG… variable says cannot be used"
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return "it is a standby, or not as target_session_attrs asks"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return REFUSALS.get(code, code or type(error).__name__)


def translate(error: BaseException) -> DatabaseError:
    """Our name for what the driver said. Its text stays behind: it may quote SQL or values."""
    if isinstance(error, DatabaseError):
        return error
    code = getattr(error, "sqlstate", None) or ""
    if isinstance(error, asyncpg.PostgresError) and code in NEVER:
        return SchemaMismatch(f"the schema does not fit ({code})")
    if code[:2] in {"22", "23"}:
        return RowRefused(f"the database refused a value ({code})")
    return Unavailable(f"the database did not answer ({code or type(error).__name__})", why=_why(error, code))


def translated(function: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
    """Raise our errors instead of the driver's, chained. Programming errors and cancellation pass."""

    @functools.wraps(function)
    async def asking(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await function(*args, **kwargs)
        except (
            TimeoutError,
            asyncpg.PostgresError,
            asyncpg.InterfaceError,
            asyncpg.InternalClientError,
            OSError,
            EOFError,
            asyncio.IncompleteReadError,
        ) as error:
            raise translate(error) from error

    return asking
