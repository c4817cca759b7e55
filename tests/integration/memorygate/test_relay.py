"""The witness record arrives at the ledger, once, in order, whatever dies in between."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self

import httpx
import pytest
import pytest_asyncio
from pydantic import SecretStr
from tests.integration.memorygate.conftest import LedgerDatabase, rows
from tests.integration.memorygate.ledger_fixture import (
    LedgerFixture,
    LedgerPrincipal,
    free_port,
    ledger_fixture,
    ledger_process,
    ready,
    relay_process,
)

from legivellum.gate.composition import serving
from memorygate.gate import GATE
from memorygate.settings import Settings
from memorygate.verifying import verify
from metagate_operator.ledger.ledger_client import (
    Accepted,
    HttpLedgerClient,
    LedgerAccess,
    LedgerUnavailable,
    ReceiptOutcome,
    Rejected,
    split_batches,
)
from metagate_operator.ledger.relay import Relay, RelayPace
from metagate_operator.ledger.witness_receipts import receipt_of, startup_receipt_id
from metagate_store.outbox import OutboxStore

QUICK = RelayPace(rest=0, idle_seconds=0.02, backoff_seconds=0.02, backoff_max_seconds=0.1, measure_seconds=0.1)


@pytest_asyncio.fixture
async def place(fresh_ledger: LedgerDatabase) -> AsyncIterator[LedgerFixture]:
    async with ledger_fixture(fresh_ledger) as made:
        yield made


def settings_of(place: LedgerFixture, **more: object) -> Settings:
    return Settings(
        database_url=SecretStr(place.database.writer),
        identity_database_url=SecretStr(place.database.database.identity),
        port=0,
        **more,
    )


@pytest_asyncio.fixture
async def url(place: LedgerFixture) -> AsyncIterator[str]:
    """The ledger with its real identity, on a socket."""
    async with serving(GATE, settings_of(place)) as url:
        await ready(url)
        yield url


def key_file(tmp_path: Path, principal: LedgerPrincipal) -> Path:
    path = tmp_path / "key"
    path.write_text(principal.key + "\n")
    return path


class RelayAtWork:
    def __init__(
        self, place: LedgerFixture, access: LedgerAccess | None = None, door: object = None, outboxes: int = 2
    ) -> None:
        self.outboxes = [OutboxStore(place.database.database.publisher) for _ in range(outboxes)]
        self.relay = Relay(self.outboxes, door or HttpLedgerClient(access), pace=QUICK)

    async def __aenter__(self) -> Self:
        self.task = asyncio.create_task(self.relay.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        for outbox in self.outboxes:
            await outbox.close()


@pytest.mark.invariant("INV-039", "INV-121")
async def test_a_startup_is_one_closed_obligation_of_two_linked_receipts(
    place: LedgerFixture, url: str, tmp_path: Path
):
    """OPEN is accepted, READY is complete/success, FAILED complete/failure; the second is caused by the first (D-04)."""
    component = place.components[0]
    good, bad = await place.boot(component, 2)
    async with RelayAtWork(place, LedgerAccess(url, api_key_file=key_file(tmp_path, place.witness))):
        await place.drained()
    reader = LedgerPrincipal(component.tenant, "reader", "observer")
    result = {}
    for startup_id in (good, bad):
        result[startup_id] = [
            json.loads(body)
            for (body,) in await rows(
                place.database.superuser,
                "SELECT body FROM memorygate.receipt WHERE task_id = $1 ORDER BY position",
                str(startup_id),
            )
        ]
    for startup_id, status in ((good, "success"), (bad, "failure")):
        opened, ended = result[startup_id]
        assert (opened["phase"], ended["phase"], ended["status"]) == ("accepted", "complete", status)
        assert opened["obligation_id"] == ended["obligation_id"] == opened["task_id"] == str(startup_id)
        assert ended["caused_by_receipt_id"] == opened["receipt_id"] == startup_receipt_id(startup_id, "accepted")
        assert opened["recipient_ai"] == opened["principal_ai"] == component.name
        assert (opened["emitter"], opened["kind"], opened["tenant_id"]) == (
            "metagate",
            "startup",
            str(component.tenant),
        )
        assert opened["metadata"]["component_key"] == "indexer_1"
    assert result[bad][1]["outcome_text"] == "no disk"
    assert (await verify(place.database.auditor)).bad is None
    states = await rows(place.database.superuser, "SELECT state FROM memorygate.obligation ORDER BY 1")
    assert states == [("failure",), ("success",)]
    assert reader.tenant == component.tenant


@pytest.mark.invariant("INV-120")
async def test_each_revision_is_published_as_one_receipt_of_the_system_tenant(
    place: LedgerFixture, url: str, tmp_path: Path
):
    """D-50: phase published, task revision-<n>, the counts, no custody."""
    async with RelayAtWork(place, LedgerAccess(url, api_key_file=key_file(tmp_path, place.witness))):
        await place.drained()
    result = await rows(
        place.database.superuser,
        "SELECT tenant, kind, phase, task_id, body::jsonb -> 'metadata' ->> 'revision' FROM memorygate.receipt",
    )
    assert result == [(place.witness.tenant, "lifecycle", "published", "revision-1", "1")]
    assert await rows(place.database.superuser, "SELECT FROM memorygate.obligation") == []


@pytest.mark.invariant("INV-040")
async def test_the_ledger_knows_who_speaks_by_metagates_own_keys(place: LedgerFixture, url: str):
    """The witness may witness and nothing else; a component's inbox shows its startup; a stranger is 401."""
    async with httpx.AsyncClient(base_url=url, headers=place.witness.headers) as client:
        body = {
            "receipt_id": "01ARZ3NDEKTSV4RRFFQ69G5FAV",
            "task_id": "t",
            "phase": "accepted",
            "principal_ai": "metagate",
        }
        assert (await client.post("/receipts", json=body)).json()["code"] == "MAY_NOT_EMIT"
        assert (
            await client.post("/receipts", json={**body, "kind": "lifecycle", "phase": "queued"})
        ).status_code == 403
        assert (await client.post("/receipts", json={**body, "kind": "startup"})).status_code == 201
        assert (await client.get("/inbox", params={"kind": "startup"})).json()["items"] != []
    stranger = LedgerPrincipal(place.witness.tenant, "nobody")
    async with httpx.AsyncClient(base_url=url, headers=stranger.headers) as client:
        assert (await client.get("/inbox")).status_code == 401


