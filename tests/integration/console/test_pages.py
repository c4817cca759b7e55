"""What the pages show, to whom, and in which words."""

import asyncio
import re
from html import unescape
from uuid import uuid4

import httpx
import pytest
from tests.databases import Database
from tests.integration.api.gate_fixture import GateFixture, PrincipalFixture, settings_for, shared_body
from tests.integration.console.visiting import Text, Visitor, page_text

from metagate_api.server import serving

PAGES = (
    "/console", "/console/principals", "/console/startups", "/console/topology", "/console/search?q=a", "/console/runbook",
)  # fmt: skip
POLICY = {
    "default-src": "'none'", "style-src": "'self'", "script-src": "'self'", "img-src": "'self'", "connect-src": "'self'",
    "base-uri": "'none'", "form-action": "'self'", "frame-ancestors": "'none'",
}  # fmt: skip
HOSTILE = "<img src=x onerror=alert(1)>'\"</script><svg onload=alert(2)>\x1b[31mred\u202etxt.exe\u200b"
COMPONENT = HOSTILE.replace("\x1b", "")  # no control character gets into a component's key


async def opened(gate: GateFixture, principal: PrincipalFixture, component: str = "indexer_1") -> str:
    answer = await gate.boot(principal, component)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["startup"]["startup_id"])


@pytest.mark.invariant("INV-022")
async def test_overview(gate: GateFixture, visitor: Visitor) -> None:
    """Who booted, who failed, who is overdue, who is up again; the time line; revision and snapshot."""
    admin = await gate.principal("admin", type="admin")
    principal = await gate.principal("indexer", tenant=admin.tenant)
    slow = await gate.principal("slow", tenant=admin.tenant, sla_seconds=1)
    await gate.ready(principal, await opened(gate, principal, "good"))
    await gate.failed(principal, await opened(gate, principal, "broken"))
    await gate.failed(principal, await opened(gate, principal, "mended"))
    await gate.ready(principal, await opened(gate, principal, "mended"))
    await opened(gate, principal, "young")
    await opened(gate, slow, "stuck")
    await gate.ask("UPDATE metagate.startup SET deadline_at = now() - interval '1 s' WHERE principal_key = 'slow'")
    await visitor.inside(admin.key)
    page = await visitor.page()
    for words in (
        "1 overdue",
        "2 failed",
        "1 starting",
        "2 ready of 6 opened in the last hour",
        "everything that is kept",
    ):
        assert words in page, page
    sections = r"Who is not up (.*?) Errors of the last hour (.*?) Declared but not served (.*?) Boots per minute"
    trouble = re.search(sections, page)
    assert trouble is not None
    assert re.search(r"overdue: no report slow stuck 1 0", trouble[1])
    assert re.search(r"failed indexer broken 0 1 .* no disk", trouble[1]), "the error's text"
    assert "mended" not in trouble[1]
    assert "1 component that was in trouble is up again" in trouble[1]
    assert "good" not in trouble[1]
    assert "no disk 2 2 1" in trouble[2], "equal errors are one line"
    assert "Everything that is declared is served as it is declared." in trouble[3]
    assert "young" in page.partition("Who booted last")[2]
    revision = (await gate.client.get("/readyz")).json()["revision"]
    assert f"Revision {revision}" in page


async def test_principal_and_startup(gate: GateFixture, visitor: Visitor) -> None:
    """One page each: what is declared, the last startups, what was reported; a packet that cannot be made again says so."""
    admin = await gate.principal("admin", type="admin")
    principal = await gate.principal("indexer", tenant=admin.tenant, components=("indexer_*",))
    session = await opened(gate, principal)
    await gate.failed(principal, session, details={"disk": "full"})
    await visitor.inside(admin.key)
    page = await visitor.page("/console/principals/indexer")
    for words in (
        "Type component",
        "Profile worker",
        "Manifest prod",
        "indexer_*",
        session[-8:],
        principal.subject,
        "failed",
    ):
        assert words in page, page
    assert principal.key[4:14] in page, "the id of a key is no secret"
    assert principal.key not in page
    # published as rows, so nothing is remembered that would give the packet: said loudly, and the rest is there
    assert "NOT_REBUILT" in page
    page = await visitor.page(f"/console/startups/{session}")
    for words in ("failed", "no disk", '{"disk": "full"}', "indexer_1", "NOT_REBUILT"):
        assert words in page, page
    for path in (f"/console/startups/{uuid4()}", "/console/startups/x", "/console/principals/nobody", "/console/x/y/z"):
        answer = await visitor.see(path)
        assert answer.status_code == 404
        assert "Signed in as" in page_text(answer)


