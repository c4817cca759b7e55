"""A gate with the console, over a database of its own, per module."""

from collections.abc import AsyncIterator

import pytest_asyncio
from pydantic import SecretStr
from tests.databases import Database
from tests.integration.api.gate_fixture import GateFixture, gate_fixture
from tests.integration.console.visiting import Visitor

CONSOLE_SECRET = "what the cookies of these tests are signed with"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gate(database: Database) -> AsyncIterator[GateFixture]:
    async with gate_fixture(database, console=True, console_secret=SecretStr(CONSOLE_SECRET)) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="session")
async def visitor(gate: GateFixture) -> AsyncIterator[Visitor]:
    async with Visitor(gate.url) as made:
        yield made
