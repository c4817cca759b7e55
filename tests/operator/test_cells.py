"""Two cells of one cluster: an operator, a database and a part of the namespaces each (`--namespace-selector`)."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from tests.cluster.control_plane import Cluster
from tests.databases import Server
from tests.operator.machinery import METAGATE, Operator, Tenancy, plain_environment
from tests.operator.surfaces import until

pytestmark = [pytest.mark.timeout(180)]


@dataclass(frozen=True, slots=True)
class Cell:
    tenancy: Tenancy
    operator: Operator

    @property
    def label(self) -> str:
        return f"cell={self.tenancy.namespace}"

    async def serves(self) -> set[str]:
        """Namespaces with a packet in this cell's database."""
        rows = await self.tenancy.rows(
            "SELECT DISTINCT namespace FROM metagate.tenant JOIN metagate.binding USING (tenant) WHERE digest IS NOT NULL"
        )
        return {row["namespace"] for row in rows}

    async def keys(self) -> list[dict[str, Any]]:
        return await self.tenancy.rows("SELECT kid FROM metagate.issuer_key")


def label(tenancy: Tenancy, value: str) -> None:
    tenancy.kubectl.run("label", "--overwrite", "namespace", tenancy.namespace, value)


@pytest_asyncio.fixture(loop_scope="session")
async def cells(cluster: Cluster, postgres: Server) -> AsyncIterator[tuple[Cell, Cell]]:
    made: list[Cell] = []
    try:
        for _ in range(2):
            tenancy = Tenancy.make(cluster, await postgres.make())
            label(tenancy, f"cell={tenancy.namespace}")
            # each cell has a system namespace and so a Lease of its own; here they share one
            operator = Operator(
                tenancy,
                "--namespace-selector",
                f"cell={tenancy.namespace}",
                METAGATE_LEASE="false",
                METAGATE_RESYNC_SECONDS="1",
            )
            made.append(Cell(tenancy, operator))
            operator.until_published()
        yield made[0], made[1]
    finally:
        for cell in made:
            cell.operator.close()
            cell.tenancy.remove()
            await postgres.drop(cell.tenancy.database)


async def until_served(cell: Cell, *namespaces: Tenancy) -> None:
    async def served() -> bool:
        return await cell.serves() == {namespace.namespace for namespace in namespaces}

    await until(served, seconds=30)


async def test_each_cell_serves_its_own(cells: tuple[Cell, Cell]) -> None:
    """A namespace is served by the cell whose label it has; another label moves it, none takes it out of both."""
    here, there = cells
    before = [cell.operator.metric("metagate_objects") for cell in cells]
    for cell in cells:
        cell.tenancy.apply(*cell.tenancy.world())
        cell.tenancy.wait_ready("pb/indexer")
    await until_served(here, here.tenancy)
    await until_served(there, there.tenancy)
    # nobody holds, or says anything in the status of, what is the other's
    own = len(here.tenancy.world())
    assert [cell.operator.metric("metagate_objects") for cell in cells] == [known + own for known in before]
    label(there.tenancy, here.label)
    await until_served(here, here.tenancy, there.tenancy)
    await until_served(there)
    # what changes from now on is published where it is served
    there.tenancy.apply(*there.tenancy.world(environment={"tier": "moved"}))
    there.tenancy.wait_ready("manifest/prod", condition="jsonpath={.status.snapshot.generation}=2")
    moved = Tenancy(there.tenancy.cluster, here.tenancy.database, there.tenancy.namespace)
    packet = await moved.packet()
    assert packet is not None
    assert packet["environment"] == {"tier": "moved"}
    assert await there.tenancy.packet() is None
    there.tenancy.kubectl.run("label", "namespace", there.tenancy.namespace, "cell-")
    await until_served(here, here.tenancy)


async def test_a_cell_that_is_down_takes_only_its_own_along(cells: tuple[Cell, Cell]) -> None:
    """One operator is killed: the other cell's changes are published as ever, the killed one's wait for it."""
    here, there = cells
    for cell in cells:
        cell.tenancy.apply(*cell.tenancy.world())
        cell.tenancy.wait_ready("pb/indexer")
    there.operator.kill()
    for cell in cells:
        cell.tenancy.apply(*cell.tenancy.world(environment={"tier": "second"}))
    here.tenancy.wait_ready("manifest/prod", condition="jsonpath={.status.snapshot.generation}=2")
    waiting = await there.tenancy.packet()
    assert waiting is not None
    assert waiting["environment"] == {"tier": "prod"}


async def test_cells_agree_about_token_issuers(cells: tuple[Cell, Cell]) -> None:
    """TokenIssuers are everybody's: each cell publishes them, and what one says of them the other leaves alone."""
    here, _ = cells
    name = f"cluster-{here.tenancy.namespace}"
    here.tenancy.apply(
        here.tenancy.resource(
            "TokenIssuer", name, {"audiences": ["metagate"], "algorithms": ["RS256"], "jwks": {"source": "Cluster"}}
        )
    )
    kubectl = here.tenancy.kubectl
    kubectl.run("wait", "--for=condition=KeysFresh", "--timeout=20s", f"tokenissuer/{name}")
    for cell in cells:
        await until(cell.keys)

    def version() -> str:
        return str(kubectl.get("tokenissuer", name)["metadata"]["resourceVersion"])

    for cell in cells:
        cell.operator.until_passes()
    observations = version()
    for cell in cells:
        cell.operator.until_passes()
    assert version() == observations


@pytest.mark.parametrize("selector", ["cell", "cell in (a)", "=a", "cell=a b", "cell==a", "cell!=a"])
def test_a_selector_of_labels_only(selector: str) -> None:
    """What is no list of labels with their values is refused before anything is watched."""
    done = subprocess.run(
        [*METAGATE, "operator", "--namespace-selector", selector],
        env={**plain_environment(), "METAGATE_DATABASE_URL": "postgresql://a@127.0.0.1:1/a"},
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "cell=a,env=prod" in done.stderr
