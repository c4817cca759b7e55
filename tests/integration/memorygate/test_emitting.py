"""Other gates emit in their own transactions: what they may, how a batch is judged, and that state and receipt are one commit."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
import pytest_asyncio
from tests.integration.memorygate.conftest import LedgerDatabase, new_id, rows

from legivellum.receipts.receipt import Receipt, examine
from legivellum.receipts.rights import PHASES, Kind
from legivellum.receipts.templates import placeholders, template_of
from memorygate.schema import EMITTING_ROLES, OWNER
from memorygate.verifying import verify

DOCS = Path(__file__).parents[3] / "docs" / "memorygate"
GATES = {"interrogate": "svc:interrogate", "asyncgate": "svc:asyncgate", "depotgate": "svc:depotgate"}
ALLOWED = {
    "interrogate": {("admission", phase) for phase in PHASES[Kind.ADMISSION]},
    "asyncgate": {("obligation", phase) for phase in PHASES[Kind.OBLIGATION]}
    | {("lifecycle", phase) for phase in PHASES[Kind.LIFECYCLE] if phase != "published"},
    "depotgate": {("artifact", phase) for phase in PHASES[Kind.ARTIFACT]},
}
ENDED = {"status": "success", "outcome_kind": "none", "completed_at": "2027-01-01T00:00:00Z"}
ESCALATED = {"escalation_class": "other", "escalation_reason": "too often", "escalation_to": "alice"}
ARTIFACT = {
    "artifact_pointer": "depot:1", "artifact_location": "http://depot", "artifact_mime": "text/plain",
    "artifact_checksum": "sha256:0", "artifact_size_bytes": 1,
}  # fmt: skip


def canonical_body(tenant: UUID, emitter: str, **fields: Any) -> str:
    """A receipt as a gate's own Python writes it."""
    receipt = examine(
        {"receipt_id": new_id(), "task_id": "t", "principal_ai": "alice", **fields}, tenant=str(tenant), emitter=emitter
    )
    assert isinstance(receipt, Receipt), receipt
    return receipt.form.decode()


def body_of(tenant: UUID, emitter: str, kind: str, phase: str, **fields: Any) -> str:
    """With what the phase needs."""
    needs: dict[str, Any] = {"complete": ENDED, "escalate": ESCALATED, "stored": ARTIFACT, "retired": ARTIFACT}.get(
        phase, {}
    )
    return canonical_body(tenant, emitter, kind=kind, phase=phase, **{**needs, **fields})


class GateSession:
    """A connection that acts as the owner role of one gate."""

    def __init__(self, connection: asyncpg.Connection, gate: str) -> None:
        self.connection = connection
        self.gate = gate
        self.emitter = GATES[gate]

    async def emit(self, *bodies: str, groups: list[int | None] | None = None) -> list[str]:
        """The outcomes, in the order of the bodies."""
        return [row["outcome"] for row in await self.answers(*bodies, groups=groups)]

    async def answers(self, *bodies: str, groups: list[int | None] | None = None) -> list[asyncpg.Record]:
        answer = await self.connection.fetch(
            f"SELECT * FROM memorygate.emit_{self.gate}($1, $2) ORDER BY ordinal", list(bodies), groups
        )
        assert [row["ordinal"] for row in answer] == list(range(1, len(bodies) + 1))
        return list(answer)


async def session_of(database: LedgerDatabase, gate: str) -> GateSession:
    connection = await asyncpg.connect(database.superuser)
    await connection.execute(f"SET ROLE {gate}_owner")
    return GateSession(connection, gate)


@pytest_asyncio.fixture(loop_scope="session")
async def asyncgate(ledger_database: LedgerDatabase) -> AsyncIterator[GateSession]:
    session = await session_of(ledger_database, "asyncgate")
    yield session
    await session.connection.close()


async def mint(database: LedgerDatabase, tenant: UUID, *names: str, recipient: str = "svc:asyncgate") -> None:
    """Obligations of alice's, opened by a delegate as over HTTP, in somebody's custody."""
    connection = await asyncpg.connect(database.superuser)
    try:
        for name in names:
            body = body_of(
                tenant, "planner", "obligation", "accepted", task_id=name, obligation_id=name, recipient_ai=recipient
            )
            fields = json.loads(body)
            await connection.execute(
                """SELECT * FROM memorygate.append(ARRAY[$1::uuid], ARRAY[$2], '{obligation}', '{accepted}', '{open-for-others}',
                   '{planner}', ARRAY[$3], '{""}', ARRAY[$3], '{alice}', ARRAY[$4], '{NA}', '{""}', '{""}', '{""}', '{""}',
                   ARRAY[$5], ARRAY[sha256(convert_to($5, 'UTF8'))], '{""}')""",
                tenant, fields["receipt_id"], name, recipient, body,
            )  # fmt: skip
    finally:
        await connection.close()


