"""Tenants, principals and the database's own rights: who sees what, and who can change what."""

import asyncio
import json
from collections import Counter

import asyncpg
import pytest
from tests.integration.memorygate.conftest import (
    LedgerDatabase,
    RunningLedger,
    accepted,
    complete,
    escalate,
    new_id,
    rows,
)

from legivellum.receipts.rights import MATRIX, PHASES, ROLES, Kind, Right

TABLES = ("receipt", "task", "obligation", "dedupe", "tally", "verification")


async def contents(database: LedgerDatabase) -> dict[str, str]:
    """A checksum of every table."""
    sums = {}
    for table in TABLES:
        query = f"SELECT md5(coalesce(string_agg(t::text, '|' ORDER BY t::text), '')) FROM memorygate.{table} AS t"
        [(sums[table],)] = await rows(database.superuser, query)
    return sums


@pytest.mark.invariant("INV-056")
async def test_another_tenants_ids_look_like_ids_that_do_not_exist(gate: RunningLedger):
    """Receipt, task, chain, inbox and summary of one tenant say nothing of another's, and ids may be equal in both."""
    alice, eve = gate.peer(), gate.stranger()
    sent = accepted(task_id="secret-task", principal_ai="alice")
    await alice.post(sent)
    unknown = await eve.get(f"/receipts/{new_id()}")
    for path in (f"/receipts/{sent['receipt_id']}", f"/receipts/chain/{sent['receipt_id']}"):
        answer = await eve.get(path)
        assert (answer.status_code, answer.json()) == (404, unknown.json())
    assert (await eve.get("/receipts/task/secret-task")).json() == (await eve.get("/receipts/task/none")).json()
    assert await eve.inbox() == []
    assert (await eve.get("/v1/summary")).json()["receipts"] == 0
    # The same ids again, in the other tenant: no collision, no hint.
    again = await eve.post(sent)
    assert again.status_code == 201
    assert (await eve.get("/receipts/task/secret-task")).json()["items"][0]["tenant_id"] == str(eve.tenant)


@pytest.mark.invariant("INV-056")
async def test_a_cause_or_parent_in_another_tenant_is_a_dangling_name(gate: RunningLedger):
    """Naming another tenant's receipt links nothing and shows nothing."""
    alice, eve = gate.peer(), gate.stranger()
    cause = accepted(task_id="a", principal_ai="alice")
    await alice.post(cause)
    mine = accepted(task_id="b", parent_task_id="a", principal_ai="alice", caused_by_receipt_id=cause["receipt_id"])
    await eve.post(mine)
    chain = (await eve.get(f"/receipts/chain/{mine['receipt_id']}")).json()
    assert [item["receipt_id"] for item in chain["items"]] == [mine["receipt_id"]]
    assert chain["dangling"] == [cause["receipt_id"]]
    assert chain["items"][0]["root_task_id"] == "b"
    assert len((await alice.get(f"/receipts/chain/{cause['receipt_id']}")).json()["items"]) == 1


@pytest.mark.invariant("INV-046")
async def test_a_receipt_for_another_tenant_is_refused_and_not_stored(gate: RunningLedger):
    """A contradiction with the credential is 403, never overwritten; the same tenant may be repeated."""
    alice, eve = gate.peer(), gate.stranger()
    answer = await eve.accepted(task_id="t", tenant_id=str(gate.tenant))
    assert (answer.status_code, answer.json()["code"]) == (403, "TENANT_MISMATCH")
    assert (await alice.get("/receipts/task/t")).json()["items"] == []
    assert (await eve.get("/receipts/task/t")).json()["items"] == []
    assert (await alice.accepted(task_id="t", tenant_id=str(gate.tenant), emitter="alice")).status_code == 201


ARTIFACT = {
    "artifact_pointer": "depot:1", "artifact_location": "http://depot", "artifact_mime": "text/plain",
    "artifact_checksum": "sha256:0", "artifact_size_bytes": 1,
}  # fmt: skip


@pytest.mark.invariant("INV-045")
async def test_nobody_emits_in_anothers_name(gate: RunningLedger):
    """An emitter that is not the credential's principal is 403."""
    answer = await gate.peer("alice").accepted(task_id="t", emitter="bob")
    assert (answer.status_code, answer.json()["code"]) == (403, "EMITTER_MISMATCH")


