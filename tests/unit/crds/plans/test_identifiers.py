"""Ids that belong to a plan are derived from the plan's own."""

import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.crds.plans.templates import PLAN_ID, TENANT

from metagate_crds.plans.identifiers import ULID, created_at, derived_ulid, task_id


@pytest.mark.invariant("INV-086")
def test_a_derived_id_is_the_same_whenever_it_is_asked_for():
    """Written out: these bytes lie in ledgers, so the derivation may never change."""
    assert derived_ulid(PLAN_ID, TENANT, "accepted") == "01JDR4Z0C08RADFKT2D9ZF9SJ7"
    assert task_id(PLAN_ID, "read-0") == f"{PLAN_ID}.read-0"


@given(st.text(max_size=20), st.text(max_size=20), st.uuids().map(str))
def test_each_use_in_each_tenant_has_its_own(first, other, tenant):
    """Of the moment of the plan, and a ULID."""
    made = derived_ulid(PLAN_ID, TENANT, first)
    assert ULID.fullmatch(made)
    assert made[:10] == PLAN_ID[:10]
    assert (derived_ulid(PLAN_ID, TENANT, other) == made) == (first == other)
    assert derived_ulid(PLAN_ID, tenant, first) != made
    assert derived_ulid("01JDR4Z0C1ABCDEFGHJKMNPQRS", TENANT, first)[10:] != made[10:]


def test_the_moment_in_an_id():
    """To the millisecond, in UTC."""
    assert created_at("00000000000000000000000000") == datetime(1970, 1, 1, tzinfo=UTC)
    assert created_at("01ARYZ6S41TSV4RRFFQ69G5FAV") == datetime(2016, 7, 30, 22, 36, 16, 385000, tzinfo=UTC)


@pytest.mark.parametrize(
    "text", ["01jdr4z0c0abcdefghjkmnpqrs", "81JDR4Z0C0ABCDEFGHJKMNPQRS", PLAN_ID + "\n", PLAN_ID[1:]]
)
def test_what_is_no_id(text):
    """Lower case, more than 48 bits of time, a line break, a letter too few."""
    assert re.fullmatch(ULID, text) is None
