"""Sessions that are let go one step at a time, in every order there is: a model check whose model is the real thing.

What runs is the store's own code (`Publisher`, `Reader`) with its own SQL on a real PostgreSQL; a step is one statement,
or the commit after it. Before each step a session waits until it is let go. A run lets them go in one order; `explore`
runs every order: it plays the first one, then each that differs from a played one in a single choice, until none is
left. A session that waits for a lock cannot be let go; that it waits is PostgreSQL's own word (`pg_locks`), so a
statement that was begun, had its snapshot and waits, and one that was not begun yet, are two different orders, and both
are played.

Why not a specification in TLA+ or Promela: what could be wrong here is exactly what such a model would have to assume:
which snapshot a statement sees, which lock it takes, what ON CONFLICT, SKIP LOCKED or a re-checked UPDATE do when the
other transaction commits in between. A second description of that could agree with itself and not with PostgreSQL.
The price is that bounds are small (two or three sessions, a handful of steps each); every known fault of this kind
needs no more.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from metagate_store.errors import StoreUnavailable
from metagate_store.queries import every, sql

STUCK_SECONDS = 20.0
"""After which nobody is waiting for a lock any more: something hangs."""

NAMES = {query.sql: name for name, query in every().items()}


class SteppedSession:
    """A coroutine with a connection of its own, let go step by step."""

    def __init__(self, name: str, connection: asyncpg.Connection, pauses: Callable[[str], bool]) -> None:
        self.name = name
        self.connection = connection
        self.log: list[tuple[int, str]] = []
        """When each step was begun, by the run's count of steps."""
        self._pauses = pauses
        self._asking: asyncio.Future[int] | None = None
        self._moved = asyncio.Event()
        self._task: asyncio.Task[Any] | None = None
        self.ended_at = 0

    @property
    def asks(self) -> bool:
        return self._asking is not None

    @property
    def done(self) -> bool:
        return self._task is not None and self._task.done()

    @property
    def runs(self) -> bool:
        return not self.asks and not self.done

    def start(self, work: Awaitable[Any]) -> None:
        self._task = asyncio.ensure_future(work)
        self._task.add_done_callback(lambda _task: self._moved.set())

    def result(self) -> Any:
        """What it returned, or the exception that it raised."""
        assert self._task is not None
        return self._task.exception() or self._task.result()

    def begun(self, step: str) -> list[int]:
        return [at for at, name in self.log if name == step]

    # ── from inside ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def step(self, name: str) -> None:
        """Wait to be let go, where this kind of step is one of the bounds."""
        if not self._pauses(name):
            return
        self._asking = asyncio.get_running_loop().create_future()
        self._moved.set()
        self.log.append((await self._asking, name))

    # ── from outside ─────────────────────────────────────────────────────────────────────────────────────────────────

    def go(self, at: int) -> None:
        asking, self._asking = self._asking, None
        assert asking is not None
        self._moved.clear()
        asking.set_result(at)

    async def moved(self, seconds: float) -> None:
        if self.runs:
            try:
                await asyncio.wait_for(self._moved.wait(), seconds)
            except TimeoutError:
                return

    async def end(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


class Stepped:
    """A connection as the publisher uses it, each of whose statements and commits is a step."""

    def __init__(self, session: SteppedSession, instead: dict[str, str] | None = None) -> None:
        self._session = session
        self._instead = instead or {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session.connection, name)

    async def _stepped(self, method: str, text: str, *arguments: Any) -> Any:
        await self._session.step(NAMES[text])
        return await getattr(self._session.connection, method)(self._instead.get(text, text), *arguments)

    async def execute(self, text: str, *arguments: Any) -> Any:
        return await self._stepped("execute", text, *arguments)

    async def fetch(self, text: str, *arguments: Any) -> Any:
        return await self._stepped("fetch", text, *arguments)

    async def fetchrow(self, text: str, *arguments: Any) -> Any:
        return await self._stepped("fetchrow", text, *arguments)

    async def fetchval(self, text: str, *arguments: Any) -> Any:
        return await self._stepped("fetchval", text, *arguments)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """BEGIN is no step: it takes neither lock nor snapshot."""
        whole = self._session.connection.transaction()
        await whole.start()
        try:
            yield
        except BaseException:
            if not self._session.connection.is_closed():
                await whole.rollback()
            raise
        await self._session.step("commit")
        await whole.commit()


class SteppedPool:
    """A pool as the reader uses it: the statement is one step, its commit another.

    `unheard`: the first so many commits happen, and nobody hears of it. `lost`: they do not happen.
    """

    def __init__(
        self, session: SteppedSession, *, unheard: int = 0, lost: int = 0, instead: dict[str, str] | None = None
    ) -> None:
        self._session = session
        self._unheard = unheard
        self._lost = lost
        self._instead = instead or {}

    async def fetch(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        await self._session.step(query)
        whole = self._session.connection.transaction()
        await whole.start()
        text = sql(query)
        rows: list[asyncpg.Record] = await self._session.connection.fetch(self._instead.get(text, text), *arguments)
        await self._session.step("commit")
        if self._lost:
            self._lost -= 1
            await whole.rollback()
            raise StoreUnavailable("the server was gone before the commit")
        await whole.commit()
        if self._unheard:
            self._unheard -= 1
            raise StoreUnavailable("the server was gone after the commit")
        return rows


# ── playing one order ────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class Run:
    """One order as it was played: who was let go, and who could have been instead."""

    sessions: Sequence[SteppedSession]
    choices: list[int] = field(default_factory=list)
    options: list[list[int]] = field(default_factory=list)
    stuck: bool = False

    @property
    def order(self) -> str:
        """Who was let go when, and what each of them did then."""
        steps = sorted((at, session.name, name) for session in self.sessions for at, name in session.log)
        return " | ".join(f"{principal}: {step}" for _, principal, step in steps)


async def play(sessions: Sequence[SteppedSession], prefix: Sequence[int], monitor: asyncpg.Connection) -> Run:
    """Let the sessions go in the order that begins with `prefix`; after it always the first who can."""
    run = Run(sessions)
    await _quiet(sessions, monitor)
    while not all(session.done for session in sessions):
        able = [at for at, session in enumerate(sessions) if session.asks]
        if not able:
            run.stuck = True
            break
        at = len(run.choices)
        wanted = prefix[at] if at < len(prefix) else able[0]
        run.options.append(able)
        run.choices.append(wanted if wanted in able else able[0])
        sessions[run.choices[-1]].go(at + 1)
        await _quiet(sessions, monitor)
        for session in sessions:
            if session.done and not session.ended_at:
                session.ended_at = at + 1
    return run


async def _quiet(sessions: Sequence[SteppedSession], monitor: asyncpg.Connection) -> None:
    """Until everybody asks, is done, or waits for a lock that only another one's step can free."""
    deadline = asyncio.get_running_loop().time() + STUCK_SECONDS
    while running := [session for session in sessions if session.runs]:
        for session in running:
            await session.moved(0.002)
        if running := [session for session in sessions if session.runs]:
            pids = [session.connection.get_server_pid() for session in running if not session.connection.is_closed()]
            waiting = {
                row["pid"]
                for row in await monitor.fetch("SELECT pid FROM pg_locks WHERE NOT granted AND pid = ANY ($1)", pids)
            }
            if len(waiting) == len(running) and any(session.asks for session in sessions):
                return
        if asyncio.get_running_loop().time() > deadline:
            return


# ── playing all ──────────────────────────────────────────────────────────────────────────────────────────────────────

Scene = Callable[[Sequence[int]], Awaitable[tuple[Run, list[str]]]]
"""Makes a fresh harness, plays the order that begins with these choices, and says what was wrong with what came of it."""


@dataclass(slots=True)
class Explored:
    """`orders`: how many different ones were played."""

    orders: int = 0
    wrong: list[str] = field(default_factory=list)


async def explore(scene: Scene, *, until_wrong: bool = False) -> Explored:
    """Every order of the scene's steps, or until the first that goes wrong."""
    exploration = Explored()
    open_: list[list[int]] = [[]]
    while open_:
        prefix = open_.pop()
        run, wrong = await scene(prefix)
        exploration.orders += 1
        if run.stuck:
            wrong = [*wrong, "nobody can go on"]
        exploration.wrong += [f"{says}; order: {run.order}" for says in wrong]
        if until_wrong and exploration.wrong:
            return exploration
        if run.choices[: len(prefix)] == prefix:
            open_ += _others(run, len(prefix))
    return exploration


def _others(run: Run, since: int) -> Iterator[list[int]]:
    for at in range(since, len(run.choices)):
        for other in run.options[at]:
            if other != run.choices[at]:
                yield [*run.choices[:at], other]
