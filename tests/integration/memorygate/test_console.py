"""The ledger's console on the real ledger: who sees what, what a story shows and names, and hostile words in every field."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from html import unescape
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import httpx
import pytest
import pytest_asyncio
from pydantic import SecretStr
from tests.databases import Server
from tests.integration.console.visiting import Text, Visitor, page_text
from tests.integration.memorygate.conftest import (
    LedgerDatabase,
    accepted,
    complete,
    escalate,
    make_ledger,
    new_id,
    rows,
)
from tests.integration.memorygate.ledger_fixture import LedgerPrincipal, ledger_fixture, ready
from tests.integration.memorygate.test_emitting import body_of, session_of
from tests.integration.memorygate.test_outages import Locked
from tests.integration.memorygate.test_stream_credentials import (
    delete,
    expire,
    give_key_to_another,
    remove_key,
    suspend,
)
from tests.integration.store.worlds import Change
from tests.unit.interrogate.requests import ALICE as ASKED_BY_ALICE
from tests.unit.interrogate.requests import CHILD, envelope_from, observed_child, ruleset_of

from interrogate.admission_receipt import admission_receipt
from interrogate.decide import decide
from legivellum.gate.composition import serving
from memorygate.gate import GATE
from memorygate.schema import WRITER
from memorygate.settings import Settings
from memorygate.verifying import verify
from metagate_store.publisher import Publisher

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> &amp; \" '"
SEEN = "<script>alert(1)</script><img src=x onerror=alert(2)>"


@dataclass(slots=True)
class ConsoleFixture:
    """A ledger that serves its console, with principals of two tenants."""

    url: str
    database: LedgerDatabase
    tenant: UUID
    principals: dict[str, LedgerPrincipal]
    sessions: dict[str, Visitor] = field(default_factory=dict)

    async def visitor(self, name: str) -> Visitor:
        """Signed in once for the module."""
        if name not in self.sessions:
            self.sessions[name] = await Visitor(self.url).inside(self.principals[name].key)
        return self.sessions[name]

    async def post(self, name: str, *receipts: dict[str, Any]) -> list[str]:
        """Store receipts as a principal. Returns their ids."""
        principal = self.principals[name]
        async with httpx.AsyncClient(base_url=self.url, timeout=10) as client:
            for receipt in receipts:
                answer = await client.post("/receipts", json=receipt, headers=principal.headers)
                assert answer.status_code == 201, answer.text
        return [receipt["receipt_id"] for receipt in receipts]

    async def emit(self, gate: str, *bodies: str) -> None:
        session = await session_of(self.database, gate)
        try:
            assert set(await session.emit(*bodies)) == {"STORED"}
        finally:
            await session.connection.close()

    def body(self, gate: str, kind: str, phase: str, **fields: Any) -> str:
        return body_of(self.tenant, f"svc:{gate}", kind, phase, **fields)


PEOPLE = {
    "alice": "principal", "bob": "worker", "carol": "principal", "lead": "admin", "watcher": "observer",
    "planner": "delegate", "part": "component",
}  # fmt: skip


def settings_of(database: LedgerDatabase, **more: Any) -> Settings:
    return Settings(
        database_url=SecretStr(database.writer),
        identity_database_url=SecretStr(database.database.identity),
        port=0,
        identity_poll_ms=50,
        console=True,
        rate_per_second=0,
        deadline_ms=5_000,
        **more,
    )


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def console(ledger_database: LedgerDatabase) -> AsyncIterator[ConsoleFixture]:
    tenant, other = uuid4(), uuid4()
    principals = {name: LedgerPrincipal(tenant, name, role) for name, role in PEOPLE.items()}
    principals |= {
        "mallory": LedgerPrincipal(other, "alice", "admin"),
        "ruler": LedgerPrincipal(other, "ruler", "observer", scope="Cluster"),
    }
    async with (
        ledger_fixture(ledger_database, *principals.values()),
        serving(GATE, settings_of(ledger_database)) as url,
    ):
        await ready(url)
        made = ConsoleFixture(url, ledger_database, tenant, principals)
        yield made
        for visitor in made.sessions.values():
            await visitor.client.aclose()


async def tell_story(console: ConsoleFixture, task: str) -> list[str]:
    """A short story: admitted, begun by alice for bob, an artifact, bob's end. Returns the ids of its receipts."""
    admitted = console.body("interrogate", "admission", "accepted", task_id=task, body={"outcome": "ALLOW"})
    first = json.loads(admitted)["receipt_id"]
    await console.emit("interrogate", admitted)
    begun = accepted(task_id=task, principal_ai="alice", recipient_ai="bob", caused_by_receipt_id=first)
    await console.post("alice", begun)
    stored = console.body("depotgate", "artifact", "stored", task_id=task, caused_by_receipt_id=begun["receipt_id"])
    await console.emit("depotgate", stored)
    last = json.loads(stored)["receipt_id"]
    end = complete(task_id=task, principal_ai="alice", caused_by_receipt_id=last)
    await console.post("bob", end)
    return [first, begun["receipt_id"], last, end["receipt_id"]]


