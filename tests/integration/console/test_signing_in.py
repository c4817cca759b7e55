"""Who comes in, how, for how long, and what everybody else learns: nothing."""

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import unquote
from uuid import uuid4

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey
from pydantic import SecretStr
from tests.databases import Database
from tests.integration.api.gate_fixture import GateFixture, settings_for
from tests.integration.api.processes import process
from tests.integration.console.conftest import CONSOLE_SECRET
from tests.integration.console.visiting import FORM, SESSION, Visitor, hidden, page_text
from tests.integration.store.worlds import row

from legivellum.console.sessions import SessionCookies
from legivellum.identity.api_keys import digest_of, mint
from legivellum.identity.caller import Caller, Credential
from metagate_api.server import serving

PATHS = (
    "/console", "/console/", "/console/principals", "/console/principals/{name}", "/console/principals/nobody",
    "/console/startups", "/console/startups/{session}", f"/console/startups/{uuid4()}", "/console/topology",
    "/console/history", "/console/search?q={name}", "/console/live", "/console/nothing/here", "/console/static/none.css",
    "/console/principals/{name}?tenant={tenant}", "/console/?tenant=nonsense",
)  # fmt: skip


def cookie_of(answer: httpx.Response, name: str) -> str:
    [result] = [item for item in answer.headers.get_list("set-cookie") if item.startswith(f"{name}=")]
    return result


async def test_a_key_and_a_token_open_it(gate: GateFixture) -> None:
    """Either leads to the page that was asked for; the cookie is for the console, for scripts never, for others never."""
    admin = await gate.principal("admin", type="admin")
    for credential in (admin.key, f"  {admin.key}\n", admin.token()):
        async with Visitor(gate.url) as visitor:
            answer = await visitor.sign_in(credential, next="/console/startups?status=FAILED")
            assert (answer.status_code, answer.headers["location"]) == (303, "/console/startups?status=FAILED")
            cookie = cookie_of(answer, SESSION)
            assert "; Path=/console; HttpOnly; SameSite=Strict" in cookie
            assert "Secure" not in cookie, "it is plain http here"
            assert admin.key not in cookie
            assert credential.strip() not in cookie
            assert f"Signed in as {admin.name}" in await visitor.page()


async def test_over_https_the_cookie_is_for_https_only(database: Database) -> None:
    """With TLS, or behind something that ends it (METAGATE_PUBLIC_URL, METAGATE_CONSOLE_SECURE)."""
    for chosen in (
        {"public_url": "https://metagate.example"},
        {"console_secure": True, "public_url": "http://metagate"},
    ):
        settings = settings_for(database, console=True, **chosen)
        async with serving(settings) as url, Visitor(url) as visitor:
            assert "; Secure" in cookie_of(await visitor.see("/console/sign-in"), FORM)


@pytest.mark.parametrize("role", ["component", "principal", "delegate", "worker", "service"])
async def test_others_stay_outside(gate: GateFixture, visitor: Visitor, role: str) -> None:
    """A good credential of somebody who is neither admin nor observer opens nothing, and says why."""
    somebody = await gate.principal(role, type=role)
    answer = await visitor.sign_in(somebody.key)
    assert answer.status_code == 403
    assert "Only a principal of type admin or observer" in page_text(answer)
    assert (await visitor.see()).status_code == 303


async def test_what_is_no_credential(gate: GateFixture, visitor: Visitor) -> None:
    """Unknown, malformed, expired, empty, suspended: the page again, never a session, never the credential in it."""
    yesterday = datetime.now(UTC) - timedelta(days=1)
    expired = await gate.principal("old", type="admin", key_expires=yesterday)
    suspended = await gate.principal("out", type="admin", suspended=True)
    unknown = mint().key
    for credential, status in (
        (unknown, 401), ("mgk_nonsense", 401), ("x.y.z", 401), ("nonsense", 401), ("", 401), ("\u202e\x1b[31m", 401), ("a" * 9_000, 401),
        (expired.key, 401), (suspended.key, 403), (suspended.token(), 403),
    ):  # fmt: skip
        answer = await visitor.sign_in(credential)
        assert answer.status_code == status, credential
        assert 'role="alert"' in answer.text
        assert credential[:40] not in answer.text or not credential
        assert SESSION not in visitor.client.cookies
        if credential == "nonsense":
            assert "neither an API key (mgk_…) nor a token" in page_text(answer)
    assert (await visitor.see()).status_code == 303