async def stored(database: LedgerDatabase, tenant: UUID) -> list[tuple[str, str]]:
    result = await rows(
        database.superuser, "SELECT kind, phase FROM memorygate.receipt WHERE tenant = $1 ORDER BY stored_at", tenant
    )
    return [(kind, phase) for kind, phase in result]


@pytest.mark.invariant("INV-069", "INV-049")
@pytest.mark.parametrize("gate", GATES)
async def test_a_gate_emits_its_kinds_and_phases_and_no_others(ledger_database: LedgerDatabase, gate: str):
    """Every kind and phase there is, under the gate's own name and under two others: stored, or refused as a row."""
    tenant = uuid4()
    await mint(ledger_database, tenant, "complete", "escalate", "accepted")
    session = await session_of(ledger_database, gate)
    try:
        for kind in Kind:
            for phase in PHASES[kind]:
                custodial = {"obligation_id": phase, "task_id": phase} if kind is Kind.OBLIGATION else {}
                answers = [
                    await session.emit(body_of(tenant, emitter, kind, phase, **custodial))
                    for emitter in (session.emitter, "alice", "svc:other")
                ]
                own = ["STORED"] if (kind.value, phase) in ALLOWED[gate] else ["MAY_NOT_EMIT"]
                assert answers == [own, ["EMITTER_MISMATCH"], ["EMITTER_MISMATCH"]], (kind, phase)
    finally:
        await session.connection.close()
    assert set(await stored(ledger_database, tenant)) - {("obligation", "accepted")} == ALLOWED[gate] - {
        ("obligation", "accepted")
    }
    assert (await verify(ledger_database.auditor)).bad is None


@pytest.mark.invariant("INV-069", "INV-056")
async def test_the_documented_rights_are_the_rights(ledger_database: LedgerDatabase):
    """docs/memorygate/gates.md, cell by cell; no gate's role may call another function or touch a table."""
    text = (DOCS / "gates.md").read_text(encoding="utf-8").partition("## Who may call what")[2].partition("## What")[0]
    heads, *lines = [re.findall(r"[^|]+", line) for line in text.splitlines() if line.startswith("|")]
    roles = [head.strip(" `") for head in heads[1:]]
    documented = {
        (role, re.sub(r"\W.*", "", line[0].strip(" `"))): cell.strip() == "yes"
        for line in lines[1:]
        for role, cell in zip(roles, line[1:], strict=True)
    }
    granted = {
        (role, name): may
        for role, name, may in await rows(
            ledger_database.superuser,
            """SELECT r.rolname::text, p.proname::text, bool_or(has_function_privilege(r.oid, p.oid, 'EXECUTE'))
               FROM pg_roles AS r CROSS JOIN pg_proc AS p
               WHERE p.pronamespace = 'memorygate'::regnamespace AND r.rolname = ANY ($1) GROUP BY 1, 2""",
            roles,
        )
    }
    assert {key: granted[key] for key in documented} == documented
    named = {name for _, name in documented}
    assert [key for key, may in granted.items() if may and key[0] in EMITTING_ROLES and key[1] not in named] == []
    tables = await rows(
        ledger_database.superuser,
        """SELECT r.rolname::text, c.relname::text FROM pg_roles AS r CROSS JOIN pg_class AS c
           WHERE c.relnamespace = 'memorygate'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND r.rolname = ANY ($1)
             AND has_table_privilege(r.oid, c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE')""",
        list(EMITTING_ROLES),
    )
    assert tables == []


async def test_a_gates_owner_cannot_log_in_nor_become_the_ledgers(ledger_database: LedgerDatabase):
    """The roles exist without LOGIN, and none is a member of the ledger's owner."""
    result = await rows(
        ledger_database.superuser,
        "SELECT rolname::text, rolcanlogin, pg_has_role(oid, $2, 'MEMBER') FROM pg_roles WHERE rolname = ANY ($1)",
        list(EMITTING_ROLES), OWNER,
    )  # fmt: skip
    assert sorted(result) == sorted((role, False, False) for role in EMITTING_ROLES)