def table_rows(answer: httpx.Response) -> list[str]:
    """The anchors of the table's rows, in their order."""
    return re.findall(r'<tr id="([^"]+)"', answer.text)


# ── who sees what ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.invariant("INV-057")
@pytest.mark.parametrize("name", PEOPLE)
async def test_everybody_signs_in_and_sees_the_own_stories(console: ConsoleFixture, name: str) -> None:
    """Whoever a receipt names, and admins and observers, see the story; for everybody else there is no such task."""
    task = f"seen-by-{name}-{new_id()}"
    await tell_story(console, task)
    visitor = await console.visitor(name)
    page = await visitor.see(f"/console/tasks/{task}")
    stories = await visitor.page("/console/tasks")
    found = await visitor.see("/console/search", q=task)
    if name in {"alice", "bob", "lead", "watcher"}:
        assert page.status_code == 200, page_text(page)
        assert f"Story of {task}" in page_text(page)
        assert task in stories
        assert (found.status_code, found.headers["location"]) == (303, f"/console/tasks/{task}")
    else:
        nowhere = await visitor.see(f"/console/tasks/nowhere-{new_id()}")
        assert (page.status_code, nowhere.status_code) == (404, 404)
        assert "There is no such task." in page_text(page)
        assert task not in stories
        assert found.status_code == 200
    assert f"Signed in as {name}" in await visitor.page()


@pytest.mark.invariant("INV-057")
async def test_another_tenants_task_is_not_found(console: ConsoleFixture) -> None:
    """Not by an admin who is called alike, not by `?tenant=`, in no list; by a cluster-wide observer who names the tenant."""
    task = f"ours-{new_id()}"
    await tell_story(console, task)
    mallory, ruler = await console.visitor("mallory"), await console.visitor("ruler")
    assert (await mallory.see(f"/console/tasks/{task}")).status_code == 404
    assert (await mallory.see(f"/console/tasks/{task}", tenant=str(console.tenant))).status_code == 403
    for path in ("/console", "/console/tasks", "/console/inbox", "/console/admissions", "/console/verify"):
        assert task not in await mallory.page(path)
    assert (await ruler.see(f"/console/tasks/{task}")).status_code == 404
    answer = await ruler.see(f"/console/tasks/{task}", tenant=str(console.tenant))
    assert answer.status_code == 200
    assert f"Showing tenant {console.tenant}" in page_text(answer)
    assert f'href="/console/inbox?tenant={console.tenant}"' in answer.text
    assert task in await ruler.page("/console/tasks", tenant=str(console.tenant))


@pytest.mark.invariant("INV-057")
async def test_an_inbox_is_its_principals(console: ConsoleFixture) -> None:
    """Open obligations with whom they are for; another's only for admins and observers."""
    task = f"inbox-{new_id()}"
    await console.post(
        "alice", accepted(task_id=task, principal_ai="alice", recipient_ai="part", task_type="ticket.triage")
    )
    part, alice, watcher = [await console.visitor(name) for name in ("part", "alice", "watcher")]
    page = await part.page("/console/inbox")
    assert f"{task} ticket.triage alice alice" in page
    assert task in await part.page("/console")
    assert task not in await alice.page("/console/inbox")
    refused = await alice.see("/console/inbox", principal="part")
    assert (refused.status_code, "ROLE_REQUIRED" in page_text(refused)) == (403, True)
    assert task in await watcher.page("/console/inbox", principal="part")
    assert "Nothing" in await watcher.page("/console/inbox", principal="part", kind="startup")