class ScriptedLedger:
    """A door that answers as it is told."""

    def __init__(self, *answers: object) -> None:
        self.script = list(answers)
        self.sent: list[list[dict[str, object]]] = []

    async def send(self, receipts: list[dict[str, object]]) -> list[ReceiptOutcome]:
        self.sent.append(receipts)
        step = self.script.pop(0) if self.script else Accepted()
        if isinstance(step, Exception):
            raise step
        return [step(receipt) if callable(step) else step for receipt in receipts]

    async def close(self) -> None: ...


@pytest.mark.invariant("EXT-20")
async def test_a_refusal_is_put_aside_and_an_outage_is_not(place: LedgerFixture):
    """After two outages all receipts are still there; a refused one goes to the dead letters and is never sent again."""
    [startup] = await place.boot(place.components[0], ready=False)

    def refuse_startups(receipt: dict[str, object]) -> ReceiptOutcome:
        return Rejected("MAY_NOT_EMIT", "no") if receipt["kind"] == "startup" else Accepted()

    door = ScriptedLedger(LedgerUnavailable("down"), LedgerUnavailable("down"), refuse_startups)
    async with RelayAtWork(place, door=door, outboxes=1):
        await place.drained()
        await asyncio.sleep(0.1)
    assert len(door.sent) == 3
    assert door.sent[0] == door.sent[1] == door.sent[2]
    dead = await rows(place.database.superuser, "SELECT startup_id, event, code FROM metagate.outbox_refused")
    assert dead == [(startup, "OPEN", "MAY_NOT_EMIT")]