async def test_a_startup_shows_the_one_before(gate: GateFixture, visitor: Visitor) -> None:
    """Of the same principal and component, how it went, and whether it was told the same; the list of failed ones says why."""
    admin = await gate.principal("admin", type="admin")
    principal = await gate.principal("indexer", tenant=admin.tenant)
    first = await opened(gate, principal)
    await gate.failed(principal, first, error="no route to the database")
    await opened(gate, principal, "another")
    second = await opened(gate, principal)
    await gate.change(principal, body=shared_body(services={}))
    third = await opened(gate, principal)
    await visitor.inside(admin.key)
    page = await visitor.page(f"/console/startups/{second}")
    assert re.search(rf"The startup before …{first[-8:]} Copy failed , .* with the same packet", page), page
    page = await visitor.page(f"/console/startups/{third}")
    assert re.search(rf"The startup before …{second[-8:]} .* with another packet, of revision \d+", page), page
    assert "The startup before none" in await visitor.page(f"/console/startups/{first}")
    assert "no route to the database" in await visitor.page("/console/startups", status="FAILED")


@pytest.mark.invariant("INV-126")
async def test_it_links_to_the_ledgers_console(gate: GateFixture, database: Database) -> None:
    """Every page, and each startup to its story; an address that is no web address is refused at start."""
    ledger = "https://ledger.example/console"
    admin = await gate.principal("admin", type="admin")
    startup = await opened(gate, await gate.principal("indexer", tenant=admin.tenant))
    settings = settings_for(database, console=True, console_ledger_url=f"{ledger}/")
    async with serving(settings) as url, Visitor(url) as guest:
        await guest.inside(admin.key)
        assert f'<a href="{ledger}">Ledger</a>' in (await guest.see()).text
        page = await guest.see(f"/console/startups/{startup}")
        assert f'<a href="{ledger}/tasks/{startup}">its story in the ledger</a>' in page.text
    with pytest.raises(ValueError, match="String should match pattern"):
        settings_for(database, console_ledger_url="javascript:alert(1)")


async def test_an_observer_sees_what_the_api_shows_it(gate: GateFixture, visitor: Visitor) -> None:
    """Startups and topology of its tenant; no packet, history, keys, subjects, bindings, scopes, generations, issuers."""
    watcher = await gate.principal("watcher", type="observer")
    principal = await gate.principal("indexer", tenant=watcher.tenant)
    session = await opened(gate, principal)
    await visitor.inside(watcher.key)
    assert session[-8:] in await visitor.page()
    page = await visitor.page("/console/principals/indexer")
    assert session[-8:] in page
    for secret in (
        principal.subject,
        "What it would be told",
        "NOT_REBUILT",
        principal.key[4:14],
        "Binding",
        "Generation",
        "revision",
    ):
        assert secret not in page
    for shown in ("Type component", "Profile worker", "Manifest prod", "Components"):
        assert shown in page
    assert "Binding" not in await visitor.page("/console/principals")
    assert "cluster-wide" not in await visitor.page("/console/principals")
    assert "Issuers" not in await visitor.page()
    assert "What it was told, and why" not in await visitor.page(f"/console/startups/{session}")
    assert "History" not in await visitor.page()
    assert (await visitor.see("/console/history")).status_code == 403


async def test_nothing_of_another_tenant(gate: GateFixture, visitor: Visitor) -> None:
    """An admin of a namespace sees neither names nor numbers of another, whether or not it names the tenant."""
    admin = await gate.principal("admin", type="admin")
    stranger = await gate.principal("their-indexer")
    session = await opened(gate, stranger, "their-component")
    await visitor.inside(admin.key)
    for path in (*PAGES, "/console/history"):
        page = (await visitor.see(path)).text
        for name in ("their-", session, str(stranger.tenant), f"team-{stranger.tenant.hex[:8]}"):
            assert name not in page, path
    for path in ("/console/principals/their-indexer", f"/console/startups/{session}"):
        assert (await visitor.see(path)).status_code == 404
    assert f"There is no such startup: {session}" in await visitor.page("/console/search", q=session)
    refusals = {
        (await visitor.see(path, tenant=tenant)).status_code
        for path in ("/console", "/console/principals/their-indexer", f"/console/startups/{session}", "/console/live")
        for tenant in (str(stranger.tenant), str(uuid4()))
    }
    assert refusals == {403}