async def test_without_a_session_every_path_is_the_sign_in(console: ConsoleFixture) -> None:
    """What exists and what does not answer alike; programs get the gate's own answers."""
    task = f"hidden-{new_id()}"
    await tell_story(console, task)
    async with Visitor(console.url) as visitor:
        for path in (
            f"/console/tasks/{task}",
            "/console/tasks/none",
            "/console/verify",
            "/console/live",
            "/console/x/y",
        ):
            answer = await visitor.see(path)
            assert (answer.status_code, answer.headers["location"].partition("?")[0]) == (303, "/console/sign-in")
        sign_in = await visitor.page("/console/sign-in")
        assert "Of a principal of type" not in sign_in, "any principal may"
        front = await visitor.client.get("/")
        assert front.json()["service"] == "MemoryGate"


async def test_it_is_off_unless_asked_for(ledger_database: LedgerDatabase) -> None:
    """Without MEMORYGATE_CONSOLE there is nothing at /console."""
    assert Settings().console is False
    settings = settings_of(ledger_database).model_copy(update={"console": False})
    async with serving(GATE, settings) as url, httpx.AsyncClient(base_url=url) as client:
        answer = await client.get("/console")
        assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")


# ── a story ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_story_is_a_picture_over_the_table_of_the_same_rows(console: ConsoleFixture) -> None:
    """Lanes in the order in which emitters come up, a node for each row, an arrow for each cause, no ring: nothing is open."""
    task = f"picture-{new_id()}"
    ids = await tell_story(console, task)
    answer = await (await console.visitor("watcher")).see(f"/console/tasks/{task}")
    assert table_rows(answer) == ids
    full, slim = re.findall(r"<svg class=\"story .*?</svg>", answer.text, re.DOTALL)
    for drawing in (full, slim):
        assert re.findall(r'href="#([^"]+)"', drawing) == ids
        assert re.findall(r'data-ends="n(\d) n(\d)"', drawing) == [("0", "1"), ("1", "2"), ("2", "3")]
        assert "<circle" not in drawing
        lanes = [re.sub("<[^>]+>.*", "", lane) for lane in re.findall(r'class="who"[^>]*>(.*?)</text>', drawing)]
        assert lanes == ["svc:interrogate", "alice", "svc:depotgate", "bob"]
    text = page_text(answer)
    assert "nothing is open" in text
    assert "Something is missing" not in text
    assert "style=" not in answer.text, "the policy would block it"


async def test_open_ends_are_rings_at_whom_they_wait_for(console: ConsoleFixture) -> None:
    """An obligation that was moved hangs at the receipt that moved it; its custodian has a lane without having emitted."""
    task = f"open-{new_id()}"
    begun = accepted(task_id=task, principal_ai="alice", recipient_ai="bob")
    moved = escalate("carol", task_id=task, principal_ai="alice", caused_by_receipt_id=begun["receipt_id"])
    await console.post("alice", begun)
    await console.post("bob", moved)
    answer = await (await console.visitor("carol")).see(f"/console/tasks/{task}")
    assert f"{task} with carol" in page_text(answer)
    full = re.findall(r"<svg class=\"story full.*?</svg>", answer.text, re.DOTALL)[0]
    assert len(re.findall("<circle", full)) == 1
    assert f"Open: {task} with carol" in unescape(full)
    [x, y] = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', full)[0]
    [path] = re.findall(r'class="cause open" d="(M[^"]+)"', full)
    assert path.endswith(f"{x} {float(y) - 7:.1f}")
    assert f'<line class="lane" x1="{x}"' in full