NOT_RECEIPTS = {
    "no JSON": lambda body: "{",
    "an array": lambda body: "[]",
    "empty": lambda body: "",
    "no text": lambda body: "\x1e",
    "a field is missing": lambda body: json.dumps(
        {name: value for name, value in json.loads(body).items() if name != "task_id"}, separators=(",", ":")
    ),
    "a name is a number": lambda body: body.replace('"task_id":"t"', '"task_id":7'),
    "a name is an object": lambda body: body.replace('"task_id":"t"', '"task_id":{}'),
    "white space between members": lambda body: body.replace(',"task_id"', ', "task_id"'),
    "members in another order": lambda body: "{" + '"task_id":"t",' + body[1:].replace(',"task_id":"t"', ""),
    "a member twice": lambda body: body.replace(',"task_id":"t"', ',"task_id":"t","task_id":"t"'),
    "an id in lower case": lambda body: re.sub(r'"receipt_id":"\w+"', lambda m: m[0].lower(), body),
    "a tenant that is none": lambda body: re.sub(r'"tenant_id":"[\w-]+"', '"tenant_id":"team"', body),
    "a tenant in upper case": lambda body: re.sub(
        r'"tenant_id":"[\w-]+"', '"tenant_id":"ABCDEF00-0000-4000-8000-000000000000"', body
    ),
    "a name that is too long": lambda body: body.replace('"task_id":"t"', f'"task_id":"{"t" * 201}"'),
    "a blank name": lambda body: body.replace('"task_id":"t"', '"task_id":""'),
    "NUL in a value": lambda body: body.replace('"alice"', '"ali\\u0000ce"'),
    "half of a surrogate pair": lambda body: body.replace('"metadata":{}', '"metadata":{"x":"\\ud800"}'),
}


@pytest.mark.invariant("INV-050")
@pytest.mark.parametrize("fault", NOT_RECEIPTS)
async def test_what_is_no_canonical_receipt_is_a_row_and_spoils_nothing(
    ledger_database: LedgerDatabase, asyncgate: GateSession, fault: str
):
    """Between two good ones: those are stored, it is refused, and the ledger verifies afterwards."""
    tenant = uuid4()
    good, bad, also_good = (body_of(tenant, "svc:asyncgate", "lifecycle", "queued") for _ in range(3))
    bad = NOT_RECEIPTS[fault](bad)
    assert await asyncgate.emit(good, bad, also_good) == ["STORED", "INVALID_RECEIPT", "STORED"]
    assert await stored(ledger_database, tenant) == [("lifecycle", "queued")] * 2


@pytest.mark.invariant("INV-069", "INV-049")
async def test_an_obligation_is_acknowledged_moved_and_closed_only_by_its_custodian(
    ledger_database: LedgerDatabase, asyncgate: GateSession
):
    """What nobody opened, what somebody else holds, what is over: refused; its own: stored, and custody follows."""
    tenant = uuid4()
    await mint(ledger_database, tenant, "a", "b")
    await mint(ledger_database, tenant, "hers", recipient="bob")

    def body(phase: str, name: str, **more: Any) -> str:
        return body_of(tenant, "svc:asyncgate", "obligation", phase, task_id=name, obligation_id=name, **more)

    assert await asyncgate.emit(body("accepted", "new")) == ["MAY_NOT_OPEN"]
    assert await asyncgate.emit(body("complete", "new")) == ["OBLIGATION_NOT_ACCEPTED"]
    assert await asyncgate.emit(body("complete", "hers")) == ["NOT_CUSTODIAN"]
    assert await asyncgate.emit(body("accepted", "a"), body("complete", "a"), body("complete", "a")) == [
        "STORED", "STORED", "OBLIGATION_ALREADY_TERMINATED",
    ]  # fmt: skip
    assert await asyncgate.emit(body("escalate", "b"), body("complete", "b")) == ["STORED", "NOT_CUSTODIAN"]
    assert await asyncgate.emit(body("complete", "hers", principal_ai="carol")) == ["NOT_CUSTODIAN"]
    custody = await asyncgate.connection.fetch(
        "SELECT ordinal, state, custodian, principal_ai, task_id, root_task_id, opened_by IS NOT NULL, closed_by IS NOT NULL "
        "FROM memorygate.custody($1, $2) ORDER BY ordinal",
        [tenant] * 4, ["a", "b", "hers", "new"],
    )  # fmt: skip
    assert [tuple(row) for row in custody] == [
        (1, "success", "svc:asyncgate", "alice", "a", "a", True, True),
        (2, "open", "alice", "alice", "b", "b", True, False),
        (3, "open", "bob", "alice", "hers", "hers", True, False),
        (4, None, None, None, None, None, False, False),
    ]


