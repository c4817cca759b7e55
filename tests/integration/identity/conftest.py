"""A gate that believes the corpus's issuers, and one principal who holds every good subject."""

import base64
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from pydantic import SecretStr
from tests.databases import Database
from tests.integration.api.gate_fixture import GateFixture, PrincipalFixture, gate_fixture
from tests.integration.store.worlds import row

ROOT = Path(__file__).parents[3]
ADMIN = str(uuid4())
OUTSIDE, CLUSTER, SHARED = "https://idp.example.com", "https://kubernetes.default.svc.cluster.local", "metagate"
SUBJECTS = (
    (OUTSIDE, "indexer@example.com"),
    (OUTSIDE, "jörg"),
    (CLUSTER, "system:serviceaccount:team-a:indexer"),
    (SHARED, "tester"),
)


@dataclass(frozen=True)
class Corpus:
    secret: str
    issuers: list[dict[str, Any]]
    issuer_keys: list[dict[str, Any]]
    good: dict[str, str]
    attacks: dict[str, bytes]
    later: dict[str, str]


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    """Made by a process of its own: its times are those of now, however long the run has taken so far."""
    made = subprocess.run(
        [sys.executable, "-m", "tests.unit.identity.corpus"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    document = json.loads(made.stdout)
    return Corpus(
        **{**document, "attacks": {name: base64.b64decode(text) for name, text in document["attacks"].items()}}
    )


def issuer_rows(corpus: Corpus) -> dict[str, list[dict[str, Any]]]:
    return {
        "issuer": [
            row(ADMIN, **item, name=f"issuer-{n}", url=None, generation=1) for n, item in enumerate(corpus.issuers)
        ],
        "issuer_key": [row(ADMIN, **issuer_key) for issuer_key in corpus.issuer_keys],
    }


def subject_rows(principal: PrincipalFixture) -> list[dict[str, Any]]:
    named = {"tenant": str(principal.tenant), "principal_key": principal.name}
    return [row(principal.uid, issuer=issuer, subject=subject, **named) for issuer, subject in SUBJECTS]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gate(database: Database, corpus: Corpus) -> AsyncIterator[GateFixture]:
    async with gate_fixture(database, jwt_secret=SecretStr(corpus.secret)) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def indexer(gate: GateFixture, corpus: Corpus) -> PrincipalFixture:
    principal = PrincipalFixture(tenant=uuid4(), name="indexer")
    await gate.publish(principal, **issuer_rows(corpus))
    await gate.publish(subject=subject_rows(principal))
    return principal