async def test_gaps_are_named(console: ConsoleFixture, postgres: Server) -> None:
    """A cause that is nowhere, a chain that was cut: the alarm names the receipt. A cause of another tree is a link there."""
    elsewhere, task, lost = f"before-{new_id()}", f"gaps-{new_id()}", new_id()
    first = accepted(task_id=elsewhere, principal_ai="alice")
    begun = accepted(task_id=task, principal_ai="alice", caused_by_receipt_id=first["receipt_id"])
    dangling = complete(task_id=task, principal_ai="alice", caused_by_receipt_id=lost)
    await console.post("alice", first, begun)
    watcher = await console.visitor("watcher")
    answer = await watcher.see(f"/console/tasks/{task}")
    assert "Something is missing" not in page_text(answer)
    assert f'href="/console/tasks/{elsewhere}"' in answer.text
    await console.post("alice", dangling)
    text = await watcher.page(f"/console/tasks/{task}")
    assert f"the cause {lost} is not in the ledger" in text
    cut = f"cut-{new_id()}"
    ids = await tell_story(console, cut)
    await rows(console.database.superuser, "DELETE FROM memorygate.receipt WHERE receipt_id = $1", ids[1])
    text = await watcher.page(f"/console/tasks/{cut}")
    assert f"the chain is broken before {ids[2]}" in text
    assert f"the cause {ids[1]} is not in the ledger" in text


async def test_hostile_words_are_text_in_every_field(console: ConsoleFixture) -> None:
    """In the table, the picture, the inbox, the lists, the search: letter by letter, and never an element or attribute."""
    task = f"{HOSTILE[:100]}{new_id()}"
    begun = accepted(
        task_id=task, obligation_id=f"{task}:x", principal_ai="alice", recipient_ai="bob", task_type="<u>type</u>"
    )  # fmt: skip
    moved = escalate(
        "carol", task_id=task, obligation_id=begun["obligation_id"], principal_ai="alice", escalation_reason=HOSTILE,
        caused_by_receipt_id=begun["receipt_id"],
    )  # fmt: skip
    await console.post("alice", begun)
    await console.post("bob", moved)
    denied = admission(console, {}, detail=f"\u202etxt.exe {HOSTILE}", profile="<i>p</i>", task_id=task)
    await console.emit("interrogate", denied)
    watcher = await console.visitor("watcher")
    pages = [
        await watcher.see(f"/console/tasks/{quote(task, safe='')}"),
        await watcher.see("/console/tasks"),
        await watcher.see("/console/inbox", principal="carol"),
        await watcher.see("/console/admissions"),
        await watcher.see("/console/search", q=f"none {HOSTILE[:80]}"),
        await watcher.see("/console/verify"),
    ]
    for page in pages:
        assert page.status_code == 200, page_text(page)
        parsed = Text(page.text)
        assert parsed.elements.isdisjoint({"img", "i", "u"}), page.url
        assert page.text.count("<script") == 1, "the console's own"
        assert not {name for name in parsed.attributes if name.startswith("on")}
        assert SEEN in unescape(page.text)
        assert "\u202e" not in page.text
    assert "\\u202etxt.exe" in page_text(pages[0])
    assert "\\u202etxt.exe" in page_text(pages[3])


async def test_a_long_story_is_a_line_for_each_step(console: ConsoleFixture) -> None:
    """Beyond 300 receipts; 300 steps on a page, and every step on one of them."""
    root = f"long-{new_id()}"
    await console.post("alice", accepted(task_id=root, principal_ai="alice"))
    steps = [f"{root}.s{number:03}" for number in range(330)]
    bodies = [console.body("depotgate", "artifact", "stored", task_id=step, parent_task_id=root) for step in steps]
    for start in range(0, len(bodies), 110):
        await console.emit("depotgate", *bodies[start : start + 110])
    watcher = await console.visitor("watcher")
    first = await watcher.see(f"/console/tasks/{root}")
    assert "Each step, by the ledger's time 1 to 300 of 331" in page_text(first)
    [following] = re.findall(r'rel="next" href="([^"]+)"', first.text)
    second = await watcher.see(unescape(following))
    assert "301 to 331 of 331" in page_text(second)
    assert 'rel="next"' not in second.text
    seen = table_rows(first) + table_rows(second)
    assert len(seen) == len(set(seen)) == 331
    assert (await watcher.see(f"/console/tasks/{root}", **{"from": "331"})).status_code == 422
    short = f"short-{new_id()}"
    await tell_story(console, short)
    assert "Each step" in await watcher.page(f"/console/tasks/{short}", by="step")


async def every_page(visitor: Visitor, path: str) -> list[httpx.Response]:
    pages = [await visitor.see(path)]
    while following := re.findall(r'rel="next" href="([^"]+)"', pages[-1].text):
        assert pages[-1].status_code == 200
        pages.append(await visitor.see(unescape(following[0])))
    return pages