@pytest.mark.invariant("INV-045", "INV-122", "INV-040")
@pytest.mark.parametrize("role", ROLES)
async def test_the_matrix_holds_at_the_socket(gate: RunningLedger, role: str):
    """Every kind and phase by every role: 201 where the matrix says so, else 403; a custodian's needs custody."""
    peer = gate.witness() if role == "witness" else gate.peer(role, role)
    opener = gate.peer("opener", "delegate")
    for kind in Kind:
        for phase in PHASES[kind]:
            task = f"{kind}-{phase}"
            right = MATRIX[role, kind, phase]
            if kind is Kind.OBLIGATION:
                await opener.accepted(task_id=task, principal_ai=peer.name, recipient_ai=peer.name)
            if kind is Kind.STARTUP and phase != "accepted":
                await gate.witness().post(accepted(kind="startup", task_id=task, principal_ai=peer.name))
            made = {"complete": complete, "escalate": lambda **f: escalate("bob", **f)}.get(phase, accepted)
            body = {**made(task_id=task, principal_ai=peer.name), "kind": kind.value, "phase": phase}
            if kind is Kind.ARTIFACT:
                body |= ARTIFACT
            answer = await peer.post(body)
            expected = 403 if right is Right.NONE else 201
            assert answer.status_code == expected, (kind, phase, answer.text)


@pytest.mark.invariant("INV-080", "INV-045")
@pytest.mark.parametrize("role", [role for role in ROLES if role != "witness"])
async def test_plans_are_a_delegates(gate: RunningLedger, role: str):
    """Only a delegate emits a receipt of type `plan`; runs and approvals it opens, and whoever has custody completes them."""
    delegate, peer = gate.peer("planner", "delegate"), gate.peer(role, role)
    for phase, made in (("accepted", accepted), ("complete", complete), ("escalate", lambda **f: escalate("bob", **f))):
        task = f"plan-{phase}"
        await delegate.accepted(task_id=task, task_type="plan", principal_ai=peer.name, recipient_ai=peer.name)
        answer = await peer.post(made(task_id=task, principal_ai=peer.name, task_type="plan"))
        assert answer.status_code == (201 if role == "delegate" else 403), (phase, answer.text)
    for task_type in ("plan.run", "plan.approval"):
        opened = await peer.accepted(task_id=f"new-{task_type}", task_type=task_type)
        assert opened.status_code == (201 if role == "delegate" else 403), opened.text
        held = {"task_id": task_type, "task_type": task_type, "principal_ai": peer.name}
        assert (await delegate.accepted(**held, recipient_ai=peer.name)).status_code == 201
        assert (await peer.post(complete(**held))).status_code == (403 if role == "observer" else 201)


@pytest.mark.invariant("INV-045")
async def test_a_principal_named_like_a_gate_emits_nothing(gate: RunningLedger):
    """Names that begin with svc: are the gates'; as a recipient such a gate is known."""
    answer = await gate.peer("svc:asyncgate", "delegate").accepted(task_id="t")
    assert (answer.status_code, answer.json()["code"]) == (403, "EMITTER_MISMATCH")
    assert (await gate.peer("alice").accepted(task_id="t", recipient_ai="svc:asyncgate")).status_code == 201


@pytest.mark.invariant("INV-040", "INV-046")
async def test_the_witness_alone_names_another_tenant(gate: RunningLedger):
    """A startup receipt lands in the tenant it names, and its own tenant knows nothing of it (D-34)."""
    witness = gate.peer("metagate", "service", rights=("witness",), tenant=gate.stranger().tenant)
    body = accepted(
        kind="startup", task_id="s", principal_ai="indexer", recipient_ai="indexer", tenant_id=str(gate.tenant)
    )
    assert (await witness.post(body)).status_code == 201
    indexer = gate.peer("indexer", "component")
    assert await indexer.inbox() == []
    assert await indexer.inbox(kind="startup") == ["s"]
    assert (await witness.get("/receipts/task/s")).json()["items"] == []
    # Nobody can take a startup's obligation first: kinds have names of their own.
    assert (await gate.peer().accepted(task_id="s2")).status_code == 201
    body = accepted(kind="startup", task_id="s2", principal_ai="indexer", tenant_id=str(gate.tenant))
    assert (await witness.post(body)).status_code == 201
    closing = complete(kind="startup", task_id="s", principal_ai="indexer", tenant_id=str(gate.tenant))
    assert (await indexer.post(closing)).status_code == 403
    assert (await witness.post(closing)).status_code == 201


@pytest.mark.invariant("INV-057")
async def test_an_inbox_is_its_principals(gate: RunningLedger):
    """Another principal is 403; an observer or admin of the tenant may look; of another tenant only cluster-wide."""
    await gate.peer("alice").accepted(task_id="t")
    for role in ("principal", "worker", "service", "delegate", "component"):
        answer = await gate.peer("bob", role).get("/inbox", principal="alice")
        assert (answer.status_code, answer.json()["code"]) == (403, "ROLE_REQUIRED")
    for role in ("observer", "admin"):
        assert await gate.peer("bob", role).inbox(principal="alice") == ["t"]
        outside = gate.stranger("bob", role)
        assert (await outside.get("/inbox", principal="alice", tenant=str(gate.tenant))).status_code == 403
        cluster = gate.stranger("bob", role, scope="Cluster")
        assert await cluster.inbox(principal="alice", tenant=str(gate.tenant)) == ["t"]
    plain = gate.stranger("bob", "service", scope="Cluster")
    assert (await plain.get("/v1/summary", tenant=str(gate.tenant))).status_code == 403


