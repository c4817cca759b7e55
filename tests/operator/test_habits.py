"""What people do with kubectl all day: it works, reads well, and leaves their objects alone."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import httpx
import pytest
import yaml
from tests.cluster.control_plane import ROOT, Cluster, eventually
from tests.integration.api.processes import process as gate
from tests.operator.machinery import METAGATE, Admission, Operator, Tenancy, plain_environment

from legivellum.identity.api_keys import mint
from metagate_crds.crd_yaml import crd_documents
from metagate_crds.kinds import GROUP, KINDS

QUICKSTART = ROOT / "examples/quickstart"


@pytest.fixture
def both(operator: Operator, admission: Admission) -> tuple[Operator, Admission]:
    """The operator and the webhook, as in production."""
    return operator, admission


def without_status(body: dict) -> dict:
    """What people wrote, and what the API server adds to it; neither status nor the bookkeeping of who wrote that."""
    kept = {name: value for name, value in body.items() if name != "status"}
    metadata = {
        name: value for name, value in body["metadata"].items() if name not in {"resourceVersion", "managedFields"}
    }
    metadata["managedFields"] = [
        managed_field
        for managed_field in body["metadata"]["managedFields"]
        if managed_field.get("subresource") != "status"
    ]
    return {**kept, "metadata": metadata}


async def test_it_writes_nothing_into_people_s_objects(tenancy: Tenancy) -> None:
    """No finalizer, no annotation, no label: byte for byte what it was, but for status, which one field manager owns."""
    what = "principals,profiles,manifests,principalbindings"
    tenancy.apply(*tenancy.world())
    before = tenancy.kubectl.get("-n", tenancy.namespace, what, "--show-managed-fields")["items"]
    with Operator.running(tenancy):
        tenancy.wait_ready("pb/indexer", "principal/indexer", "profile/worker", "manifest/prod")
        after = tenancy.kubectl.get("-n", tenancy.namespace, what, "--show-managed-fields")["items"]
    assert [json.dumps(without_status(item), sort_keys=True) for item in after] == [
        json.dumps(without_status(item), sort_keys=True) for item in before
    ]
    for item in after:
        managers = {
            field["manager"] for field in item["metadata"]["managedFields"] if field.get("subresource") == "status"
        }
        assert managers == {"metagate"}
        assert "finalizers" not in item["metadata"]
        assert "kopf" not in json.dumps(item)


def test_deleting_works_while_the_operator_is_away(tenancy: Tenancy) -> None:
    """Nothing of ours keeps an object, or its namespace, from going."""
    tenancy.apply(*tenancy.world())
    with Operator.running(tenancy):
        tenancy.wait_ready("pb/indexer")
    tenancy.kubectl.run(
        "delete", "-n", tenancy.namespace, "principals,profiles,manifests,principalbindings", "--all", "--timeout=10s"
    )
    tenancy.kubectl.run("delete", "namespace", tenancy.namespace, "--timeout=60s", timeout=90)


def test_diff_dry_run_and_server_side_apply(tenancy: Tenancy, both: tuple[Operator, Admission]) -> None:
    """`kubectl diff` is silent on what is applied and shows what is not; dry runs judge and change nothing; managers get along."""
    kubectl, world = tenancy.kubectl, tenancy.world()
    tenancy.apply(*world)
    tenancy.wait_ready("pb/indexer")
    assert kubectl.run("diff", "-f", "-", stdin=world, check=False).returncode == 0
    other = tenancy.world(version=2)
    shown = kubectl.run("diff", "-f", "-", stdin=other, check=False)
    assert shown.returncode == 1
    assert "+  version: 2" in shown.stdout
    assert not re.search(r"^[+-] .*(status|conditions)", shown.stdout, re.MULTILINE)
    bad = tenancy.world(environment={"jobs": []})
    assert "spec.environment.jobs" in kubectl.run("apply", "--dry-run=server", "-f", "-", stdin=bad, check=False).stderr
    kubectl.run("apply", "--dry-run=server", "-f", "-", stdin=other)
    assert tenancy.get("Manifest", "prod")["spec"]["version"] == 1
    gitops = kubectl.run(
        "apply", "--server-side", "--field-manager=gitops", "--force-conflicts", "-f", "-", stdin=other
    )
    assert "serverside-applied" in gitops.stdout
    tenancy.wait_ready("manifest/prod", condition="jsonpath={.status.snapshot.generation}=2")
    kubectl.run("apply", "--server-side", "--field-manager=gitops", "-f", "-", stdin=other)
    assert tenancy.get("Manifest", "prod")["metadata"]["generation"] == 2


async def test_replace_and_delete_in_any_order(tenancy: Tenancy, both: tuple[Operator, Admission]) -> None:
    """`kubectl replace` is an update; `kubectl delete -f` forwards and backwards leaves nothing served."""
    kubectl = tenancy.kubectl
    for order in (1, -1):
        tenancy.apply(*tenancy.world())
        tenancy.wait_ready("pb/indexer")
        replaced = tenancy.get("Manifest", "prod")
        replaced["spec"]["environment"] = {"order": order}
        kubectl.run("replace", "-f", "-", stdin=replaced)
        tenancy.wait_ready("manifest/prod", condition="jsonpath={.status.snapshot.generation}=2")
        packet = await tenancy.packet()
        assert packet is not None
        assert packet["environment"] == {"order": order}
        kubectl.run("delete", "-f", "-", stdin=tenancy.world()[::order])
        for table in ("binding", "principal", "profile", "manifest"):
            await wait_until_empty(tenancy, table)


async def wait_until_empty(tenancy: Tenancy, table: str) -> None:
    import asyncio

    for _ in range(100):
        if not await tenancy.rows(f"SELECT 1 FROM metagate.{table}"):
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"something is left in {table}")


def test_a_crd_that_gains_an_optional_field_disturbs_nothing(tenancy: Tenancy, cluster: Cluster) -> None:
    """An upgrade of the CRD under a running operator: objects stay Ready, changes go on being served, no revision is minted by it."""
    tenancy.apply(*tenancy.world())
    [definition] = [
        crd_document for crd_document in crd_documents() if crd_document["spec"]["names"]["kind"] == "Manifest"
    ]
    upgraded = json.loads(json.dumps(definition))
    fields = upgraded["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    fields["somethingNew"] = {"type": "string"}
    with Operator.running(tenancy, METAGATE_RESYNC_SECONDS="1") as operator:
        tenancy.wait_ready("pb/indexer")
        try:
            cluster.kubectl.run("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=upgraded)
            revision = operator.metric("metagate_revision")
            operator.until_passes()
            assert operator.metric("metagate_revision") == revision
            tenancy.wait_ready("pb/indexer", "manifest/prod")
            tenancy.apply(*tenancy.world(version=2))
            tenancy.wait_ready("manifest/prod", condition="jsonpath={.status.snapshot.generation}=2")
        finally:
            cluster.kubectl.run("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=definition)


def test_get_describe_and_explain_read_well(tenancy: Tenancy, operator: Operator) -> None:
    """Columns, short names, the category, and a description of every field that kubectl can explain."""
    kubectl = tenancy.kubectl
    tenancy.apply(*tenancy.world())
    tenancy.wait_ready("pb/indexer", "principal/indexer", "profile/worker", "manifest/prod")
    listed = kubectl.run("get", "-n", tenancy.namespace, "metagate").stdout
    for line in ("manifest.metagate.legivellum.io/prod", "principalbinding.metagate.legivellum.io/indexer"):
        assert line in listed
    heads = kubectl.run("get", "-n", tenancy.namespace, "pb").stdout.splitlines()[0].split()
    assert heads[:3] == ["NAME", "READY", "STATUS"]
    assert heads[-1] == "AGE"
    row = kubectl.run("get", "-n", tenancy.namespace, "pb", "--no-headers").stdout.split()
    assert row[:6] == ["indexer", "True", "Served", "indexer", "worker", "prod"]
    selected = kubectl.run(
        "get", "-n", tenancy.namespace, "pb", "--field-selector", "spec.manifestRef.name=prod", "-o", "name"
    ).stdout
    assert selected.strip() == f"principalbinding.{GROUP}/indexer"
    described = kubectl.run("describe", "-n", tenancy.namespace, "pb", "indexer").stdout
    assert "Served" in described
    assert "Observed Generation:" in described
    explained = kubectl.run("explain", "profile.spec.startup").stdout
    assert "slaSeconds" in explained
    for kind in KINDS.values():
        text = kubectl.run("explain", f"{kind.plural}.spec", "--recursive", f"--api-version={GROUP}/v1alpha1").stdout
        assert "<empty>" not in text


def test_a_status_that_somebody_else_wrote_is_set_right(tenancy: Tenancy) -> None:
    """Whoever overwrites a status has it until the next resync."""
    tenancy.apply(*tenancy.world())
    with Operator.running(tenancy, METAGATE_RESYNC_SECONDS="1"):
        tenancy.wait_ready("manifest/prod")
        lie = json.dumps({"status": {"uses": 99}})
        tenancy.kubectl.run(
            "patch", "-n", tenancy.namespace, "manifest/prod", "--subresource=status", "--type=merge", "-p", lie
        )
        eventually(lambda: tenancy.get("Manifest", "prod")["status"]["uses"] == 1)


async def test_a_namespace_made_again_inherits_nothing(tenancy: Tenancy, operator: Operator) -> None:
    """D-46: the same name is another tenant, with another uid, and nothing of the first is served to it."""
    tenancy.apply(*tenancy.world())
    tenancy.wait_ready("pb/indexer")
    first = await tenancy.rows("SELECT DISTINCT tenant FROM metagate.binding")
    tenancy.kubectl.run("delete", "namespace", tenancy.namespace, "--timeout=60s", timeout=90)
    tenancy.kubectl.run("create", "namespace", tenancy.namespace)
    await wait_until_empty(tenancy, "binding")
    tenancy.apply(*tenancy.world())
    tenancy.wait_ready("pb/indexer")
    second = await tenancy.rows("SELECT DISTINCT tenant FROM metagate.binding")
    assert len(first) == len(second) == 1
    assert first != second


def test_events_tell_transitions_and_nothing_else(tenancy: Tenancy) -> None:
    """One event when it becomes Ready, one when it stops, none for a pass or a restart that finds it the same."""

    def events() -> list[str]:
        items = tenancy.kubectl.get("-n", tenancy.namespace, "events.events.k8s.io")["items"]
        return sorted(f"{item['type']} {item['reason']}" for item in items if item["regarding"]["name"] == "prod")

    with Operator.running(tenancy, METAGATE_RESYNC_SECONDS="1") as operator:
        tenancy.apply(*tenancy.world())
        tenancy.wait_ready("manifest/prod")
        eventually(lambda: events() == ["Normal Served"])
        operator.until_passes()
        assert events() == ["Normal Served"]
        tenancy.apply(*tenancy.world(environment={"jobs": 1}))
        eventually(lambda: len(events()) == 2)
        assert "Warning" in events()[-1]
    with Operator.running(tenancy, METAGATE_RESYNC_SECONDS="1") as operator:
        operator.until_passes()
        assert len(events()) == 2


def test_a_file_and_its_object_get_the_same_verdict(tenancy: Tenancy, operator: Operator, tmp_path: Path) -> None:
    """`metagate validate` prints for a file what the status of the object says: the same path, the same words."""
    spec = {"deploymentKey": "d", "version": 1, "environment": {"a": [{"payloads": 1}]}, "memoryMap": {"execute": 1}}
    manifest = tenancy.resource("Manifest", "prod", spec)
    tenancy.apply(manifest)
    message = tenancy.condition("Manifest", "prod", "Accepted")["message"]
    file = tmp_path / "manifest.yaml"
    file.write_text(yaml.safe_dump(manifest))
    completed = subprocess.run(
        [*METAGATE, "validate", str(file)], capture_output=True, text=True, env=plain_environment(), check=False
    )
    assert completed.returncode == 1
    for finding in message.split("; "):
        path, _, words = finding.partition(": ")
        assert path in completed.stdout + completed.stderr
        assert words in completed.stdout + completed.stderr


@pytest.mark.invariant("INV-041")
def test_the_quickstart_is_served_as_it_compiles(
    tenancy: Tenancy, both: tuple[Operator, Admission], tmp_path: Path
) -> None:
    """kubectl apply examples/quickstart, wait for Ready, boot over HTTP: byte for byte what `metagate compile` prints for the files."""
    key = mint()
    copy = tmp_path / "quickstart"
    for file in sorted(QUICKSTART.rglob("*.yaml")):
        text = file.read_text()
        if file.parent.name == "principals" and file.stem == "indexer":
            text = text.replace("apiKeys: []", f"apiKeys:\n  - {{id: {key.id}, sha256: {key.sha256}}}")
        target = copy / file.relative_to(QUICKSTART)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    kubectl = tenancy.kubectl
    kubectl.run("apply", "-n", tenancy.namespace, "--recursive", "-f", str(copy))
    kubectl.run(
        "wait",
        "-n",
        tenancy.namespace,
        "--for=condition=Ready",
        "--timeout=30s",
        "--all",
        "principals,profiles,manifests,principalbindings,policyprofiles",
    )
    printed = subprocess.run(
        [*METAGATE, "compile", str(copy), "--principal", "indexer", "--component", "indexer_7"],
        capture_output=True, text=True, env=plain_environment(), check=True,
    )  # fmt: skip
    with gate(tenancy.database) as (host, port):
        answer = eventually(
            lambda: boot(f"http://{host}:{port}", key.key),
            timeout=10,
        )
    assert canonical(answer) == canonical(json.loads(printed.stdout))


def boot(url: str, key: str) -> dict | None:
    answer = httpx.post(f"{url}/v1/bootstrap", json={"component_key": "indexer_7"}, headers={"X-API-Key": key})
    return answer.json() if answer.status_code == 200 else None


def canonical(packet: dict) -> str:
    """The packet without what belongs to one request, with its members in their order."""
    startup = {name: value for name, value in packet["startup"].items() if name not in {"startup_id", "deadline_at"}}
    snapshot = {name: value for name, value in packet["snapshot"].items() if name == "digest"}
    rest = {
        name: value for name, value in packet.items() if name not in {"packet_id", "issued_at", "startup", "snapshot"}
    }
    return json.dumps({**rest, "startup": startup, "snapshot": snapshot})
