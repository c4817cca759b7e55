"""A function whose every call is an obligation."""

from __future__ import annotations

import functools

from legivellum_worker.ledger_calls import NotRecorded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ParamSpec, TypeVar

    from legivellum_worker.ledger_connection import LedgerConnection

    Parameters = ParamSpec("Parameters")
    Returned = TypeVar("Returned")

_GENERATOR = 0x20 | 0x200
_COROUTINE = 0x80
"""Flags of a code object; `inspect` has names for them and takes 8 ms to import."""


def receipted(
    ledger: LedgerConnection,
    *,
    task_type: str | None = None,
    task_id: Callable[..., str] | None = None,
    summary: str | None = None,
    inputs: Callable[..., Any] | None = None,
    text: Callable[[Any], str] | None = None,
) -> Callable[[Callable[Parameters, Returned]], Callable[Parameters, Returned]]:
    """Each call of the function is an obligation: accepted, then success, failure with the exception's type, or
    canceled. Calls inside it are its children.

    Without `task_id`, which gets the arguments, each call is a task of its own; with it a call is the task's next
    attempt. Of the arguments what `inputs` makes of them is recorded, of the result what `text` makes of it; nothing
    else is. `async def` and `def` both, whichever ledger it is.
    """

    def decorate(function: Callable[Parameters, Returned]) -> Callable[Parameters, Returned]:
        flags = _flags(function)
        if flags & _GENERATOR:
            raise TypeError("a generator has ended when its reader has: put `ledger.obligation` around the reading")

        def options(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
            return {
                "task_type": task_type or getattr(function, "__qualname__", None),
                "task_id": None if task_id is None else task_id(*args, **kwargs),
                "summary": summary,
                "inputs": None if inputs is None else inputs(*args, **kwargs),
            }

        wrap = _awaiting if flags & _COROUTINE else _blocking
        wrapped: Callable[Parameters, Returned] = wrap(ledger, function, options, text)
        return wrapped

    return decorate


def _blocking(ledger: LedgerConnection, function: Any, options: Any, text: Callable[[Any], str] | None) -> Any:
    from legivellum_worker.ledger import Ledger

    ledger = Ledger.sharing(ledger)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        work, result = ledger.obligation(**options(args, kwargs)), None
        try:
            with work:
                result = function(*args, **kwargs)
                if text is not None:
                    work.text(text(result))
        except NotRecorded as error:
            if error is work.not_recorded:
                error.result = result
            raise
        return result

    return call


def _awaiting(ledger: LedgerConnection, function: Any, options: Any, text: Callable[[Any], str] | None) -> Any:
    from legivellum_worker.async_ledger import AsyncLedger

    ledger = AsyncLedger.sharing(ledger)

    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        work, result = ledger.obligation(**options(args, kwargs)), None
        try:
            async with work:
                result = await function(*args, **kwargs)
                if text is not None:
                    work.text(text(result))
        except NotRecorded as error:
            if error is work.not_recorded:
                error.result = result
            raise
        return result

    return call


def _flags(function: Any) -> int:
    """Of the function behind partials, methods and objects that are called."""
    while hasattr(function, "func"):
        function = function.func
    if not hasattr(function, "__code__"):
        function = getattr(function, "__func__", None) or type(function).__call__
    code = getattr(function, "__code__", None)
    return 0 if code is None else int(code.co_flags)
