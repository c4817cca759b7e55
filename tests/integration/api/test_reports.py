"""POST /v1/startup/ready and /failed at the socket."""

import asyncio
import json
from typing import Any
from uuid import uuid4

import pytest
from tests.integration.api.gate_fixture import GateFixture, PrincipalFixture

CANARIES = {
    "AWS": "AKIAIOSFODNN7EXAMPLE",
    "key": "mgk_0123456789_" + "aB3" * 14 + "aXYZ123",
    "URL": "postgres://user:hunter2hunter2@db/x",
    "password": "password=correct-horse-battery",
}


async def opened(gate: GateFixture, principal: PrincipalFixture, component: str = "indexer_1") -> str:
    return (await gate.boot(principal, component)).json()["startup"]["startup_id"]


@pytest.mark.invariant("INV-019")
async def test_ready_and_failed_are_recorded(gate: GateFixture) -> None:
    """READY and FAILED move an OPEN session, with a time and what was said."""
    principal = await gate.principal()
    first, second = await opened(gate, principal), await opened(gate, principal)
    ready = await gate.ready(principal, first, health={"disk": "ok"})
    assert ready.status_code == 200
    assert set(ready.json()) == {"startup_id", "status", "acknowledged_at", "late"}
    assert (ready.json()["status"], ready.json()["late"]) == ("READY", False)
    failed = await gate.failed(principal, second, error="no disk", details={"code": 28})
    assert (failed.status_code, failed.json()["status"]) == (200, "FAILED")
    in_words = await opened(gate, principal)
    assert (await gate.ready(principal, in_words, health="ok")).json()["status"] == "READY"
    stored = (await gate.client.get(f"/v1/startup/{in_words}", headers=principal.by_key)).json()
    assert stored["report"]["health"] == "ok", "D-65: health is text or an object"
    shown = (await gate.client.get(f"/v1/startup/{second}", headers=principal.by_key)).json()
    assert shown["report"] == {"error": "no disk", "details": {"code": 28}}
    assert (await gate.stored(first))["status"] == "READY"
    assert (await gate.stored(second))["status"] == "FAILED"


@pytest.mark.invariant("INV-019")
@pytest.mark.parametrize(
    "body",
    [{}, {"startup_id": None}, {"startup_id": "x"}, {"startup_id": 7}, {"startup_id": "0" * 36},
     {"startup_id": str(uuid4())}, {"startup_id": str(uuid4()), "build_version": 7, "error": 7},
     {"startup_id": str(uuid4()), "build_version": " ", "error": " "},
     {"startup_id": str(uuid4()), "build_version": "1", "health": [], "error": "e", "details": "x"},
     {"startup_id": str(uuid4()), "build_version": "1" * 257, "error": "e" * 8_193},
     {"startup_id": str(uuid4()), "build_version": "1", "health": {"a": "x" * 9_000}, "error": "e", "details": {"a": "x" * 9_000}},
     {"startup_id": str(uuid4()), "build_version": "1", "health": "x" * 9_000, "error": "e", "details": 7},
     {"startup_id": str(uuid4()), "build_version": "1", "health": 7, "error": "e", "details": True}],
    ids=range(13),
)  # fmt: skip
async def test_malformed_reports_are_422(gate: GateFixture, body: dict[str, Any]) -> None:
    """What is missing, of the wrong type or out of bounds is named and refused."""
    principal = await gate.principal()
    for path in ("ready", "failed"):
        answer = await gate.client.post(f"/v1/startup/{path}", json=body, headers=principal.by_key)
        assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_REQUEST"), answer.text


@pytest.mark.invariant("INV-019")
async def test_unknown_sessions_are_404(gate: GateFixture) -> None:
    """A session that never was is not found."""
    principal = await gate.principal()
    for answer in (await gate.ready(principal, str(uuid4())), await gate.failed(principal, str(uuid4()))):
        assert (answer.status_code, answer.json()["code"]) == (404, "SESSION_NOT_FOUND")


@pytest.mark.invariant("INV-020", "EXT-02")
async def test_terminal_states_exclude_each_other(gate: GateFixture) -> None:
    """The other terminal state is 409; the same one again is 200 with the first moment, whatever it says now (EXT-02)."""
    principal = await gate.principal()
    session = await opened(gate, principal)
    first = await gate.ready(principal, session)
    again = await gate.ready(principal, session, build_version="another", health={"x": 1})
    assert again.status_code == 200
    assert again.json() == first.json()
    other = await gate.failed(principal, session)
    assert (other.status_code, other.json()["code"]) == (409, "INVALID_STATE")
    shown = (await gate.client.get(f"/v1/startup/{session}", headers=principal.by_key)).json()
    assert shown["report"] == {"build_version": "1.2.3"}, "the first report is kept"