async def test_a_cluster_wide_reader_sees_every_tenant(gate: GateFixture, visitor: Visitor) -> None:
    """D-51: all of them at once, by name, and one of them when it is chosen; links keep the choice."""
    ruler = await gate.principal("ruler", type="observer", scope="Cluster")
    people = [await gate.principal(f"far-{at}") for at in range(2)]
    sessions = [await opened(gate, person) for person in people]
    await visitor.inside(ruler.key)
    page = await visitor.page()
    for principal, session in zip(people, sessions, strict=True):
        assert f"team-{principal.tenant.hex[:8]}" in page
        assert session[-8:] in page
    item, other = people
    page = (await visitor.see("/console", tenant=str(item.tenant))).text
    assert sessions[0] in page
    assert sessions[1] not in page
    assert f"/console/startups?tenant={item.tenant}" in page
    assert "far-1" in await visitor.page("/console/principals", tenant=str(other.tenant))
    result = await visitor.page("/console/search", q="far-")
    assert "far-0" in result
    assert "far-1" in result
    answer = await visitor.see("/console/search", q=sessions[1])
    assert answer.headers["location"] == f"/console/startups/{sessions[1]}?tenant={other.tenant}"
    assert "far-1" in await visitor.page(answer.headers["location"])
    assert f"team-{item.tenant.hex[:8]}" in await visitor.page("/console/topology")


async def test_pages_go_by_key(gate: GateFixture, visitor: Visitor) -> None:
    """Every startup and principal stands on exactly one page, whoever boots meanwhile."""
    admin = await gate.principal("admin", type="admin")
    crowd = [PrincipalFixture(tenant=admin.tenant, name=f"p-{at:03}") for at in range(120)]
    await gate.publish(*crowd)
    principal = crowd[0]
    expected = await asyncio.gather(*(opened(gate, principal, f"c_{at}") for at in range(120)))
    await visitor.inside(admin.key)

    async def walked(path: str, pattern: str) -> list[str]:
        observations: list[str] = []
        following: str | None = path
        while following is not None:
            page = (await visitor.see(following)).text
            observations += re.findall(pattern, page)
            match = re.search(r'rel="next" href="([^"]+)"', page)
            following = None if match is None else match[1].replace("&amp;", "&")
            await opened(gate, principal, "late")
        return observations

    seen = await walked("/console/startups", r'class="id" title="([0-9a-f-]{36})" href="/console/startups/')
    assert len(seen) == len(set(seen)) == 120
    assert set(seen) == set(expected)
    names = await walked("/console/principals", r'href="/console/principals/(p-\d{3})"')
    assert names == [item.name for item in crowd]
    filtered = await visitor.page("/console/startups", component="c_7", status="OPEN")
    assert "c_7 " in filtered
    assert "c_77" not in filtered


async def test_topology(gate: GateFixture, visitor: Visitor) -> None:
    """Principals of one Manifest stand together, each a mark of its health; a wire for each service that they use; the tables
    say the same.
    """
    admin = await gate.principal("admin", type="admin", bound=False)
    people = [await gate.principal(f"p-{at}", tenant=admin.tenant) for at in range(3)]
    await gate.ready(people[0], await opened(gate, people[0]))
    await gate.failed(people[1], await opened(gate, people[1]))
    await visitor.inside(admin.key)
    answer = await visitor.see("/console/topology")
    assert answer.text.count('class="wire"') == 1
    for state in ("ready", "failed", "silent"):
        assert answer.text.count(f'<a class="mark {state}"') == 1, state
    page = page_text(answer)
    for words in (
        "1 failed · 1 ready · 1 not seen",
        "memorygate · 3 principals",
        "http://memorygate:8001",
        "1 without a Binding",
    ):
        assert words in page, page
    assert re.search("State Name .* failed p-1 .* ready p-0 .* not seen p-2 ", page), "those in trouble come first"