async def test_the_custody_of_another_tenant_is_unknown(ledger_database: LedgerDatabase, asyncgate: GateSession):
    """The same name in another tenant is another obligation, which nobody opened."""
    tenant = uuid4()
    await mint(ledger_database, tenant, "a")
    [row] = await asyncgate.connection.fetch("SELECT * FROM memorygate.custody($1, $2)", [uuid4()], ["a"])
    assert (row["ordinal"], row["state"]) == (1, None)


async def test_a_recipient_that_is_no_gate_is_refused_and_a_gate_is_not(
    ledger_database: LedgerDatabase, asyncgate: GateSession
):
    """D-71 as far as the database can know it: names that begin with svc: are the gates' own."""
    tenant = uuid4()
    await mint(ledger_database, tenant, "a", "b")

    def escalated(name: str, target: str) -> str:
        return body_of(
            tenant, "svc:asyncgate", "obligation", "escalate", task_id=name, obligation_id=name, escalation_to=target
        )

    assert await asyncgate.emit(escalated("a", "svc:nobody")) == ["RECIPIENT_UNKNOWN"]
    assert await asyncgate.emit(escalated("b", "svc:interrogate")) == ["STORED"]


async def test_which_root_a_task_hangs_under(ledger_database: LedgerDatabase, asyncgate: GateSession):
    """Settled at first sight; a task nobody mentioned has none."""
    tenant = uuid4()
    assert await asyncgate.emit(
        body_of(tenant, "svc:asyncgate", "lifecycle", "queued", task_id="child", parent_task_id="parent"),
        body_of(tenant, "svc:asyncgate", "lifecycle", "queued", task_id="grandchild", parent_task_id="child"),
    ) == ["STORED", "STORED"]
    rows = await asyncgate.connection.fetch(
        "SELECT * FROM memorygate.roots($1, $2) ORDER BY ordinal", [tenant] * 3, ["child", "grandchild", "unknown"]
    )
    assert [row["root_task_id"] for row in rows] == ["child", "child", None]


@pytest.mark.invariant("INV-118")
async def test_an_admission_that_ends_or_escalates_moves_no_custody(ledger_database: LedgerDatabase):
    """InterroGate tells what became of a call; the obligation of the same name stays where it is."""
    tenant = uuid4()
    await mint(ledger_database, tenant, "t", recipient="bob")
    session = await session_of(ledger_database, "interrogate")
    try:
        bodies = [body_of(tenant, "svc:interrogate", "admission", phase) for phase in PHASES[Kind.ADMISSION]]
        assert await session.emit(*bodies) == ["STORED"] * 4
        [row] = await session.connection.fetch("SELECT * FROM memorygate.custody($1, $2)", [tenant], ["t"])
        assert (row["state"], row["custodian"]) == ("open", "bob")
    finally:
        await session.connection.close()


async def test_a_group_stands_or_falls_together(ledger_database: LedgerDatabase, asyncgate: GateSession):
    """A refused acknowledgement leaves no `queued`; another group and what is in none are not touched."""
    tenant = uuid4()
    await mint(ledger_database, tenant, "open", "also-open")

    def pair(name: str) -> list[str]:
        return [
            body_of(tenant, "svc:asyncgate", "obligation", "accepted", task_id=name, obligation_id=name),
            body_of(tenant, "svc:asyncgate", "lifecycle", "queued", task_id=name),
        ]

    outcomes = await asyncgate.emit(
        *pair("open"), *pair("unknown"), *pair("also-open"),
        body_of(tenant, "svc:asyncgate", "lifecycle", "expired", task_id="open"),
        groups=[1, 1, 2, 2, 3, 3, None],
    )  # fmt: skip
    assert outcomes == ["STORED", "STORED", "MAY_NOT_OPEN", "GROUP_REFUSED", "STORED", "STORED", "STORED"]
    tasks = await rows(
        ledger_database.superuser,
        "SELECT task_id, count(*) FROM memorygate.receipt WHERE tenant = $1 GROUP BY 1 ORDER BY 1", tenant,
    )  # fmt: skip
    assert tasks == [("also-open", 3), ("open", 4)]
    assert (await verify(ledger_database.auditor)).bad is None


