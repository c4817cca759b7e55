"""Every rule of a decision in the ledger, or of the cases of a file, as `interrogate explain` shows them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from interrogate.admission_receipt import RecordedAdmission, differences, read_admission
from interrogate.decide import decide, explain
from interrogate.decision import Decision, RuleResult
from interrogate.policy_cases import read_cases
from interrogate.ruleset import Ruleset
from legivellum.postgres.connecting import connect
from legivellum.postgres.driver import translated


@dataclass(frozen=True, slots=True)
class ExplainedDecision:
    """`same`: whether the same rules and observations give the recorded decision again."""

    name: str
    decision: Decision
    rules: list[RuleResult]
    same: bool = True

    def lines(self) -> Iterator[str]:
        """One line for the decision, one for each rule."""
        reason = "" if self.decision.reason_code is None else f" {self.decision.reason_code}: {self.decision.detail}"
        yield f"{self.name}: {self.decision.outcome}{reason}"
        for rule in self.rules:
            passed = {True: "passed", False: "FAILED", None: "-"}[rule.passed]
            compared = _compared("limit", rule.limit) + _compared("observed", rule.observed)
            yield f"  {rule.rule:>2} {rule.reason_code:<22} {passed:<7}{compared}".rstrip()
        if not self.same:
            yield "  decided again it is another decision than the recorded one"


def _compared(name: str, value: Any) -> str:
    return "" if value is None else f" {name} {json.dumps(value, ensure_ascii=False, default=str)}"


def explain_file(path: Path) -> list[ExplainedDecision]:
    """The cases of a file of `interrogate test`. Raises CasesUnreadable, OSError."""
    ruleset, cases = read_cases(path.read_text(encoding="utf-8"), str(path))
    return [
        ExplainedDecision(
            case.name,
            decide(case.envelope, case.requester, ruleset, case.observed),
            explain(case.envelope, case.requester, ruleset, case.observed),
        )
        for case in cases
    ]


@translated
async def explain_receipt(dsn: str, receipt_id: str) -> list[ExplainedDecision]:
    """The decisions of this receipt id, of every tenant that has one; as the role `memorygate_auditor`.

    Raises Unavailable, SchemaMismatch.
    """
    connection = await connect(dsn, seconds=10, server_settings={"application_name": "interrogate explain"})
    try:
        rows = await connection.fetch(
            "SELECT tenant, body FROM memorygate.receipt WHERE receipt_id = $1 AND kind = 'admission' "
            "AND phase IN ('accepted', 'rejected') ORDER BY tenant",
            receipt_id,
        )
        return [await _explained(connection, str(row["tenant"]), read_admission(row["body"])) for row in rows]
    finally:
        await connection.close(timeout=5)


async def _explained(connection: asyncpg.Connection, tenant: str, recorded: RecordedAdmission) -> ExplainedDecision:
    case = (recorded.envelope, recorded.requester, await _ruleset_of(connection, recorded), recorded.observed)
    again = decide(*case, rule_results=recorded.rule_results)
    rules = explain(*case, rule_results=recorded.rule_results)
    name = f"receipt {recorded.receipt_id} of tenant {tenant}"
    return ExplainedDecision(name, recorded.decision, rules, same=not differences(recorded.decision, again))


async def _ruleset_of(connection: asyncpg.Connection, recorded: RecordedAdmission) -> Ruleset | None:
    """The rules under which it was decided; None: the tenant had no such profile."""
    if recorded.policy_hash is None:
        return None
    body = await connection.fetchval(
        "SELECT body FROM interrogate.ruleset WHERE policy_hash = $1", recorded.policy_hash
    )
    return Ruleset.from_policy(
        json.loads(body),
        profile=recorded.envelope.policy_profile_id,
        policy_hash=recorded.policy_hash,
        revision=recorded.policy_revision,
    )