async def test_the_topology_is_filtered(gate: GateFixture, visitor: Visitor) -> None:
    """By Manifest, service and state: principals that fit, and what these use; letters count when nothing has the whole name."""
    admin = await gate.principal("admin", type="admin", bound=False)
    one = await gate.principal("one", tenant=admin.tenant)
    two = await gate.principal(
        "two", tenant=admin.tenant, body=shared_body(services={"mail": {"type": "smtp", "endpoint": "m:1"}})
    )
    await gate.ask(
        "UPDATE metagate.binding SET manifest = 'prod-mail' WHERE principal_key = 'two' AND tenant = $1", two.tenant
    )
    await gate.failed(one, await opened(gate, one))
    await visitor.inside(admin.key)

    async def shown(**query: str) -> set[str]:
        page = (await visitor.see("/console/topology", **query)).text
        return set(re.findall(r'href="/console/principals/(one|two)"', page))

    assert await shown() == {"one", "two"}
    assert await shown(manifest="prod") == {"one"}
    assert await shown(manifest="prod-") == {"two"}
    assert await shown(manifest="PRO") == {"one", "two"}
    assert await shown(service="mail") == {"two"}
    assert await shown(state="failed") == {"one"}
    assert await shown(state="failed", service="mail") == set()
    assert "Nothing fits these filters." in await visitor.page("/console/topology", manifest="none")
    assert "memorygate" not in (await visitor.page("/console/topology", service="mail")).partition("Which Manifest")[2]
    assert (await visitor.see("/console/topology", state="unwell")).status_code == 422


async def test_principals_with_their_health(gate: GateFixture, visitor: Visitor) -> None:
    """State, Profile, Manifest, replicas and last start of each; counts by state above, each a filter; letters of a name."""
    admin = await gate.principal("admin", type="admin", bound=False)
    well, ill, idle = [await gate.principal(name, tenant=admin.tenant) for name in ("well", "ill", "idle")]
    await gate.ready(well, await opened(gate, well))
    failed = await opened(gate, ill)
    await gate.failed(ill, failed)
    await visitor.inside(admin.key)
    answer = await visitor.see("/console/principals")
    page = page_text(answer)
    assert "4 all 1 failed 1 ready 1 not seen 1 no Binding" in page
    assert re.search(r"failed ill component worker prod 0 of 1 0 of 1 \d+ s ago", page), page
    assert re.search(r"ready well component worker prod 1 of 1 1 of 1 \d+ s ago", page), page
    assert "not seen idle component worker prod – – –" in page
    assert f'<a class="state failed" href="/console/startups/{failed}"' in answer.text
    assert "Health is what the newest startups say: all that are kept." in page
    page = await visitor.page("/console/principals", state="failed")
    assert "4 all 1 failed 1 ready" in page, "the counts are of every state"
    assert " well " not in page
    assert " ill " not in await visitor.page("/console/principals", name="WEL")
    assert "There are none" in await visitor.page("/console/principals", manifest="other")
    page = await visitor.page("/console/principals/well")
    assert "Health ready Ready 1 of 1 component, 1 of 1 replica" in page
    assert idle.name in await visitor.page("/console/principals", manifest="prod")


async def test_others_with_the_same_error(gate: GateFixture, visitor: Visitor) -> None:
    """A failed startup says how many others failed with its error and links them, and the runbook."""
    admin = await gate.principal("admin", type="admin")
    who = await gate.principal("indexer", tenant=admin.tenant)
    sessions = [await opened(gate, who, f"c_{at}") for at in range(3)]
    for session in sessions:
        await gate.failed(who, session, error="no route to <db>")
    alone = await opened(gate, who, "alone")
    await gate.failed(who, alone, error="no disk")
    await visitor.inside(admin.key)
    answer = await visitor.see(f"/console/startups/{sessions[0]}")
    assert "2 others with the same error : 2 components of 1 principal since" in page_text(answer)
    [address] = re.findall(r'href="(/console/startups[?]error=[^"]*)"', answer.text)
    listed = (await visitor.see(unescape(address))).text
    assert set(sessions) <= set(re.findall(r'title="([0-9a-f-]{36})"', listed))
    assert alone not in listed
    assert "No other startup failed with this error" in await visitor.page(f"/console/startups/{alone}")
    [runbook] = re.findall(r'href="(/console/runbook#failed)"', answer.text)
    assert "A startup failed" in await visitor.page(runbook.partition("#")[0])


