"""What a Principal may be named: the ledger has to be able to write its name down."""

import pytest
from tests.unit.crds.worlds import (
    PRINCIPAL,
    compiled,
    conditions_of,
    declared,
    last_good_of,
    rows,
    verdict_of,
)

from legivellum.receipts.phase_rules import PLACEHOLDER_WORDS
from metagate_crds import reasons
from metagate_crds.rules.patterns import is_object_name
from metagate_crds.validation import validate

PLACEHOLDER_NAMES = sorted(filter(is_object_name, PLACEHOLDER_WORDS))


def test_some_placeholders_are_names_of_objects() -> None:
    assert PLACEHOLDER_NAMES == ["na", "none", "null", "tbd"]


@pytest.mark.parametrize("name", PLACEHOLDER_NAMES)
def test_a_name_that_no_receipt_can_hold_is_refused(name: str) -> None:
    """By the message one knows which names and why; other kinds are named by nobody in a receipt."""
    [finding] = validate("Principal", PRINCIPAL, name=name)
    assert (finding.path, finding.reason) == ("metadata.name", reasons.NAME_REFUSED)
    assert "na, none, null, tbd" in finding.message
    assert validate("Principal", PRINCIPAL, name=f"{name}-1") == ()
    assert validate("Profile", {}, name=name) == ()


def test_one_that_is_served_already_stays_served() -> None:
    """An upgrade takes away nothing; status says what is wrong. A new one is not served."""
    principal = declared("Principal", "tbd", PRINCIPAL)
    assert rows(compiled(principal), "principal") == []
    result = compiled(principal, last_good=last_good_of(principal))
    assert [row["principal_key"] for row in rows(result, "principal")] == ["tbd"]
    conditions = conditions_of(verdict_of(result, "Principal", "tbd"))
    assert conditions["Accepted"][0] == "False"
