"""What the operator refuses to start without, who leads, and how it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests.cluster.control_plane import Cluster, eventually
from tests.databases import Database, Server
from tests.operator.fake_api_server import FakeApiServer
from tests.operator.machinery import SYSTEM, Operator, Tenancy
from tests.operator.surfaces import DeclaredSurface, ScriptedSurface, scripted_tenancy

from metagate_operator.cluster import rbac


@pytest_asyncio.fixture(loop_scope="session")
async def scripted(fresh_database: Database, tmp_path: Path) -> AsyncIterator[DeclaredSurface]:
    """A world on the scripted API server."""
    async with FakeApiServer().serving() as api:
        surface = ScriptedSurface(api, tmp_path)
        yield DeclaredSurface(surface, fresh_database, scripted_tenancy(None, fresh_database, surface.namespace))


def api_of(world: DeclaredSurface) -> FakeApiServer:
    assert isinstance(world.surface, ScriptedSurface)
    return world.surface.api


async def ended(operator: Operator) -> str:
    """What it said when it ended by itself, which must have been an error."""
    assert await asyncio.to_thread(operator.wait, 20) != 0
    return operator.log


@pytest.mark.invariant("EXT-19")
async def test_missing_kinds_end_it_with_the_command_that_installs_them(scripted: DeclaredSurface) -> None:
    """Without its CRDs it does not start, and says what to run."""
    api_of(scripted).vanished.update({"profiles", "manifests"})
    async with scripted.operator(wait=False) as operator:
        output = await ended(operator)
    assert "manifests" in output
    assert "metagate crds | kubectl apply --server-side -f -" in output


@pytest.mark.invariant("EXT-19")
async def test_an_unmigrated_database_ends_it_with_the_command_that_migrates(
    scripted: DeclaredSurface, postgres: Server
) -> None:
    """An empty database is not one to write to."""
    empty = await postgres.make(migrated=False)
    scripted.database = empty
    async with scripted.operator(wait=False) as operator:
        output = await ended(operator)
    assert "metagate migrate" in output
    await postgres.drop(empty)


@pytest.mark.invariant("INV-030")
def test_missing_rights_end_it_and_each_is_named(cluster: Cluster, tenancy: Tenancy) -> None:
    """A service account without rights: every missing verb in the message, and how to grant them."""
    cluster.kubectl.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "nobody", "namespace": SYSTEM}}
    )
    kubeconfig = str(cluster.service_account(SYSTEM, "nobody").kubeconfig)
    operator = Operator(tenancy, kubeconfig=kubeconfig)
    try:
        assert operator.wait() != 0
        for missing in (
            "list manifests.metagate.legivellum.io",
            "patch principals/status",
            "update leases.coordination.k8s.io",
        ):
            assert missing in operator.log
        assert "metagate operator rbac | kubectl apply -f -" in operator.log
    finally:
        operator.close()


def test_a_database_of_another_cluster_is_refused(tenancy: Tenancy, tmp_path: Path) -> None:
    """D-46: a database belongs to the cluster whose kube-system it saw first."""
    with Operator.running(tenancy):
        pass

    async def elsewhere() -> str:
        async with FakeApiServer().serving() as api:
            surface = ScriptedSurface(api, tmp_path)
            world = DeclaredSurface(
                surface, tenancy.database, scripted_tenancy(None, tenancy.database, surface.namespace)
            )
            async with world.operator(wait=False) as operator:
                return await ended(operator)

    assert "adopt" in asyncio.run(elsewhere())


def test_it_ends_cleanly_and_lets_the_next_one_in(tenancy: Tenancy) -> None:
    """SIGTERM: exit 0 within seconds, the Lease is given back, and the next operator starts writing at once."""
    with Operator.running(tenancy) as first:
        began = time.monotonic()
        assert first.terminate() == 0
        assert time.monotonic() - began < 10
        assert "Traceback" not in first.log
    lease = tenancy.kubectl.get("lease", "-n", SYSTEM, "metagate-operator")
    assert not lease["spec"].get("holderIdentity")
    began = time.monotonic()
    with Operator.running(tenancy):
        assert time.monotonic() - began < 12


async def test_a_second_replica_waits_and_takes_over(tenancy: Tenancy) -> None:
    """While one leads the other is ready and writes nothing; when the leader is killed it takes over and serves."""
    tenancy.apply(*tenancy.world())
    first = Operator(tenancy)
    second: Operator | None = None
    try:
        first.until_published()
        second = Operator(tenancy)
        eventually(lambda: second.logged("leadership_awaited"))
        assert second.probe("/readyz")[0] == 200
        assert second.probe("/livez")[0] == 200
        assert second.metric("metagate_passes_total") == 0
        first.kill()
        second.until_published()
        tenancy.apply(
            tenancy.resource(
                "Manifest", "prod", {"deploymentKey": "default", "version": 2, "environment": {"by": "second"}}
            )
        )
        tenancy.wait_ready("manifest/prod", condition="jsonpath={.status.snapshot.generation}=2")
        packet = await tenancy.packet()
        assert packet is not None
        assert packet["environment"] == {"by": "second"}
    finally:
        first.close()
        if second is not None:
            second.close()


async def test_f28_two_writers_without_a_lease_are_fenced(tenancy: Tenancy) -> None:
    """Split brain: the one that came later writes, the earlier one writes nothing more and says why it ends."""
    tenancy.apply(*tenancy.world())
    first = Operator(tenancy, "--no-lease")
    second: Operator | None = None
    try:
        first.until_published()
        second = Operator(tenancy, "--no-lease")
        second.until_published()
        tenancy.apply(
            tenancy.resource(
                "Manifest", "prod", {"deploymentKey": "default", "version": 2, "environment": {"round": 2}}
            )
        )
        assert first.wait() != 0
        assert "another writer took over" in first.log
        tenancy.wait_ready("manifest/prod", condition="jsonpath={.status.snapshot.generation}=2")
        revisions = await tenancy.rows("SELECT revision, epoch FROM metagate.revision ORDER BY revision")
        assert [row["epoch"] for row in revisions] == sorted(row["epoch"] for row in revisions)
        assert second.popen.poll() is None
    finally:
        first.close()
        if second is not None:
            second.close()


def test_liveness_is_about_passes_that_end(tenancy: Tenancy) -> None:
    """D-52: with the API server gone every pass fails, and the operator is alive all the same; metrics tell the age."""
    with Operator.running(tenancy, METAGATE_RESYNC_SECONDS="1") as operator:
        assert operator.probe("/livez")[0] == 200
        assert operator.metric("metagate_pass_success_age_seconds") >= 0
        assert operator.metric("metagate_objects") >= 0


async def test_only_some_namespaces_need_no_cluster_wide_rights(
    cluster: Cluster, tenancy: Tenancy, tmp_path: Path
) -> None:
    """`--namespace` with issuers from files: a service account that may list nothing cluster-wide is enough."""
    kubectl = cluster.kubectl
    rights = rbac.operator_rights([tenancy.namespace], cluster_issuers=False)
    assert not [right for right in rights if right.where is rbac.Where.CLUSTER and {"list", "watch"} & set(right.verbs)]
    account = f"narrow-{tenancy.namespace}"
    kubectl.apply(*rbac.manifests(account, rights, namespace=SYSTEM, namespaces=[tenancy.namespace]))
    issuers = tmp_path / "issuers"
    issuers.mkdir()
    (issuers / "cluster.yaml").write_text(
        "apiVersion: metagate.legivellum.io/v1alpha1\nkind: TokenIssuer\nmetadata: {name: cluster}\n"
        "spec: {audiences: [metagate], algorithms: [RS256], jwks: {source: Cluster}}\n"
    )
    tenancy.apply(*tenancy.world())
    tenancy.apply(
        tenancy.resource(
            "Principal", "indexer", {"type": "component", "subjects": [{"serviceAccount": {"name": "indexer"}}]}
        )
    )
    kubeconfig = str(cluster.service_account(SYSTEM, account).kubeconfig)
    operator = Operator(tenancy, "--namespace", tenancy.namespace, "--issuers", str(issuers), kubeconfig=kubeconfig)
    try:
        operator.until_published()
        tenancy.wait_ready("pb/indexer", "principal/indexer")
        tenancy.apply(
            tenancy.resource("Manifest", "prod", {"deploymentKey": "default", "version": 2, "environment": {"a": 2}})
        )
        tenancy.wait_ready("manifest/prod", condition="jsonpath={.status.snapshot.generation}=2")
        subjects = await tenancy.rows("SELECT issuer, subject FROM metagate.subject")
        assert [row["subject"] for row in subjects] == [f"system:serviceaccount:{tenancy.namespace}:indexer"]
        assert "Forbidden" not in operator.log
    finally:
        operator.close()
        kubectl.run("delete", "clusterrole,clusterrolebinding", account)


async def test_the_cluster_s_keys_arrive_and_are_told(tenancy: Tenancy, operator: Operator) -> None:
    """A TokenIssuer with source Cluster: the API server's public keys are in the database, and KeysFresh says so."""
    name = f"cluster-{tenancy.namespace}"
    tenancy.apply(
        tenancy.resource(
            "TokenIssuer", name, {"audiences": ["metagate"], "algorithms": ["RS256"], "jwks": {"source": "Cluster"}}
        )
    )
    tenancy.kubectl.run("wait", "--for=condition=KeysFresh", "--timeout=20s", f"tokenissuer/{name}")
    keys = await tenancy.rows("SELECT issuer, kid, jwk FROM metagate.issuer_key")
    assert keys
    assert {row["issuer"] for row in keys} == {"https://kubernetes.default.svc.cluster.local"}
    assert all('"d"' not in str(row["jwk"]) for row in keys)