async def test_what_differs_from_the_startup_before(gate: GateFixture, visitor: Visitor) -> None:
    """State, report and, for admins, the values of the packet that are others; an observer sees no value of a packet."""
    admin = await gate.principal("admin", type="admin")
    watcher = await gate.principal("watcher", tenant=admin.tenant, type="observer")
    who = await gate.principal("indexer", tenant=admin.tenant)
    first = await opened(gate, who)
    await gate.ready(who, first, build_version="1.0.0")
    await gate.change(who, body=shared_body(environment={"region": "eu-north"}))
    second = await opened(gate, who)
    await gate.failed(who, second)
    await visitor.inside(admin.key)
    page = (await visitor.page(f"/console/startups/{second}")).partition("What differs from the startup before")[2]
    assert re.search(r"State ready failed .* error – no disk build_version 1.0.0 – In the packet", page), page
    assert 'Value Before After /environment/region "eu" "eu-north"' in page
    assert "What differs from the startup before" not in await visitor.page(f"/console/startups/{first}")
    async with Visitor(gate.url) as other:
        page = await (await other.inside(watcher.key)).page(f"/console/startups/{second}")
    assert "What differs from the startup before" in page
    assert "/environment/region" not in page


@pytest.mark.parametrize(
    "path",
    ["/console?tenant=x", "/console/startups?status=LATE", "/console/startups?after=x", "/console/history?before=x",
     "/console/startups?status=OPEN&status=READY", "/console/search?q=" + "a" * 600, "/console/principals?after=a%00b",
     "/console/search?q=%ff", "/console/search?q=%00"],
)  # fmt: skip
async def test_what_is_no_question(gate: GateFixture, visitor: Visitor, path: str) -> None:
    """A page that says what is wrong, in the frame of the others; never a 500."""
    admin = await gate.principal("admin", type="admin")
    await visitor.inside(admin.key)
    answer = await visitor.see(path)
    assert answer.status_code in {404, 422}, page_text(answer)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"


@pytest.mark.parametrize("name", ["%ff", "%00", "a%0Ab", "%1b%5b2J", "%C2%85"])
async def test_control_characters_in_a_path_are_400(gate: GateFixture, visitor: Visitor, name: str) -> None:
    """As at every path of the gate (D-74), with a session and without."""
    admin = await gate.principal("admin", type="admin")
    assert (await visitor.see(f"/console/principals/{name}")).status_code == 400
    await visitor.inside(admin.key)
    answer = await visitor.see(f"/console/principals/{name}")
    assert (answer.status_code, answer.headers["content-type"]) == (400, "text/html; charset=utf-8")


async def test_an_escaped_slash_separates_nothing(gate: GateFixture, visitor: Visitor) -> None:
    """`/console%2F…` is no path of the console; other escapes are decoded within their segment."""
    admin = await gate.principal("admin", type="admin")
    await visitor.inside(admin.key)
    for path in ("/console%2Fprincipals", "/console%2fsign-in", "/consol"):
        answer = await visitor.see(path)
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json"), path
    assert (await visitor.see("/con%73ole/%73ign-in")).status_code == 200
    assert (await visitor.see("/console/principals%2Fadmin")).status_code == 404


async def test_every_answer_is_strict(gate: GateFixture, visitor: Visitor) -> None:
    """One policy everywhere: nothing inline, nothing from elsewhere, in no frame, kept by nobody."""
    admin = await gate.principal("admin", type="admin")
    answers = [await visitor.see(path) for path in ("/console/sign-in", "/console", "/console/static/console.js")]
    await visitor.inside(admin.key)
    answers += [await visitor.see(path) for path in (*PAGES, "/console/history", "/console/none")]
    for answer in answers:
        by_name = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
        assert by_name == POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
        if "html" in answer.headers.get("content-type", ""):
            assert answer.headers["cache-control"] == "no-store"
            page = Text(answer.text)
            assert "style" not in page.elements | page.attributes
            assert not any(name.startswith("on") for name in page.attributes)
            assert re.findall(r"<script(?! src=)", answer.text) == []
            assert re.findall(r'(?:src|href)="(?!/console|#)[^"]*"', answer.text) == []
    assert (await visitor.client.post("/console")).status_code == 405
    assert (await visitor.client.head("/console")).content == b""
    head = await visitor.client.head("/console/live")
    assert (head.status_code, head.headers["content-type"], head.content) == (
        200,
        "text/event-stream; charset=utf-8",
        b"",
    )


