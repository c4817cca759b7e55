"""The chart of DepotGate: where the bytes are decides how many pods there may be and what they reach."""

from collections.abc import Mapping
from typing import Any

import pytest
import typer
from tests.chart.rendering import ROOT, Chart, Object, RenderingRefused, containers, environment, of_kind
from tests.chart.test_memorygate import HOME, OWN, TRIAL, everything, passwords
from tests.chart.test_memorygate import rendered as rendered_from
from tests.chart.test_network_policies import DNS, INTERNET, METADATA, PolicyPeer, allowed

from depotgate.main import app
from depotgate.settings import Settings

FOLDER = ROOT / "charts" / "depotgate"
BUCKET = {
    "url": "s3://artifacts/production",
    "endpoint": "http://minio.storage:9000",
    "existingSecret": "depotgate-store",
    "sse": "aws:kms",
    "kmsKey": "key-1",
}
EVERYTHING = {
    "commonLabels": {"team": "platform"},
    "image": {"digest": "sha256:" + "a" * 64},
    "replicas": 3,
    "maxUnavailable": 0,
    "publicUrl": "https://artifacts.example.com",
    "leases": "optional",
    "maxBytes": 17179869184,
    "store": BUCKET,
    "serviceAccountAnnotations": {"example.com/role": "artifacts"},
    "database": {
        **OWN["database"],
        "writer": {"existingSecret": "pg-writer", "passwordKey": "password"},
    },
    "identity": {"host": "metagate-db", "port": 6001, "caSecret": "metagate-ca", "existingSecret": "pg-identity"},
    "monitoring": {"podMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}},
    "migration": {"schedule": "17 3 1 * *"},
}
SHARED_VOLUME = {**OWN, "replicas": 2, "store": {"volume": {"accessMode": "ReadWriteMany", "storageClassName": "nfs"}}}
FORMS: Mapping[str, Mapping[str, Any]] = {
    "beside a trial": TRIAL,
    "a database of one's own": OWN,
    "a volume for several pods": SHARED_VOLUME,
    "everything": EVERYTHING,
    "nothing optional": {**OWN, "networkPolicy": {"enabled": False}, "maxUnavailable": 0},
}


def rendered(chart: Chart, values: Mapping[str, Any]) -> list[Object]:
    return rendered_from(chart, values, "depotgate", FOLDER)


def parts(chart: Chart, values: Mapping[str, Any]) -> dict[str, Object]:
    """The one container of each kind of pod, by its component."""
    return {
        metadata["labels"]["app.kubernetes.io/component"]: containers(spec)[0]
        for owner, metadata, spec in everything(rendered(chart, values))
        if not owner.startswith("CronJob")
    }


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "no database: set database.host"),
        ({**OWN, "replicas": 2}, "several pods cannot share a volume"),
        ({**OWN, "store": {"endpoint": "http://minio:9000"}}, "belong to a bucket"),
        ({**OWN, "store": {"url": "s3://artifacts", "kmsKey": "key-1"}}, "needs store.sse=aws:kms"),
        ({**OWN, "store": {"url": "/var/artifacts"}}, "/store/url"),
        ({**OWN, "leases": "never"}, "/leases"),
        ({**OWN, "store": {"volume": {"accessMode": "ReadOnlyMany"}}}, "/store/volume/accessMode"),
    ],
)
def test_wrong_values_are_refused(chart: Chart, values: dict[str, Any], says: str):
    with pytest.raises(RenderingRefused) as refused:
        rendered(chart, values)
    assert says in str(refused.value)


def test_each_container_sees_its_own_passwords_only(chart: Chart):
    """The gate: keeper, identity and the bucket's keys. The migration: the owner's, and the one it gives."""
    own = parts(chart, EVERYTHING)
    assert passwords(own["gate"]) == {
        "PGPASSWORD": ("pg-writer", "password"),
        "DEPOTGATE_IDENTITY_DATABASE_PASSWORD": ("pg-identity", "identity"),
        "AWS_ACCESS_KEY_ID": ("depotgate-store", "access-key-id"),
        "AWS_SECRET_ACCESS_KEY": ("depotgate-store", "secret-access-key"),
    }
    assert passwords(own["migrate"]) == {
        "PGPASSWORD": ("ledger-db", "owner"),
        "DEPOTGATE_KEEPER_PASSWORD": ("pg-writer", "password"),
    }
    trial = parts(chart, TRIAL)
    assert passwords(trial["gate"])["PGPASSWORD"] == ("depotgate-writer", "writer")
    assert passwords(trial["migrate"])["PGPASSWORD"] == ("metagate-database", "metagate_owner")
    assert "artifacts" in {mount["name"] for mount in trial["gate"]["volumeMounts"]}
    assert "artifacts" not in {mount["name"] for mount in trial["migrate"]["volumeMounts"]}


def test_what_an_installation_chooses_arrives(chart: Chart):
    chosen = environment(parts(chart, EVERYTHING)["gate"])
    assert chosen["DEPOTGATE_STORE"] == "s3://artifacts/production"
    assert chosen["AWS_ENDPOINT_URL"] == "http://minio.storage:9000"
    assert chosen["AWS_ALLOW_HTTP"] == "true"
    assert (chosen["DEPOTGATE_S3_SSE"], chosen["DEPOTGATE_S3_KMS_KEY"]) == ("aws:kms", "key-1")
    assert chosen["DEPOTGATE_PUBLIC_URL"] == "https://artifacts.example.com"
    assert chosen["DEPOTGATE_LEASES"] == "optional"
    assert chosen["DEPOTGATE_MAX_BYTES"] == "17179869184"
    [account] = of_kind(rendered(chart, EVERYTHING), "ServiceAccount").values()
    assert account["metadata"]["annotations"] == {"example.com/role": "artifacts"}
    plainly = environment(parts(chart, TRIAL)["gate"])
    assert not [name for name in plainly if name.startswith("AWS_")]
    assert plainly["DEPOTGATE_STORE"] == "file:///var/lib/depotgate"
    assert plainly["DEPOTGATE_PUBLIC_URL"].endswith(":8003")
    assert plainly["DEPOTGATE_LEASES"] == "required"
    assert plainly["DEPOTGATE_DATABASE_URL"].startswith("postgresql://depotgate_keeper@")


