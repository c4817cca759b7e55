"""`metagate plan --cluster` and `metagate doctor --cluster`, as a person with a kubeconfig uses them."""

import json
from pathlib import Path
from typing import Any

from tests.cluster.control_plane import eventually, manifests
from tests.operator.machinery import Operator, Tenancy
from tests.unit.cli.running import metagate


async def test_a_plan_against_the_cluster_is_what_becomes_of_it(
    tenancy: Tenancy, operator: Operator, tmp_path: Path
) -> None:
    """What would be, from the API server's listing; after kubectl apply it is so, and nothing is left to do."""
    tenancy.apply(*tenancy.world())
    tenancy.wait_ready("pb/indexer")
    everything = tmp_path / "world.yaml"
    everything.write_text(manifests([_placed(item, tenancy.namespace) for item in tenancy.world()]))
    cluster = ("--kubeconfig", str(tenancy.cluster.kubectl.kubeconfig), "-n", tenancy.namespace)
    same = metagate("plan", everything, *cluster)
    assert same.returncode == 0, same.stdout  # the API server wrote its defaults into what was applied
    changed = next(item for item in tenancy.world() if item["kind"] == "Manifest")
    changed = {**changed, "spec": {**changed["spec"], "environment": {"tier": "planned"}}}
    changed = _placed(changed, tenancy.namespace)
    file = tmp_path / "manifest.json"
    file.write_text(json.dumps(changed))
    done = metagate("plan", file, *cluster, "-o", "json")
    assert done.returncode == 2, done.stderr
    document = json.loads(done.stdout)
    [effect] = document["effects"]
    assert effect["differences"] == [{"path": "/environment/tier", "before": "prod", "after": "planned"}]
    tenancy.apply(changed)
    [principal] = effect["principals"]
    eventually(
        lambda: tenancy.get("PrincipalBinding", "indexer")["status"]["snapshot"]["digest"] == principal["digest"]
    )
    again = metagate("plan", file, *cluster)
    assert again.returncode == 0, again.stdout + again.stderr
    looked = metagate("doctor", "--kubeconfig", str(tenancy.cluster.kubectl.kubeconfig), "-o", "json")
    says = {(load["what"], load["says"]) for load in json.loads(looked.stdout)}
    assert {("cluster", "answers, and serves every kind"), ("pods", "there is none in metagate-system")} <= says
    assert "webhook" in {what for what, _ in says}
    ahead = metagate("doctor", "--pre", "--kubeconfig", str(tenancy.cluster.kubectl.kubeconfig), "-o", "json")
    states = {load["what"]: load["state"] for load in json.loads(ahead.stdout)}
    assert states == {"Kubernetes": "ok", "rights": "ok", "CRDs": "note"}


def _placed(resource: dict[str, Any], namespace: str) -> dict[str, Any]:
    return {**resource, "metadata": {**resource["metadata"], "namespace": namespace}}