async def test_hostile_words_are_only_words(gate: GateFixture, visitor: Visitor) -> None:
    """HTML, SVG, escape sequences, marks that turn text around, 256 KB: in names, reports, search boxes; all of it text."""
    admin = await gate.principal("admin", type="admin")
    name = HOSTILE
    principal = await gate.principal(name, tenant=admin.tenant)
    session = await opened(gate, principal)
    # No component may boot under such a name any more (D-65); sessions of an earlier release may have it.
    await gate.ask("UPDATE metagate.startup SET component_key = $1 WHERE startup_id = $2", COMPONENT, session)
    await gate.failed(principal, session, error=HOSTILE, details={HOSTILE: HOSTILE})
    huge = '{"error": "' + "A" * 262_144 + '"}'
    other = await opened(gate, principal, "big")
    await gate.ask("UPDATE metagate.startup SET report = $1::jsonb, status = 'FAILED', acknowledged_at = now() "
                   "WHERE startup_id = $2", huge, other)  # fmt: skip
    await visitor.inside(admin.key)
    pages = [
        await visitor.see(path)
        for path in ("/console", "/console/principals", "/console/startups", "/console/topology", "/console/history",
                     f"/console/startups/{session}", f"/console/startups/{other}")
    ]  # fmt: skip
    pages += [
        await visitor.client.get("/console/search", params={"q": HOSTILE}),
        await visitor.client.get("/console/startups", params={"component": COMPONENT, "principal": HOSTILE}),
    ]
    for answer in pages:
        assert answer.status_code == 200, page_text(answer)
        page = Text(answer.text)
        assert not {"img", "onerror", "onload", "iframe"} & (page.elements | page.attributes), answer.url
        assert not re.search("[\x00-\x08\x0b-\x1f\u200b\u202e]", answer.text), answer.url
        assert len(answer.text) < 100_000
    assert "<img src=x onerror=alert(1)>" in page_text(pages[0])
    assert "\\u202etxt.exe\\u200b" in page_text(pages[5])
    assert "(262,144 characters)" in page_text(pages[6])
    link = re.search(r'href="(/console/principals/[^"]+)"', pages[1].text)
    assert link is not None


async def test_what_is_spelt_is_spelt_once_and_addresses_are_whole(gate: GateFixture, visitor: Visitor) -> None:
    """A cut value says how long it was, not how long its spelling is; long names come back from links and fields as they were."""
    admin = await gate.principal("admin", type="admin")
    principal = await gate.principal("indexer", tenant=admin.tenant)
    session = await opened(gate, principal)
    await gate.failed(principal, session, details={"turned": "\u202e" * 1_000})
    await visitor.inside(admin.key)
    page = await visitor.page(f"/console/startups/{session}")
    assert page.count("\\u202e") == 1_000
    assert "characters)" not in page
    long = "é\u202e" * 120
    [address] = re.findall(
        r'href="(/console/startups[?]component=[^"]*)"', (await visitor.see("/console/search", q=long)).text
    )
    assert httpx.URL(unescape(address)).params["component"] == long
    answer = await visitor.see("/console/startups", component=long)
    [field] = re.findall(r'name="component" maxlength="253" value="([^"]*)"', answer.text)
    assert unescape(field) == long
    assert "\u202e" not in answer.text


async def test_assets_are_kept_under_the_address_of_their_content_only(visitor: Visitor) -> None:
    """While a release is rolled out, what another process has under that name must not be kept as this one's."""
    page = await visitor.see("/console/sign-in")
    addresses = re.findall(r'(?:src|href)="(/console/static/[^"]+)"', page.text)
    assert addresses
    for address in map(unescape, addresses):
        assert "max-age" in (await visitor.see(address)).headers["cache-control"]
        plain = address.partition("?")[0]
        for other in (plain, f"{plain}?v=000000000000", f"{address}&w=1"):
            answer = await visitor.see(other)
            assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
