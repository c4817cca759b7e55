"""Tasks that belong together: when one of them ends, all end."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


async def run_until_first_exit(**works: Callable[[], Coroutine[Any, Any, None]]) -> str:
    """Runs all of them as tasks of these names until one ends; the others are cancelled and waited for.

    Returns the name of the one that ended, or raises its own error and no group of errors: the caller has one reason
    why the process ends. When several failed at once, the first by the order given is raised.
    """
    tasks = {name: asyncio.create_task(work(), name=name) for name, work in works.items()}
    try:
        ended, _ = await asyncio.wait(tasks.values(), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
    names = [name for name, task in tasks.items() if task in ended]
    for name in names:
        tasks[name].result()
    return names[0]