async def test_nobody_learns_anything(gate: GateFixture, visitor: Visitor) -> None:
    """Without a session every path of the console, there or not, answers the same but for the way back to it."""
    principal = await gate.principal("secretive-indexer")
    session = (await gate.boot(principal)).json()["startup"]["startup_id"]
    names = set()
    for path in PATHS:
        requests = path.format(name=principal.name, session=session, tenant=principal.tenant)
        for forged in (None, "x", "a.b.c"):
            for method in ("GET", "POST", "DELETE", "HEAD"):
                headers = {} if forged is None else {"cookie": f"{SESSION}={forged}"}
                answer = await visitor.client.request(method, requests, headers=headers)
                location = httpx.URL(answer.headers["location"])
                assert location.path == "/console/sign-in"
                assert location.params.get("next", requests) == requests
                names.add((forged is None, answer.status_code, answer.text, *sorted(
                    (name, value) for name, value in answer.headers.items()
                    if name not in {"location", "date", "x-request-id"}
                )))  # fmt: skip
                taken_back = answer.headers.get("set-cookie", "").startswith(f"{SESSION}=; Max-Age=0")
                assert taken_back is (forged is not None), "a link from another site comes without the cookie there is"
    assert len(names) == 2
    page = (await visitor.see("/console/sign-in")).text
    assert principal.name not in page
    assert str(principal.tenant) not in page


@pytest.mark.parametrize(
    "elsewhere",
    ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/console/../v1", "/consoles",
     "/console/sign-in?next=/console", "/console/../../x", "/console/..", "/console/a/../../v1/startups",
     "/console/%2e%2e/v1", "/console/.%2E/v1", "/console/./../x", "/console?a=/../b#/../c", '/console/"><script>', "/console\r\nx: y", ""],
)  # fmt: skip
async def test_the_way_back_leads_nowhere_else(gate: GateFixture, visitor: Visitor, elsewhere: str) -> None:
    """Whatever `next` says, it ends within the console."""
    admin = await gate.principal("admin", type="admin")
    answer = await visitor.sign_in(admin.key, next=elsewhere)
    assert answer.status_code == 303
    location = answer.headers["location"]
    resolved = str(httpx.URL(gate.url).join(location).path)
    assert resolved == "/console" or resolved.startswith("/console/")
    assert not {"..", "."} & set(unquote(location.partition("?")[0]).split("/"))
    assert "evil" not in location


async def test_only_our_own_form_signs_in_and_out(gate: GateFixture, visitor: Visitor) -> None:
    """Without the token, with another browser's, or from another site nothing happens (CSRF), in either direction."""
    admin = await gate.principal("admin", type="admin")
    async with Visitor(gate.url) as other:
        stolen = hidden(await other.see("/console/sign-in"), "token")
    for token in ("", "x", stolen):
        answer = await visitor.sign_in(admin.key, token=token)
        assert answer.status_code == 403
        assert SESSION not in visitor.client.cookies
    page = await visitor.see("/console/sign-in")
    form = {"token": hidden(page, "token"), "credential": admin.key}
    for site in ("cross-site", "same-site"):
        answer = await visitor.client.post("/console/sign-in", data=form, headers={"sec-fetch-site": site})
        assert answer.status_code == 422
    # Browsers leave Sec-Fetch-Site out over plain http: then Origin says where the form is from.
    for origin in ("https://evil.example", "http://evil.example:8000", "null", "http://", ""):
        answer = await visitor.client.post("/console/sign-in", data=form, headers={"origin": origin})
        assert answer.status_code == 422, origin
        assert SESSION not in visitor.client.cookies
    own_origin = {"origin": gate.url}
    assert (await visitor.client.post("/console/sign-in", data=form, headers=own_origin)).status_code == 303
    visitor.client.cookies.delete(SESSION)
    refused = await visitor.client.post("/console/sign-in", json=form)
    assert refused.status_code == 415
    await visitor.inside(admin.key)
    for body in ({}, {"token": "x"}, {"token": stolen}):
        await visitor.client.post("/console/sign-out", data=body)
        assert (await visitor.see()).status_code == 200
    own = hidden(await visitor.see(), "token")
    answer = await visitor.client.post("/console/sign-out", data={"token": own})
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/sign-in")
    assert (await visitor.see()).status_code == 303


@pytest.mark.invariant("EXT-11")
async def test_a_session_ends_with_what_it_rests_on(gate: GateFixture) -> None:
    """Suspended, demoted, its key or subject withdrawn, moved to somebody else: the next page is the sign-in page."""
    for change in ({"suspended": True}, {"type": "component"}):
        admin = await gate.principal("admin", type="admin")
        async with Visitor(gate.url) as visitor:
            await visitor.inside(admin.key)
            await visitor.page()
            await gate.change(admin, **change)
            answer = await visitor.see()
            assert answer.status_code == 303, change
            assert cookie_of(answer, SESSION).startswith(f"{SESSION}=; Max-Age=0")
    for table, credential in (("api_key", "key"), ("subject", "token")):
        admin = await gate.principal("admin", type="admin")
        async with Visitor(gate.url) as visitor:
            await visitor.inside(admin.key if credential == "key" else admin.token())
            [row] = admin.rows()[table]
            key = (row["sha256"],) if table == "api_key" else (row["issuer"], row["subject"])
            await gate.publish(deletes={table: [key]})
            assert (await visitor.see()).status_code == 303, table