@pytest.mark.invariant("INV-049")
async def test_no_method_changes_or_deletes_a_receipt(gate: RunningLedger):
    """PUT, PATCH and DELETE are 405 everywhere, and so is POST on what is only read."""
    alice = gate.peer()
    sent = accepted(task_id="t", principal_ai="alice")
    await alice.post(sent)
    for path in (f"/receipts/{sent['receipt_id']}", "/receipts", "/receipts/task/t", "/inbox"):
        for method in ("PUT", "PATCH", "DELETE"):
            answer = await gate.client.request(method, path, headers=alice.headers, json={})
            assert (answer.status_code, answer.json()["code"]) == (405, "METHOD_NOT_ALLOWED"), (method, path)


@pytest.mark.invariant("INV-095")
async def test_looking_on_writes_nothing_and_post_there_is_405(gate: RunningLedger, ledger_database: LedgerDatabase):
    """Health, readiness, metrics, summary and interview, hammered: every table as before; POST on each is 405."""
    alice = gate.peer("alice", "observer")
    paths = ("/health", "/", "/livez", "/readyz", "/metrics", "/v1/summary", "/v1/interview", "/openapi.json")
    before = await contents(ledger_database)
    answers = await asyncio.gather(*(alice.get(path) for path in paths for _ in range(30)))
    assert Counter(answer.status_code for answer in answers) == {200: 240}
    assert {(await alice.post({}, path)).status_code for path in paths} == {405}
    assert await contents(ledger_database) == before


@pytest.mark.invariant("INV-055", "INV-123")
async def test_reading_changes_nothing(gate: RunningLedger, ledger_database: LedgerDatabase):
    """Every GET that the gate documents, and the look-up, twice: all tables are equal, and the inbox is not marked as read."""
    alice = gate.peer()
    sent = accepted(task_id="t", principal_ai="alice")
    await alice.post(sent)
    documented = (await alice.get("/openapi.json")).json()["paths"]
    paths = {
        path.format(task_id="t", receipt_id=sent["receipt_id"]) for path, item in documented.items() if "get" in item
    }
    assert paths >= {"/receipts/root/t", "/v1/receipts", "/receipts/stream"}
    before = await contents(ledger_database)
    for _ in range(2):
        assert await alice.inbox() == ["t"]
        for path in paths - {"/receipts/stream"}:  # which does not end: test_streaming.py
            assert (await alice.get(path)).status_code == 200, path
        looked_up = await alice.post({"obligation_ids": ["t"]}, "/v1/obligations/lookup")
        assert looked_up.json()["items"][0]["state"] == "open"
    assert await contents(ledger_database) == before