async def test_what_a_group_stored_before_its_refusal_is_undone(
    ledger_database: LedgerDatabase, asyncgate: GateSession
):
    """A later row of the same obligation is refused: the earlier ones go, and what built on them falls with them."""
    tenant = uuid4()
    await mint(ledger_database, tenant, "a", "b")

    def body(phase: str, name: str) -> str:
        return body_of(tenant, "svc:asyncgate", "obligation", phase, task_id=name, obligation_id=name)

    outcomes = await asyncgate.emit(
        body("complete", "a"), body("complete", "a"),  # the second finds it closed by the first
        body("accepted", "b"), body("complete", "b"),
        groups=[1, 1, 2, 2],
    )  # fmt: skip
    assert outcomes == ["GROUP_REFUSED", "OBLIGATION_ALREADY_TERMINATED", "STORED", "STORED"]
    custody = await asyncgate.connection.fetch(
        "SELECT state FROM memorygate.custody($1, $2) ORDER BY ordinal", [tenant] * 2, ["a", "b"]
    )
    assert [row["state"] for row in custody] == ["open", "success"]
    # All of one group, one of them malformed: nothing of it is stored.
    outcomes = await asyncgate.emit(body("accepted", "a"), "{", body("complete", "a"), groups=[7, 7, 7])
    assert outcomes == ["GROUP_REFUSED", "INVALID_RECEIPT", "GROUP_REFUSED"]
    [[open_count]] = await rows(
        ledger_database.superuser,
        "SELECT obligations - succeeded FROM memorygate.derived_tally WHERE tenant = $1", tenant,
    )  # fmt: skip
    assert open_count == 1
    assert (await verify(ledger_database.auditor)).bad is None


async def test_the_same_batch_again_is_a_replay(ledger_database: LedgerDatabase, asyncgate: GateSession):
    """After an answer that was lost: the same times and places, in groups as well, and nothing twice."""
    tenant = uuid4()
    bodies = [body_of(tenant, "svc:asyncgate", "lifecycle", phase) for phase in ("queued", "lease_issued")]
    first = await asyncgate.answers(*bodies, groups=[1, 1])
    again = await asyncgate.answers(*bodies, groups=[1, 1])
    assert [row["outcome"] for row in again] == ["REPLAYED", "REPLAYED"]
    assert [row["stored_at"] for row in again] == [row["stored_at"] for row in first]
    assert len(await stored(ledger_database, tenant)) == 2


async def test_a_transaction_emits_once(ledger_database: LedgerDatabase, asyncgate: GateSession):
    """A second call is an error; after a savepoint that was rolled back, or in the next transaction, it is not."""
    tenant = uuid4()

    def body() -> str:
        return body_of(tenant, "svc:asyncgate", "lifecycle", "queued")

    transaction = asyncgate.connection.transaction()
    await transaction.start()
    await asyncgate.emit(body())
    with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError):
        await asyncgate.emit(body())
    await transaction.rollback()
    assert await stored(ledger_database, tenant) == []
    async with asyncgate.connection.transaction():
        savepoint = asyncgate.connection.transaction()
        await savepoint.start()
        await asyncgate.emit(body())
        await savepoint.rollback()
        await asyncgate.emit(body())
    assert len(await stored(ledger_database, tenant)) == 1
    assert await asyncgate.emit() == []


@pytest.mark.invariant("INV-120", "INV-121")
async def test_a_gates_row_and_its_receipt_are_one_commit(fresh_ledger: LedgerDatabase):
    """A function of the gate's owner changes its row and emits: both or, rolled back, neither; a stranger may not call it so."""
    connection = await asyncpg.connect(fresh_ledger.superuser)
    try:
        await connection.execute("""
            CREATE SCHEMA depotgate AUTHORIZATION depotgate_owner;
            SET ROLE depotgate_owner;
            CREATE TABLE depotgate.kept (name text PRIMARY KEY);
            CREATE FUNCTION depotgate.keep(name text, body text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER
            SET search_path = depotgate, pg_catalog, pg_temp AS $$
            BEGIN
                INSERT INTO kept VALUES (name);
                RETURN (SELECT outcome FROM memorygate.emit_depotgate(ARRAY[body], NULL));
            END
            $$;
            RESET ROLE;
        """)
        tenant = uuid4()
        body = body_of(tenant, "svc:depotgate", "artifact", "stored")
        transaction = connection.transaction()
        await transaction.start()
        assert await connection.fetchval("SELECT depotgate.keep('a', $1)", body) == "STORED"
        await transaction.rollback()
        assert await connection.fetchval("SELECT count(*) FROM depotgate.kept") == 0
        assert await stored(fresh_ledger, tenant) == []
        assert await connection.fetchval("SELECT depotgate.keep('a', $1)", body) == "STORED"
        assert await connection.fetchval("SELECT count(*) FROM depotgate.kept") == 1
        assert await stored(fresh_ledger, tenant) == [("artifact", "stored")]
        writer = await asyncpg.connect(fresh_ledger.writer)
        try:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await writer.execute("SELECT * FROM memorygate.emit_depotgate(ARRAY[$1], NULL)", body)
        finally:
            await writer.close()
    finally:
        await connection.close()


