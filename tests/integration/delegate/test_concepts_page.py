"""Each receipt that docs/concepts.md shows is in the ledger after a story like the page's, or is what MetaGate sends."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml
from tests.integration.delegate.driving import admitted, closed, lease_next, run_task
from tests.integration.delegate.gate_fixture import PlanTenant

from metagate_operator.ledger.witness_receipts import receipt_of
from metagate_store.rows import OutboxRow

PAGE = Path(__file__).resolve().parents[3] / "docs" / "concepts.md"
SECTION = re.compile(r"^## (\w+)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
WORDS = [
    "Principal", "Profile", "Manifest", "Binding", "Policy", "Receipt", "Obligation", "Custody", "Cause", "Lease", "Plan",
    "Admission",
]  # fmt: skip
ANY = "…"


def sections() -> dict[str, tuple[str, dict[str, Any]]]:
    """Of each word what is said about it, and the receipt that is shown."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for word, text in SECTION.findall(PAGE.read_text(encoding="utf-8")):
        said, _, rest = text.partition("```yaml\n")
        found[word] = (" ".join(said.split()), yaml.safe_load(rest.partition("```")[0]))
    return found


def shows(shown: Any, receipt: Any) -> bool:
    """Whether the receipt has all that is shown of it; `…` is any value that is there."""
    if isinstance(shown, dict):
        return isinstance(receipt, dict) and all(shows(value, receipt.get(name)) for name, value in shown.items())
    return receipt is not None if shown == ANY else bool(shown == receipt)


def named(value: Any, plan_id: str) -> Any:
    """With the page's P for the plan's id."""
    if isinstance(value, dict):
        return {name: named(inner, plan_id) for name, inner in value.items()}
    return value.replace(plan_id, "P") if isinstance(value, str) else value


def startup_receipts() -> Iterator[dict[str, Any]]:
    """Of a component that booted and became ready, as the relay sends them."""
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    body = {
        "principal_key": "indexer", "component_key": "indexer-0", "digest": "0" * 64, "report": {},
        **dict.fromkeys(("opened_at", "deadline_at", "acknowledged_at"), moment.isoformat()),
    }  # fmt: skip
    for number, event in enumerate(("OPEN", "READY")):
        row = OutboxRow(number, UUID(int=1), event, UUID(int=2), 7, body, moment, 0)
        yield receipt_of(row)


def test_every_word_has_three_sentences_and_a_receipt() -> None:
    found = sections()
    assert list(found) == WORDS
    for word, (said, receipt) in found.items():
        assert len(re.findall(r"[.](?= [A-Z`]|$)", said)) == 3, (word, said)
        assert receipt["kind"], word


@pytest.mark.asyncio(loop_scope="session")
async def test_every_receipt_of_the_page_is_one_of_such_a_story(tenant: PlanTenant) -> None:
    plan = await admitted(tenant, "document.review", {"documents": ["s3://in/one", "s3://in/two"]})
    for capability in ("document.summarise", "document.summarise", "document.merge"):
        await run_task(tenant, capability)
    close = await lease_next(tenant, "plan.close")
    await closed(tenant, plan["plan_id"], "admitting")
    await run_task(tenant, lease=close)
    receipts = [named(receipt, plan["plan_id"]) for receipt in await tenant.receipts()] + list(startup_receipts())
    for word, (_, shown) in sections().items():
        assert any(shows(shown, receipt) for receipt in receipts), word