async def test_a_session_is_short(database: Database) -> None:
    """As long as the setting says, and never longer than the credential; a forged or expired cookie is none."""
    now = time.time()
    caller = Caller(
        tenant=uuid4(), namespace="team", principal_key="admin", type="admin", scope="Namespace", rights=frozenset(),
        suspended=False, credential=Credential("key", "", "0" * 64, None), pod=None, expires_at=None,
    )  # fmt: skip
    for expires, longest in ((None, 600), (datetime.fromtimestamp(now + 60, UTC), 60)):
        cookies = SessionCookies(
            CONSOLE_SECRET.encode(), gate="metagate", lifetime=600, secure=False, clock=lambda: now
        )
        _, header = cookies.opened(replace(caller, expires_at=expires))
        assert f"Max-Age={longest};".encode() in header.replace(b"59;", b"60;").replace(b"599;", b"600;")
        word = header.split(b";")[0]
        assert cookies.session([(b"cookie", word)]) is not None
        later = SessionCookies(
            CONSOLE_SECRET.encode(),
            gate="metagate",
            lifetime=600,
            secure=False,
            clock=lambda end=longest: now + end + 1,
        )
        assert later.session([(b"cookie", word)]) is None
        other = SessionCookies(
            b"another secret, just as long as it", gate="metagate", lifetime=600, secure=False, clock=lambda: now
        )
        assert other.session([(b"cookie", word)]) is None
        assert cookies.session([(b"cookie", word + b"; " + word)]) is None, "two are not picked from"
        assert cookies.session([(b"cookie", word[:-4] + b"AAAA")]) is None
    key = OctKey.import_key(CONSOLE_SECRET)
    for algorithm in ("HS256", "HS512"):
        made = jwt.encode({"alg": algorithm}, {"exp": int(now) + 60}, key, algorithms=[algorithm])
        assert cookies.session([(b"cookie", f"{SESSION}={made}".encode())]) is None


async def test_an_expired_cookie_leads_to_the_sign_in_page(gate: GateFixture) -> None:
    """The same cookie opens the page while it lasts, and not a second longer."""
    admin = await gate.principal("admin", type="admin")
    caller = Caller(
        tenant=admin.tenant, namespace="team", principal_key=admin.name, type="admin", scope="Namespace",
        rights=frozenset(), suspended=False, credential=Credential("key", "", digest_of(admin.key), None), pod=None,
        expires_at=None,
    )  # fmt: skip
    for made_ago, status in ((500, 200), (601, 303)):
        cookies = SessionCookies(
            CONSOLE_SECRET.encode(),
            gate="metagate",
            lifetime=600,
            secure=False,
            clock=lambda ago=made_ago: time.time() - ago,
        )
        word = cookies.opened(caller)[1].split(b";")[0].decode()
        async with Visitor(gate.url) as visitor:
            answer = await visitor.client.get("/console", headers={"cookie": word})
            assert answer.status_code == status


async def test_workers_share_a_secret_that_nobody_chose(database: Database, gate: GateFixture) -> None:
    """Whichever worker of one server is asked next knows who signed in at another."""
    admin = await gate.principal("admin", type="admin")
    with process(database, METAGATE_CONSOLE="true", METAGATE_WORKERS="2", METAGATE_DEADLINE_MS="5000") as (host, port):
        async with Visitor(f"http://{host}:{port}") as visitor:
            for _ in range(100):
                if (await visitor.client.get("/readyz", headers={"connection": "close"})).status_code == 200:
                    break
                await asyncio.sleep(0.1)
            await visitor.inside(admin.key)
            # One after the other: the kernel spreads connections over the workers, and so many pages at once may be refused.
            for _ in range(24):
                answer = await visitor.client.get("/console", headers={"connection": "close"})
                assert answer.status_code == 200


async def test_processes_that_share_the_secret_share_the_session(gate: GateFixture, database: Database) -> None:
    """Two processes with one METAGATE_CONSOLE_SECRET; a third without knows nobody."""
    admin = await gate.principal("admin", type="admin")
    shared = settings_for(database, console=True, console_secret=SecretStr(CONSOLE_SECRET))
    alone = settings_for(database, console=True)
    async with serving(shared) as second, serving(alone) as third, Visitor(gate.url) as visitor:
        await visitor.inside(admin.key)
        cookies = {SESSION: visitor.client.cookies[SESSION]}
        for url, status in ((second, 200), (third, 303)):
            async with httpx.AsyncClient(base_url=url, cookies=cookies, timeout=10, trust_env=False) as client:
                assert (await client.get("/console")).status_code == status