@pytest.mark.parametrize("name", FORMS)
def test_every_variable_is_read_by_somebody(chart: Chart, name: str):
    """A misspelt variable would silently do nothing. Those of the object store's client are its own."""
    read = {"PGPASSWORD"} | {Settings.variable(field) for field in Settings.model_fields}
    read |= {"AWS_REGION", "AWS_ENDPOINT_URL", "AWS_ALLOW_HTTP", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    for command in typer.main.get_group(app).commands.values():
        for option in command.params:
            read |= {option.envvar} if isinstance(option.envvar, str) else set(option.envvar or ())
    for part in parts(chart, FORMS[name]).values():
        assert {item["name"] for item in part["env"]} <= read


def test_a_volume_of_one_pod_is_handed_over_by_recreating_it(chart: Chart):
    """A new pod beside the old one could wait for a ReadWriteOnce volume for ever; its claim outlives the release."""
    objects = rendered(chart, TRIAL)
    [deployment] = of_kind(objects, "Deployment").values()
    [(name, claim)] = of_kind(objects, "PersistentVolumeClaim").items()
    assert (deployment["spec"]["replicas"], deployment["spec"]["strategy"]) == (1, {"type": "Recreate"})
    volumes = {volume["name"]: volume for volume in deployment["spec"]["template"]["spec"]["volumes"]}
    assert volumes["artifacts"]["persistentVolumeClaim"] == {"claimName": name}
    mounts = {mount["name"]: mount["mountPath"] for mount in parts(chart, TRIAL)["gate"]["volumeMounts"]}
    assert environment(parts(chart, TRIAL)["gate"])["DEPOTGATE_STORE"] == f"file://{mounts['artifacts']}"
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_several_pods_share_a_bucket_or_a_shared_volume(chart: Chart):
    for values, claims in ((SHARED_VOLUME, 1), (EVERYTHING, 0)):
        objects = rendered(chart, values)
        [deployment] = of_kind(objects, "Deployment").values()
        assert deployment["spec"]["strategy"] == {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
        }
        assert len(of_kind(objects, "PersistentVolumeClaim")) == claims
    mine = {**OWN, "store": {"volume": {"existingClaim": "artifacts-of-old"}}}
    objects = rendered(chart, mine)
    assert of_kind(objects, "PersistentVolumeClaim") == {}
    [deployment] = of_kind(objects, "Deployment").values()
    volumes = {volume["name"]: volume for volume in deployment["spec"]["template"]["spec"]["volumes"]}
    assert volumes["artifacts"]["persistentVolumeClaim"] == {"claimName": "artifacts-of-old"}


def test_the_object_store_is_reached_by_the_gate_alone(chart: Chart):
    """On a volume the gate reaches its databases and nothing else; the port of a bucket's address comes from its URL."""
    store = PolicyPeer({"app": "minio"}, {"kubernetes.io/metadata.name": "storage"})
    for values, port in ((TRIAL, None), (EVERYTHING, 9000), ({**OWN, "store": {"url": "gs://artifacts"}}, 443)):
        objects = rendered(chart, values)
        policies = list(of_kind(objects, "NetworkPolicy").values())
        ours = {
            metadata["labels"]["app.kubernetes.io/component"]: PolicyPeer(metadata["labels"], HOME)
            for _, metadata, _ in everything(objects)
        }
        for component in ("gate", "migrate"):
            assert allowed(policies, ours[component], DNS, 53, "UDP")
            assert not any(allowed(policies, ours[component], METADATA, number) for number in (80, 443, 9000))
        reached = {number for number in (80, 443, 8001, 9000) if allowed(policies, ours["gate"], store, number)}
        assert reached == ({port} if port else set())
        assert allowed(policies, ours["gate"], INTERNET, port or 443) is (port is not None)
        assert not any(allowed(policies, ours["migrate"], store, number) for number in (80, 443, 9000))
        worker = PolicyPeer({"app": "worker"}, {"tenant": "yes"})
        assert {number for number in (80, 5432, 8003) if allowed(policies, worker, ours["gate"], number)} == {8003}
        assert not any(allowed(policies, worker, ours["migrate"], number) for number in (80, 5432, 8003))


def test_the_peers_of_the_object_store_can_be_named(chart: Chart):
    peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "storage"}}}
    objects = rendered(chart, {**EVERYTHING, "networkPolicy": {"store": [peer]}})
    policies = list(of_kind(objects, "NetworkPolicy").values())
    [gate] = [
        PolicyPeer(metadata["labels"], HOME)
        for _, metadata, _ in everything(objects)
        if metadata["labels"]["app.kubernetes.io/component"] == "gate"
    ]
    assert allowed(policies, gate, PolicyPeer({"app": "minio"}, {"kubernetes.io/metadata.name": "storage"}), 9000)
    assert not allowed(policies, gate, INTERNET, 9000)