async def test_lists_go_on_page_by_page(console: ConsoleFixture) -> None:
    """Stories, heads of chains, an inbox and admissions: each entry once, the newest (of an inbox the oldest) first."""
    marker = new_id()
    names = [f"page-{marker}-{number:03}" for number in range(60)]
    receipts = [accepted(task_id=name, principal_ai="planner", recipient_ai="planner") for name in names]
    await console.post("planner", *receipts)
    denials = [admission(console, {}, detail=f"denial {marker}-{number:03}") for number in range(60)]
    await console.emit("interrogate", *denials)
    watcher, planner = await console.visitor("watcher"), await console.visitor("planner")
    for visitor, path, newest_first in (
        (watcher, "/console/tasks", True),
        (planner, "/console/tasks", True),
        (watcher, "/console/verify", True),
        (planner, "/console/inbox", False),
    ):
        pages = await every_page(visitor, path)
        assert len(pages) > 1
        listed = [
            name for page in pages for name in re.findall(rf"href=\"/console/tasks/(page-{marker}-\d+)", page.text)
        ]
        assert listed == (names[::-1] if newest_first else names), path
    pages = await every_page(watcher, "/console/admissions")
    listed = [name for page in pages for name in re.findall(rf"denial {marker}-(\d+)", page.text)]
    assert listed == [f"{number:03}" for number in reversed(range(60))]
    for path in ("/console/tasks", "/console/inbox", "/console/admissions", "/console/verify"):
        assert (await watcher.see(path, after="nonsense")).status_code == 422


# ── admissions ───────────────────────────────────────────────────────────────────────────────────────────────────────


def admission(console: ConsoleFixture, causality: dict[str, Any], **more: Any) -> str:
    """The receipt of a decision that InterroGate's own rules make: depth 3 of 2 unless `causality` says otherwise."""
    envelope = envelope_from(CHILD, {"causality": causality})
    observed, ruleset = observed_child(), ruleset_of({"limits": {"maxSpawnDepth": 2}})
    form = json.loads(
        admission_receipt(
            envelope, ASKED_BY_ALICE, decide(envelope, ASKED_BY_ALICE, ruleset, observed), observed, ruleset,
            tenant=console.tenant, receipt_id=new_id(), policy_revision=7,
        )
    )  # fmt: skip
    body = form["body"]
    body |= {"detail": more.get("detail", body["detail"]), "policy_profile_id": more.get("profile", "front-desk")}
    return console.body(
        "interrogate", "admission", form["phase"], receipt_id=form["receipt_id"],
        task_id=more.get("task_id", form["receipt_id"]), principal_ai=form["principal_ai"], body=body,
        task_type=form["task_type"],
    )  # fmt: skip


async def test_admissions_by_reason_with_rule_limit_and_observation(console: ConsoleFixture) -> None:
    """What InterroGate's receipts say, told apart by reason; others than readers see what they asked themselves."""
    deep, wrong = admission(console, {}), admission(console, {"spawn_depth": 1})
    await console.emit("interrogate", deep, wrong)
    watcher = await console.visitor("watcher")
    answer = await watcher.see("/console/admissions", reason="DEPTH_EXCEEDED")
    text = page_text(answer)
    assert "CAUSALITY_MISMATCH" in text, "each reason is a link"
    [row] = [
        " ".join(Text(row).text.split())
        for row in re.findall(r"<tr>.*?</tr>", answer.text, re.DOTALL)
        if json.loads(deep)["receipt_id"] in row
    ]
    assert "DEPTH_EXCEEDED" in row
    assert "alice doc.read front-desk / public 7 2 3 depth 3, at most 2" in row
    assert json.loads(wrong)["receipt_id"] not in answer.text
    mine = await (await console.visitor("alice")).see("/console/admissions")
    assert json.loads(deep)["receipt_id"] in mine.text
    others = await (await console.visitor("carol")).see("/console/admissions")
    assert json.loads(deep)["receipt_id"] not in others.text