@pytest.mark.invariant("INV-049", "INV-056")
async def test_the_gates_role_has_no_right_on_any_table(ledger_database: LedgerDatabase):
    """SELECT, INSERT, UPDATE, DELETE and TRUNCATE fail for it on every table and partition; so does every owner's function."""
    tables = [name for (name,) in await rows(
        ledger_database.superuser,
        "SELECT c.oid::regclass::text FROM pg_class AS c WHERE c.relnamespace = 'memorygate'::regnamespace AND c.relkind IN ('r', 'p')",
    )]  # fmt: skip
    assert len(tables) > len(TABLES)
    connection = await asyncpg.connect(ledger_database.writer)
    try:
        for table in tables:
            for statement in (
                f"SELECT FROM {table}",
                f"INSERT INTO {table} DEFAULT VALUES",
                f"DELETE FROM {table}",
                f"TRUNCATE {table}",
            ):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(statement)
        for view in ("derived_task", "derived_obligation", "derived_tally"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(f"SELECT FROM memorygate.{view}")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("UPDATE memorygate.receipt SET body = ''")
        for function in ("rebuild()", "prepare_partitions(1)", "drifted(1)"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(f"SELECT memorygate.{function}")
    finally:
        await connection.close()
    [(logins,)] = await rows(
        ledger_database.superuser, "SELECT rolcanlogin FROM pg_roles WHERE rolname = 'memorygate_owner'"
    )
    assert not logins


@pytest.mark.invariant("INV-059", "INV-123")
async def test_nothing_acts_on_what_a_receipt_asks_for(gate: RunningLedger):
    """A body that begs for action is stored and nothing else: no connection leaves the process, no path acts."""
    alice = gate.peer()
    begging = {
        "please": "act",
        "url": "http://127.0.0.1:1/run",
        "command": ["rm"],
        "deadline_at": "2020-01-01T00:00:00Z",
    }
    opened: list[object] = []
    loop = asyncio.get_running_loop()
    connect = loop.create_connection

    async def spied(*args, **kwargs):
        opened.append(args)
        return await connect(*args, **kwargs)

    loop.create_connection = spied  # type: ignore[method-assign]
    try:
        assert (await alice.accepted(task_id="t", body=begging, metadata=begging)).status_code == 201
        for item in (await alice.get("/inbox")).json()["items"]:
            assert item["receipt"]["body"] == begging
    finally:
        loop.create_connection = connect  # type: ignore[method-assign]
    assert opened == []
    paths = (await alice.get("/openapi.json")).json()["paths"]
    acting = {path for path, methods in paths.items() if set(methods) - {"get"}}
    assert acting == {"/receipts", "/receipts/batch", "/v1/obligations/lookup"}


@pytest.mark.invariant("INV-060")
async def test_a_deadline_that_passes_changes_nobodys_custody(gate: RunningLedger):
    """An overdue obligation is counted as such and stays where it is."""
    alice = gate.peer()
    await alice.accepted(task_id="t", metadata={"deadline_at": "2020-01-01T00:00:00Z"})
    assert (await alice.get("/v1/summary")).json()["overdue"] == 1
    assert await alice.inbox() == ["t"]
    assert (await alice.get("/v1/summary")).json()["obligations"]["open"] == 1


async def test_a_suspended_principal_is_refused_after_its_body_was_judged(gate: RunningLedger):
    """422 for a bad body, 403 for a good one (D-42)."""
    peer = gate.peer(suspended=True)
    assert (await peer.post({"phase": "x"})).status_code == 422
    answer = await peer.accepted(task_id="t")
    assert (answer.status_code, answer.json()["code"]) == (403, "PRINCIPAL_SUSPENDED")


@pytest.mark.invariant("INV-047")
async def test_without_a_credential_nothing_is_said(gate: RunningLedger):
    """Every path that needs somebody is 401, before the body is looked at."""
    for path in ("/receipts/x", "/receipts/task/x", "/receipts/chain/x", "/inbox", "/v1/summary", "/receipts/stream"):
        assert (await gate.client.get(path)).status_code == 401, path
    for path in ("/receipts", "/receipts/batch"):
        assert (await gate.client.post(path, content=b"{")).status_code == 401, path


async def test_a_batch_answers_each_by_itself(gate: RunningLedger):
    """Stored, replayed, refused by rule, by right and by custody, in one transaction and in order."""
    alice = gate.peer()
    first = accepted(task_id="t", principal_ai="alice")
    answer = await alice.post({"receipts": [
        first, complete(task_id="t", principal_ai="alice"), first, {"phase": "accepted"}, {**first, "task_id": "other"},
        complete(task_id="t", principal_ai="alice"), {**accepted(task_id="x", principal_ai="alice"), "kind": "startup"}, 7,
    ]}, "/receipts/batch")  # fmt: skip
    assert answer.status_code == 200
    output = [(item["status"], item.get("code")) for item in answer.json()["items"]]
    assert output == [
        (201, None), (201, None), (200, None), (422, "INVALID_RECEIPT"), (409, "RECEIPT_CONFLICT"),
        (409, "OBLIGATION_ALREADY_TERMINATED"), (403, "MAY_NOT_EMIT"), (422, "INVALID_RECEIPT"),
    ]  # fmt: skip
    assert len((await alice.get("/receipts/task/t")).json()["items"]) == 2


async def test_bodies_are_bounded(gate: RunningLedger):
    """Over the body limit 413, over a field's limit 422 naming it, an embedded artifact 422; nothing stored."""
    alice = gate.peer()
    assert (await alice.accepted(task_id="t", task_body="x" * 600_000)).status_code == 413
    answer = await alice.accepted(task_id="t", inputs="x" * 70_000)
    assert (answer.status_code, answer.json()["detail"]) == (422, "inputs must not be larger than 65536 bytes")
    assert (await alice.get("/receipts/task/t")).json()["items"] == []
    raw = json.dumps(accepted(task_id="t", principal_ai="alice"))[:-1] + ',"phase":"accepted"}'
    twice = await gate.client.post(
        "/receipts", content=raw, headers={**alice.headers, "content-type": "application/json"}
    )
    assert (twice.status_code, twice.json()["code"]) == (400, "MALFORMED_JSON")