async def send_as_before(place: LedgerFixture, url: str, **changes: object) -> list[str]:
    """What the relay of releases before D-64 sent, without removing it: times as the database's session wrote them."""
    sent = []
    outbox = OutboxStore(place.database.database.publisher)
    try:
        async with outbox.batch() as batch:
            for row in batch.rows:
                receipt = receipt_of(row) | {"created_at": row.created_at.isoformat()}
                if row.event == "OPEN":
                    receipt["created_at"] = row.body["opened_at"]
                    receipt["metadata"] = {**receipt["metadata"], "deadline_at": row.body["deadline_at"]}
                elif row.event in {"READY", "FAILED"}:
                    receipt |= dict.fromkeys(("created_at", "completed_at"), row.body["acknowledged_at"])
                sent.append(json.dumps(receipt | changes))
    finally:
        await outbox.close()
    async with httpx.AsyncClient(base_url=url, headers=place.witness.headers) as client:
        answer = await client.post(
            "/receipts/batch",
            content=f'{{"receipts":[{",".join(sent)}]}}',
            headers={"Content-Type": "application/json"},
        )
    assert {item["status"] for item in answer.json()["items"]} == {201}, answer.text
    return sent


@pytest.mark.invariant("INV-061")
async def test_what_the_relay_of_the_release_before_sent_is_known_again(place: LedgerFixture, url: str, tmp_path: Path):
    """It died between the ledger's answer and its own commit; the relay of today spells times otherwise, and none is a dead letter."""
    await place.boot(place.components[0], 2)
    sent = await send_as_before(place, url)
    assert len(sent) == 5  # two startups that were opened and ended, one revision
    await place.boot(place.components[1], 1)
    async with RelayAtWork(place, LedgerAccess(url, api_key_file=key_file(tmp_path, place.witness))):
        await place.drained()
    assert await rows(place.database.superuser, "SELECT event, code FROM metagate.outbox_refused") == []
    assert set((await place.phases()).values()) == {1}
    assert len(await place.phases()) == 6
    assert (await verify(place.database.auditor)).bad is None


async def test_another_receipt_under_the_id_of_a_startup_is_a_conflict(place: LedgerFixture, url: str, tmp_path: Path):
    """Neither the form of today nor that of the release before: somebody else wrote it, and somebody must look into it."""
    await place.boot(place.components[0], 1, ready=False)
    await send_as_before(place, url, task_type="another")
    async with RelayAtWork(place, LedgerAccess(url, api_key_file=key_file(tmp_path, place.witness))):
        await place.drained()
    dead = await rows(place.database.superuser, "SELECT event, code FROM metagate.outbox_refused ORDER BY 1")
    assert dead == [("OPEN", "RECEIPT_CONFLICT"), ("PUBLISHED", "RECEIPT_CONFLICT")]


async def test_a_startups_receipts_never_overtake_each_other(place: LedgerFixture):
    """Over two drainers and interrupted batches, accepted is always sent before complete."""
    for component in place.components:
        await place.boot(component, 60)
    door = ScriptedLedger(*(random.choice([LedgerUnavailable("x"), Accepted()]) for _ in range(8)))
    async with RelayAtWork(place, door=door):
        await place.drained()
    observations: set[str] = set()
    for receipts in door.sent:
        for receipt in receipts:
            if receipt["kind"] == "startup":
                assert receipt["phase"] == "accepted" or receipt["task_id"] in observations
                observations.add(str(receipt["task_id"]))
    assert len(observations) == 120


async def test_two_relays_share_the_outbox(place: LedgerFixture, url: str, tmp_path: Path):
    """Both drain at once; every receipt arrives once and none is refused."""
    access = LedgerAccess(url, api_key_file=key_file(tmp_path, place.witness))
    for component in place.components:
        await place.boot(component, 150)
    async with RelayAtWork(place, access), RelayAtWork(place, access):
        await place.drained()
    assert set((await place.phases()).values()) == {1}
    assert len(await place.phases()) == 600
    assert await rows(place.database.superuser, "SELECT FROM metagate.outbox_refused") == []