AWKWARD = [
    "plain",
    'say "hello"',
    "back\\slash",
    "line\u2028separator",
    "ünïcödé 🙂",
    "tab\tand\nnewline",
    "\x7f\x1f",
    "'; --",
]


@pytest.mark.parametrize("name", AWKWARD)
async def test_a_filled_template_is_the_canonical_form(
    ledger_database: LedgerDatabase, asyncgate: GateSession, name: str
):
    """Marks replaced by SQL give byte for byte what the kit writes for the same values."""
    tenant = uuid4()
    unknown = placeholders(R=new_id(), V="sample", N=1)
    sent = {
        "kind": "lifecycle", "phase": "lease_issued", "task_id": "t", "principal_ai": "alice",
        "receipt_id": unknown["R"], "attempt": unknown["N"], "body": {"holder": unknown["V"], "sent": ["\x1eV", name]},
    }  # fmt: skip
    template = template_of(sent, tenant=str(tenant), emitter="svc:asyncgate")
    assert isinstance(template, str), template
    receipt_id = new_id()
    body = await asyncgate.connection.fetchval(
        r"SELECT replace(replace(replace($1, E'\x1eR', to_json($2::text)::text), E'\x1eN', to_json($3::int)::text), "
        r"E'\x1eV', to_json($4::text)::text)",
        template, receipt_id, 7, name,
    )  # fmt: skip
    known = {**sent, "receipt_id": receipt_id, "attempt": 7, "body": {"holder": name, "sent": ["\x1eV", name]}}
    expected = examine(known, tenant=str(tenant), emitter="svc:asyncgate")
    assert isinstance(expected, Receipt), expected
    assert body == expected.form.decode()
    assert await asyncgate.emit(body) == ["STORED"]


@pytest.mark.invariant("INV-058")
async def test_gates_emit_beside_each_other_without_a_deadlock(ledger_database: LedgerDatabase):
    """Eight sessions, the same roots in shuffled order, groups that fall and groups that stand: every row has an outcome."""
    tenant = uuid4()
    names = [f"o{number}" for number in range(40)]
    await mint(ledger_database, tenant, *names)
    sessions = [await session_of(ledger_database, "asyncgate") for _ in range(8)]

    async def work(session: GateSession, seed: int) -> list[str]:
        outcomes: list[str] = []
        for turn in range(10):
            chosen = [names[(seed * 7 + turn * 11 + step * 13) % 40] for step in range(4)]
            bodies = [
                body
                for name in dict.fromkeys(chosen)
                for body in (
                    body_of(tenant, "svc:asyncgate", "obligation", "complete", task_id=name, obligation_id=name),
                    body_of(tenant, "svc:asyncgate", "lifecycle", "queued", task_id=name),
                )
            ]
            outcomes += await session.emit(*bodies, groups=[number // 2 for number in range(len(bodies))])
        return outcomes

    try:
        outcomes = await asyncio.gather(*(work(session, seed) for seed, session in enumerate(sessions)))
    finally:
        for session in sessions:
            await session.connection.close()
    counted = [outcome for item in outcomes for outcome in item]
    assert set(counted) == {"STORED", "OBLIGATION_ALREADY_TERMINATED", "GROUP_REFUSED"}
    [(closed,)] = await rows(
        ledger_database.superuser,
        "SELECT count(*) FROM memorygate.obligation WHERE tenant = $1 AND state = 'success'", tenant,
    )  # fmt: skip
    assert counted.count("STORED") == closed * 2
    assert counted.count("GROUP_REFUSED") == counted.count("OBLIGATION_ALREADY_TERMINATED")
    assert (await verify(ledger_database.auditor)).bad is None