@pytest.mark.invariant("EXT-11")
async def test_another_jwt_secret_ends_the_sessions_of_its_tokens(gate: GateFixture, database: Database) -> None:
    """A token of the old secret, or of a secret that there is no more, opens nothing any longer; a key still does."""
    admin = await gate.principal("admin", type="admin")
    chosen = {"console": True, "console_secret": SecretStr(CONSOLE_SECRET)}
    async with (
        serving(settings_for(database, **chosen)) as same,
        serving(
            settings_for(database, **chosen, jwt_secret=SecretStr("chosen anew, and long enough for HS256"))
        ) as other,
        serving(settings_for(database, **chosen, jwt_secret=None)) as none,
    ):
        for credential, last in ((admin.token(), 303), (admin.key, 200)):
            async with Visitor(gate.url) as visitor:
                await visitor.inside(credential)
                cookies = {SESSION: visitor.client.cookies[SESSION]}
            for url, status in ((same, 200), (other, last), (none, last)):
                async with httpx.AsyncClient(base_url=url, cookies=cookies, timeout=10, trust_env=False) as client:
                    assert (await client.get("/console")).status_code == status, (url, last)


@pytest.mark.invariant("EXT-11")
@pytest.mark.parametrize(
    "change", [{"audiences": ["elsewhere"]}, {"algorithms": ["ES256"]}, {"max_token_lifetime_seconds": 599}]
)
async def test_a_session_ends_when_its_issuer_is_believed_otherwise(
    gate: GateFixture, change: dict[str, object]
) -> None:
    """The TokenIssuer no longer names the audience or the algorithm that the token had, or allows so long a life no
    more: the session is over.
    """
    name = f"https://{uuid4()}.test"
    key = RSAKey.generate_key(2048, {"kid": "one", "use": "sig", "alg": "RS256"})
    admin = await gate.principal("admin", type="admin")
    declared = {
        "issuer": name, "name": "theirs", "audiences": ["metagate"], "algorithms": ["RS256"], "generation": 1,
        "max_token_lifetime_seconds": 3_600, "source": "Inline", "url": None,
    }  # fmt: skip
    subject = row(admin.uid, issuer=name, subject="ada", tenant=str(admin.tenant), principal_key=admin.name)
    public = row(uuid4(), issuer=name, kid="one", jwk=key.as_dict(private=False), alg="RS256")
    await gate.publish(admin, subject=[subject], issuer=[row(uuid4(), **declared)], issuer_key=[public])
    now = int(time.time())
    claims = {"iss": name, "sub": "ada", "aud": "metagate", "iat": now, "exp": now + 600}
    async with Visitor(gate.url) as visitor:
        await visitor.inside(jwt.encode({"alg": "RS256", "kid": "one"}, claims, key))
        await visitor.page()
        await gate.publish(issuer=[row(uuid4(), **{**declared, **change, "generation": 2})])
        assert (await visitor.see()).status_code == 303


HTML = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "status"),
    [(HTML, 303), ("text/html", 303), ("text/html;q=0.9, application/json;q=0.5", 303), ("*/*", 200), ("", 200),
     ("application/json", 200), ("application/json, text/html;q=0.9", 200), ("text/html;q=0", 200), ("text/html;q=x", 200)],
)  # fmt: skip
async def test_a_browser_that_asks_for_the_root_gets_the_console(gate: GateFixture, accept: str, status: int) -> None:
    """Whoever prefers HTML is led to /console; programs get what the gate says of itself."""
    async with Visitor(gate.url) as visitor:
        answer = await visitor.client.get("/", headers={"accept": accept})
        assert answer.status_code == status
        if status == 303:
            assert answer.headers["location"] == "/console"
        else:
            assert answer.json()["service"] == "MetaGate"


async def test_without_the_console_the_root_is_the_gates_own(database: Database) -> None:
    """Also for a browser."""
    async with serving(settings_for(database)) as url, Visitor(url) as visitor:
        assert (await visitor.client.get("/", headers={"accept": HTML})).json()["service"] == "MetaGate"


async def test_it_is_off_unless_asked_for(database: Database) -> None:
    """Without METAGATE_CONSOLE there is nothing at /console."""
    async with serving(settings_for(database)) as url, Visitor(url) as visitor:
        for path in ("/console", "/console/sign-in", "/console/static/console.css"):
            answer = await visitor.see(path)
            assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")