@pytest.mark.invariant("INV-020")
async def test_fifty_racing_pairs(gate: GateFixture) -> None:
    """READY and FAILED at the same moment: exactly one terminal state each, and who lost is told so."""
    principal = await gate.principal()
    sessions = [await opened(gate, principal) for _ in range(50)]
    pairs = await asyncio.gather(
        *[asyncio.gather(gate.ready(principal, session), gate.failed(principal, session)) for session in sessions]
    )
    for session, (ready, failed) in zip(sessions, pairs, strict=True):
        assert sorted([ready.status_code, failed.status_code]) == [200, 409]
        winner = "READY" if ready.status_code == 200 else "FAILED"
        assert (await gate.stored(session))["status"] == winner


@pytest.mark.invariant("INV-021")
async def test_only_the_component_itself_reports(gate: GateFixture) -> None:
    """Another principal of the tenant gets 403, another tenant's exactly what an unknown id gets; the state stays OPEN."""
    principal = await gate.principal()
    neighbour = await gate.principal("neighbour", tenant=principal.tenant)
    admin = await gate.principal("admin", tenant=principal.tenant, type="admin")
    stranger = await gate.principal()
    session = await opened(gate, principal)
    for item in (neighbour, admin):
        for answer in (await gate.ready(item, session), await gate.failed(item, session)):
            assert (answer.status_code, answer.json()["code"]) == (403, "NOT_YOURS")
    foreign, unknown = await gate.ready(stranger, session), await gate.ready(stranger, str(uuid4()))
    assert foreign.status_code == 404
    assert foreign.json() == unknown.json()
    assert (await gate.stored(session))["status"] == "OPEN"


@pytest.mark.invariant("INV-022")
async def test_overdue_is_seen_and_not_written(gate: GateFixture) -> None:
    """Past the deadline the view says overdue while the row is byte-identical; a late READY is marked late."""
    principal = await gate.principal(sla_seconds=1)
    session = await opened(gate, principal)
    before = await gate.stored(session)
    shown = (await gate.client.get(f"/v1/startup/{session}", headers=principal.by_key)).json()
    assert (shown["status"], shown["overdue"]) == ("OPEN", False)
    await asyncio.sleep(1.1)  # the database's own clock decides
    shown = (await gate.client.get(f"/v1/startup/{session}", headers=principal.by_key)).json()
    assert (shown["status"], shown["overdue"]) == ("overdue", True)
    # What is shown as overdue is not listed as OPEN, neither to its own nor to whoever reads every tenant.
    everywhere = await gate.principal("central", type="observer", scope="Cluster")
    for reader in (principal, everywhere):
        open_ = await gate.client.get("/v1/startups", params={"status": "OPEN"}, headers=reader.by_key)
        assert all(item["status"] == "OPEN" for item in open_.json()["items"])
        assert session not in [item["startup_id"] for item in open_.json()["items"]]
    listed = await gate.client.get("/v1/startups", params={"status": "overdue"}, headers=principal.by_key)
    assert [row["startup_id"] for row in listed.json()["items"]] == [session]
    assert await gate.stored(session) == before
    late = await gate.ready(principal, session)
    assert (late.status_code, late.json()["late"]) == (200, True)


@pytest.mark.invariant("INV-034")
async def test_reports_are_redacted(gate: GateFixture) -> None:
    """What looks like a secret in error, details or health is replaced before it is stored (D-43)."""
    principal = await gate.principal()
    failed, ready = await opened(gate, principal), await opened(gate, principal)
    text = "; ".join(CANARIES.values())
    await gate.failed(
        principal, failed, error=f"cannot start: {text}", details={"deep": [{"password": "s3cr3t-canary"}, text]}
    )
    await gate.ready(principal, ready, health={"token": "s3cr3t-canary", "note": text})
    rows = json.dumps([dict(row) for row in await gate.ask("SELECT * FROM metagate.startup")], default=str)
    for canary in (*CANARIES.values(), "hunter2hunter2", "s3cr3t-canary"):
        assert canary not in rows
    shown = (await gate.client.get(f"/v1/startup/{failed}", headers=principal.by_key)).json()
    assert shown["report"]["error"].startswith("cannot start: ")
    assert "[redacted]" in shown["report"]["error"]
    assert shown["report"]["details"]["deep"][0] == {"password": "[redacted]"}


async def test_suspended_principals_cannot_report(gate: GateFixture) -> None:
    """Suspension holds for reports as it does for bootstraps."""
    principal = await gate.principal()
    session = await opened(gate, principal)
    principal = await gate.change(principal, suspended=True)
    answer = await gate.ready(principal, session)
    assert (answer.status_code, answer.json()["code"]) == (403, "PRINCIPAL_SUSPENDED")
