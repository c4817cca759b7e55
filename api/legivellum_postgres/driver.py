"""The one place where the driver's errors become ours (FAULTS.md).

Everything that says "not now" becomes Unavailable, and so does anything unknown from the driver: nothing from a
database may turn into a 500. What says "never" (a function is missing, a right is missing) becomes SchemaMismatch.
"""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

import asyncpg

from legivellum_postgres.errors import DatabaseError, SchemaMismatch, Unavailable

P = ParamSpec("P")
R = TypeVar("R")

NEVER = frozenset({"42883", "42P01", "42703", "3F000", "42501", "42704"})
"""Undefined function, table, column, schema; insufficient privilege; undefined object."""


def translate(error: BaseException) -> DatabaseError:
    """Our name for what the driver said. Its text stays behind: it may quote SQL or values."""
    if isinstance(error, DatabaseError):
        return error
    code = getattr(error, "sqlstate", None) or ""
    if isinstance(error, asyncpg.PostgresError) and code in NEVER:
        return SchemaMismatch(f"the schema does not fit ({code})")
    return Unavailable(f"the database did not answer ({code or type(error).__name__})")


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
