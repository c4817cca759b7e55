"""Stories, fifty at once: each is asked for until the system has taken it, and then nobody does anything for it."""

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import httpx
from tests.integration.delegate.driving import envelope
from tests.integration.memorygate.conftest import new_id
from tests.integration.whole.activities import document
from tests.integration.whole.system import STORY_TASKS, DeclaredTenant

AT_ONCE = 50
_CLOSED = (
    "SELECT obligation_id FROM memorygate.obligation WHERE tenant = $1 AND state <> 'open' AND obligation_id = ANY ($2)"
)


@dataclass(slots=True)
class Story:
    plan_id: str = field(default_factory=new_id)
    taken: bool = False
    """DeleGate answered that it has the plan: from then on the system owes an end."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def obligations(self) -> tuple[str, ...]:
        return (self.plan_id, f"{self.plan_id}:planning", *(f"{self.plan_id}.{step}" for step in STORY_TASKS))


@dataclass(slots=True)
class StoryLoad:
    tenant: DeclaredTenant
    request: bytes
    stories: list[Story] = field(default_factory=list)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    client: httpx.AsyncClient = field(
        default_factory=lambda: httpx.AsyncClient(timeout=15, trust_env=False, limits=httpx.Limits(max_connections=100))
    )

    @classmethod
    async def prepared(cls, tenant: DeclaredTenant) -> "StoryLoad":
        return cls(tenant, await document(tenant, b"Cats sleep. Cats hunt at night.", b"Dogs bark. Dogs dig."))

    async def run(self) -> None:
        """Until `stopping`; then until every story that was begun has ended."""
        watching = asyncio.create_task(self._watch())
        try:
            await asyncio.gather(*(self._place() for _ in range(AT_ONCE)))
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _place(self) -> None:
        """One of the fifty: a story after the other."""
        while not self.stopping.is_set():
            story = await self.begin()
            await story.ended.wait()

    async def begin(self) -> Story:
        """One that the system has taken."""
        story = Story()
        self.stories.append(story)
        await self._ask(story)
        return story

    async def run_to_the_end(self) -> None:
        """What was begun, and nothing new."""
        self.stopping.set()
        watching = asyncio.create_task(self._watch())
        try:
            for story in self.stories:
                await story.ended.wait()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _ask(self, story: Story) -> None:
        body = json.dumps(envelope(self.tenant, "document.review", json.loads(self.request), story.plan_id)).encode()
        headers = {**self.tenant.principals["principal"].headers, "idempotency-key": story.plan_id}
        decision = await self._until_answered("interrogate", "/v1/evaluate", body, headers, {200, 502})
        # A forward that failed is not repeated by InterroGate: whoever asked goes on with the admission it was given.
        admitted = {"legivellum-admission": str(decision["receipt_id"])}
        path = f"/intents/{self.tenant.namespace}"
        await self._until_answered("admitting", path, self.request, admitted, {202})
        story.taken = True

    async def _until_answered(
        self, gate: str, path: str, body: bytes, headers: dict[str, str], statuses: set[int]
    ) -> dict[str, Any]:
        """Again and again while the gate is away. Fails for an answer that no repetition would change."""
        url = f"{self.tenant.gates.url(gate)}{path}"
        while True:
            with suppress(httpx.TransportError):
                answer = await self.client.post(
                    url, content=body, headers={"content-type": "application/json", **headers}
                )
                if answer.status_code in statuses:
                    return dict(answer.json())
                assert answer.status_code in {429, 502, 503}, (gate, answer.status_code, answer.text)
            await asyncio.sleep(0.2)

    async def _watch(self) -> None:
        """Looks which stories have ended, in the ledger's database, as often as it can be reached."""
        while True:
            # Whatever it is: the server was killed while it was asked, and is asked again.
            with suppress(Exception):
                connection = await asyncpg.connect(self.tenant.gates.database.superuser, timeout=5)
                try:
                    while True:
                        await self._look(connection)
                        await asyncio.sleep(0.2)
                finally:
                    with suppress(Exception):
                        await connection.close(timeout=1)
            await asyncio.sleep(0.1)

    async def _look(self, connection: asyncpg.Connection) -> None:
        waiting = [story for story in self.stories if not story.ended.is_set()]
        asked = [name for story in waiting for name in story.obligations]
        rows = await connection.fetch(_CLOSED, self.tenant.uid, asked, timeout=5)
        closed = {row["obligation_id"] for row in rows}
        for story in waiting:
            if closed.issuperset(story.obligations):
                story.ended.set()


def open_stories(stories: Sequence[Story]) -> list[str]:
    return [story.plan_id for story in stories if not story.ended.is_set()]