def test_requests_are_cut_where_they_grow_too_large():
    """By count and by bytes, in order, nothing lost."""
    receipts = [f'"{n:04}{"x" * (n * 40)}"' for n in range(600)]
    cut = split_batches(receipts)
    assert [receipt for part in cut for receipt in part] == receipts
    assert all(len(part) <= 256 and sum(map(len, part)) < 400_000 for part in cut)


@pytest.mark.invariant("INV-028", "INV-061", "INV-121")
async def test_a_ledger_that_is_away_costs_nothing_and_loses_nothing(place: LedgerFixture, tmp_path: Path):
    """Startups go on while nobody listens; then the ledger comes up and everything arrives exactly once."""
    port = free_port()
    component = place.components[0]
    access = LedgerAccess(f"http://127.0.0.1:{port}", api_key_file=key_file(tmp_path, place.witness))
    async with RelayAtWork(place, access):
        ids = []
        for _ in range(10):
            ids += await place.boot(component, 20)
            await asyncio.sleep(0.05)
        assert await place.waiting() == 401
        async with serving(GATE, settings_of(place).model_copy(update={"port": port})):
            await place.drained()
    expected = {(str(item), phase): 1 for item in ids for phase in ("accepted", "complete")}
    assert await place.phases() == expected


@pytest.mark.slow
@pytest.mark.invariant("INV-061", "INV-028", "INV-058")
async def test_kill_9_of_relay_and_ledger_leaves_one_receipt_per_startup_and_phase(
    place: LedgerFixture, tmp_path: Path
):
    """Both are killed again and again while startups come in; then exactly one receipt of each startup and phase is there."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    ledger = ledger_process(place.database, port, tmp_path / "ledger.log")
    relays = [relay_process(place.database, url, key_file(tmp_path, place.witness), tmp_path / "relay.log")]
    chance = random.Random(7)
    ids = []
    try:
        for process in (ledger, *relays):
            await process.start()
        await ready(url)
        for kill in range(12):
            component = place.components[kill % 2]
            ids += await place.boot(component, 60)
            await asyncio.sleep(chance.uniform(0.01, 0.6))
            victim = ledger if chance.random() < 0.4 else relays[0]
            await victim.kill()
            await victim.start()
        await ready(url)
        await place.drained(90)
    finally:
        for process in (ledger, *relays):
            await process.kill()
    expected = {(str(item), phase): 1 for item in ids for phase in ("accepted", "complete")}
    assert await place.phases() == expected
    assert await rows(place.database.superuser, "SELECT FROM metagate.outbox_refused") == []
    assert (await verify(place.database.auditor)).bad is None


@pytest.mark.invariant("INV-061")
async def test_what_was_answered_with_201_survives_a_kill_of_the_ledger(place: LedgerFixture, tmp_path: Path):
    """Every receipt acknowledged before a kill -9 is there after the restart, and none that was never sent."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    process = ledger_process(place.database, port, tmp_path / "ledger.log")
    await process.start()
    stored: list[str] = []
    try:
        await ready(url)
        async with httpx.AsyncClient(base_url=url, headers=place.witness.headers, timeout=30) as client:

            async def send(n: int) -> None:
                from tests.integration.memorygate.conftest import accepted

                body = accepted(kind="startup", task_id=f"t{n}", principal_ai="c")
                try:
                    answer = await client.post("/receipts", json=body)
                except httpx.HTTPError:
                    return
                if answer.status_code == 201:
                    stored.append(body["receipt_id"])

            sending = asyncio.gather(*(send(n) for n in range(400)))
            while len(stored) < 20 and not sending.done():
                await asyncio.sleep(0.005)
            await process.kill()
            await sending
            await process.start()
            await ready(url)
            for receipt_id in stored:
                assert (await client.get(f"/receipts/{receipt_id}")).status_code == 200
    finally:
        await process.kill()
    assert (await verify(place.database.auditor)).bad is None