# ── verification ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_what_the_last_verification_found_is_kept(postgres: Server) -> None:
    """Never, then whole, then broken: the page says when, and where it is broken to the tenant whose receipt it is."""
    database = await make_ledger(postgres)
    alice, mallory = LedgerPrincipal(uuid4(), "alice"), LedgerPrincipal(uuid4(), "mallory", "admin")
    try:
        async with ledger_fixture(database, alice, mallory), serving(GATE, settings_of(database)) as url:
            await ready(url)
            receipt = accepted(task_id="t", principal_ai="alice")
            async with httpx.AsyncClient(base_url=url) as client:
                assert (await client.post("/receipts", json=receipt, headers=alice.headers)).status_code == 201
            async with Visitor(url) as mine, Visitor(url) as others:
                await mine.inside(alice.key)
                await others.inside(mallory.key)
                assert "never verified" in await mine.page("/console/verify")
                assert (await verify(database.auditor)).bad is None
                for visitor in (mine, others):
                    assert "every chain held" in await visitor.page("/console/verify")
                [(head,)] = await rows(database.superuser, "SELECT head FROM memorygate.task WHERE task_id = 't'")
                assert head.hex() in (await mine.see("/console/verify")).text
                await rows(database.superuser, "UPDATE memorygate.receipt SET digest = sha256('')")
                assert (await verify(database.auditor)).bad is not None
                ours = await mine.page("/console/verify")
                assert f"receipt {receipt['receipt_id']}" in ours
                assert "its body was altered" in ours
                theirs = await others.page("/console/verify")
                assert "did not hold" in theirs
                assert receipt["receipt_id"] not in theirs
    finally:
        await postgres.drop(database.database)


# ── outages, sessions, live ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.invariant("INV-061")
async def test_while_the_database_is_away_pages_say_so(console: ConsoleFixture) -> None:
    """503 with Retry-After, inside the frame, to who is signed in; afterwards the page is there again."""
    task = f"outage-{new_id()}"
    await tell_story(console, task)
    watcher = await console.visitor("watcher")
    async with Locked(console.database.superuser, WRITER):
        for path in ("/console", f"/console/tasks/{task}", "/console/inbox", "/console/admissions", "/console/verify"):
            answer = await watcher.see(path)
            assert answer.status_code == 503, (path, page_text(answer))
            assert int(answer.headers["retry-after"]) >= 1
            assert "Signed in as watcher" in page_text(answer)
    async with asyncio.timeout(20):
        while (await watcher.see(f"/console/tasks/{task}")).status_code != 200:
            await asyncio.sleep(0.05)


@asynccontextmanager
async def events(visitor: Visitor) -> AsyncIterator[AsyncIterator[str]]:
    async with visitor.client.stream("GET", "/console/live") as answer:
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        yield (line.removeprefix("event: ") async for line in answer.aiter_lines() if line.startswith("event: "))


@pytest_asyncio.fixture(loop_scope="session")
async def publisher(console: ConsoleFixture) -> AsyncIterator[Publisher]:
    opened = await Publisher.open(console.database.database.publisher)
    await opened.load()
    yield opened
    await opened.close()


@pytest.mark.invariant("EXT-11")
@pytest.mark.parametrize("withdraw", [suspend, delete, remove_key, give_key_to_another, expire])
async def test_a_session_ends_with_its_credential(console: ConsoleFixture, publisher: Publisher, withdraw: Any) -> None:
    """The next page is the sign-in, and the open stream says that it is over (D-67)."""
    guest = LedgerPrincipal(console.tenant, f"guest-{new_id().lower()}", "observer")
    await publisher.publish(Change(upserts=guest.rows()))
    async with Visitor(console.url) as visitor:
        async with asyncio.timeout(10):
            while (await visitor.sign_in(guest.key)).status_code != 303:
                await asyncio.sleep(0.05)
        async with events(visitor) as stream, asyncio.timeout(10):
            assert await anext(stream) == "changed"
            await withdraw(publisher, guest)
            while await anext(stream) == "changed":
                pass
        answer = await visitor.see("/console/inbox")
        assert (answer.status_code, answer.headers["location"].partition("?")[0]) == (303, "/console/sign-in")


async def test_a_new_receipt_is_told_to_open_pages(console: ConsoleFixture) -> None:
    """One event when the stream begins, one when something was stored in the tenant."""
    watcher = await console.visitor("watcher")
    async with events(watcher) as stream, asyncio.timeout(20):
        assert await anext(stream) == "changed"
        await console.post("alice", accepted(task_id=f"live-{new_id()}", principal_ai="alice"))
        assert await anext(stream) == "changed"
