"""A real kube-apiserver for the operator's suite, with the CRDs, the rights, and a database."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests.cluster.control_plane import Cluster, NoCluster, eventually, start, stop
from tests.databases import Database, Server
from tests.operator.machinery import CALENDAR, SYSTEM, Admission, Operator, Tenancy, audit_policy

from metagate_crds.crd_yaml import crd_files
from metagate_operator.cluster import rbac

# Where the suite learns what cluster to use. Under `make test-calendar` the control plane keeps the machine's clock, because its
# programs are no C programs; certificates made by another clock would not be valid yet for it.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in CALENDAR}  # noqa: TID251


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The API server, with our CRDs and our service accounts; one loud line where there is none, a failure in CI."""
    directory = Path(tempfile.mkdtemp(prefix="metagate-cluster-"))
    policy = directory.with_suffix(".audit.yaml")
    policy.write_text(audit_policy())
    try:
        result = start(directory, environment=ENVIRONMENT, audit_policy=policy)
    except NoCluster as reason:
        shutil.rmtree(directory, ignore_errors=True)
        policy.unlink()
        line = f"THE OPERATOR'S SUITE DID NOT RUN: {reason}"
        if ENVIRONMENT.get("CI", "").lower() == "true":
            pytest.fail(line)
        pytest.skip(line)
    try:
        prepare(result)
        yield result
    finally:
        if result.run_directory is not None:
            stop(directory, ENVIRONMENT)
        shutil.rmtree(directory, ignore_errors=True)
        policy.unlink(missing_ok=True)


def prepare(result: Cluster) -> None:
    """CRDs, the system namespace, the two service accounts with exactly their rights."""
    kubectl = result.kubectl
    kubectl.run("apply", "--server-side", "--force-conflicts", "-f", "-", stdin="---\n".join(crd_files().values()))
    kubectl.run("wait", "--for=condition=Established", "--timeout=30s", "crd", "--all")
    # the first list of a kind waits until the server has told of it everywhere and set up its storage
    eventually(lambda: kubectl.run("get", "metagate", "-A", check=False).returncode == 0)
    kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}})
    kubectl.apply(*rbac.manifests(rbac.OPERATOR, rbac.operator_rights(), namespace=SYSTEM))
    kubectl.apply(*rbac.manifests(rbac.ADMISSION, rbac.admission_rights(), namespace=SYSTEM))


@pytest_asyncio.fixture(loop_scope="session")
async def tenancy(cluster: Cluster, postgres: Server) -> AsyncIterator[Tenancy]:
    """A namespace of one's own and an empty database; what was declared cluster-wide is removed again afterwards."""
    database = await postgres.make()
    made = Tenancy.make(cluster, database)
    yield made
    made.remove()
    await postgres.drop(database)


@pytest.fixture
def operator(tenancy: Tenancy) -> Iterator[Operator]:
    """`metagate operator` as a process, as its own service account."""
    with Operator.running(tenancy) as process:
        yield process


@pytest.fixture
def admission(cluster: Cluster) -> Iterator[Admission]:
    """`metagate admission` as a process, self-managed, called by the API server."""
    with Admission.running(cluster) as process:
        yield process


__all__ = ["Database"]
