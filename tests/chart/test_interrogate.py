"""The chart of the admission gate: its pods see no more than they need, and forwards go where they may."""

from collections.abc import Mapping
from typing import Any

import pytest
import typer
from tests.chart.rendering import ROOT, Chart, Object, RenderingRefused, containers, environment, of_kind
from tests.chart.test_memorygate import HOME, OWN, TRIAL, everything, passwords
from tests.chart.test_memorygate import rendered as rendered_from
from tests.chart.test_network_policies import DNS, METADATA, NEIGHBOUR, PolicyPeer, allowed

from interrogate.main import app
from interrogate.settings import Settings

FOLDER = ROOT / "charts" / "interrogate"
EVERYTHING = {
    "commonLabels": {"team": "platform"},
    "image": {"digest": "sha256:" + "a" * 64},
    "replicas": 3,
    "maxUnavailable": 0,
    "surfaces": ["mcp-*", "public"],
    "targetHosts": ["*.partner.example", "tools.example.com:8443"],
    "resource": "https://admission.example.com",
    "signingKey": {"existingSecret": "signing", "key": "ed25519.pem"},
    "mcp": {
        "allowedHosts": ["mcp.example.com"],
        "authorizationServers": ["https://login.example.com"],
        "credentials": {"team-a": "team-a-mcp", "team-b": "team-b-mcp"},
        "metagate": {
            "url": "https://metagate.metagate-system:8000",
            "caSecret": "metagate-tls",
            "audience": "registry",
        },
    },
    "database": {
        **OWN["database"],
        "writer": {"existingSecret": "pg-writer", "passwordKey": "password"},
    },
    "identity": {"host": "metagate-db", "port": 6001, "caSecret": "metagate-ca", "existingSecret": "pg-identity"},
    "networkPolicy": {"targets": [{"namespaceSelector": {"matchLabels": {"tenant": "yes"}}}]},
    "monitoring": {"podMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}},
    "migration": {"schedule": "17 3 1 * *"},
}
FORMS: Mapping[str, Mapping[str, Any]] = {
    "beside a trial": TRIAL,
    "a database of one's own": OWN,
    "everything": EVERYTHING,
    "nothing optional": {**OWN, "networkPolicy": {"enabled": False}, "maxUnavailable": 0},
}


def rendered(chart: Chart, values: Mapping[str, Any]) -> list[Object]:
    return rendered_from(chart, values, "interrogate", FOLDER)


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
        ({"database": {**OWN["database"], "trialOf": "metagate"}}, "two databases"),
        ({**OWN, "resource": "admission"}, "/resource"),
        ({**OWN, "surfaces": "public"}, "/surfaces"),
        ({**OWN, "mcp": {"credentials": {"Team A": "team-a-mcp"}}}, "Team A"),
    ],
)
def test_wrong_values_are_refused(chart: Chart, values: dict[str, Any], says: str):
    with pytest.raises(RenderingRefused) as refused:
        rendered(chart, values)
    assert says in str(refused.value)


def test_each_container_sees_its_own_passwords_only(chart: Chart):
    """The gate: writer and identity. The migration: the owner's, and the one it gives. The signing key is a file of the gate."""
    own = parts(chart, EVERYTHING)
    assert passwords(own["gate"]) == {
        "PGPASSWORD": ("pg-writer", "password"),
        "INTERROGATE_IDENTITY_DATABASE_PASSWORD": ("pg-identity", "identity"),
    }
    assert passwords(own["migrate"]) == {
        "PGPASSWORD": ("ledger-db", "owner"),
        "INTERROGATE_WRITER_PASSWORD": ("pg-writer", "password"),
    }
    trial = parts(chart, TRIAL)
    assert passwords(trial["gate"])["PGPASSWORD"] == ("interrogate-writer", "writer")
    assert passwords(trial["migrate"])["PGPASSWORD"] == ("metagate-database", "metagate_owner")
    assert "signing" in {mount["name"] for mount in own["gate"]["volumeMounts"]}
    assert "signing" not in {mount["name"] for mount in own["migrate"]["volumeMounts"]}


def test_credentials_of_mcp_servers_are_files_of_the_gate_by_namespace(chart: Chart):
    """Each tenant's Secret under the tenant's name, read-only, in the gate and not in the migration."""
    own = parts(chart, EVERYTHING)
    mounts = {mount["mountPath"]: mount for mount in own["gate"]["volumeMounts"]}
    directory = environment(own["gate"])["INTERROGATE_CREDENTIALS_DIR"]
    [pods] = [
        spec
        for _, metadata, spec in everything(rendered(chart, EVERYTHING))
        if metadata["labels"]["app.kubernetes.io/component"] == "gate"
    ]
    secrets = {volume["name"]: volume["secret"]["secretName"] for volume in pods["volumes"] if "secret" in volume}
    for namespace in ("team-a", "team-b"):
        mount = mounts[f"{directory}/{namespace}"]
        assert mount["readOnly"] is True
        assert secrets[mount["name"]] == f"{namespace}-mcp"
    assert not any("credentials" in mount["mountPath"] for mount in own["migrate"]["volumeMounts"])


def test_the_gateway_announces_itself_as_its_service_account(chart: Chart):
    """With a token made for MetaGate, and no other; without an address it has none."""
    gate = parts(chart, EVERYTHING)["gate"]
    chosen = environment(gate)
    assert chosen["INTERROGATE_METAGATE_URL"] == "https://metagate.metagate-system:8000"
    [spec] = [
        spec
        for _, metadata, spec in everything(rendered(chart, EVERYTHING))
        if metadata["labels"]["app.kubernetes.io/component"] == "gate"
    ]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    mounted = {mount["mountPath"]: volumes[mount["name"]] for mount in gate["volumeMounts"]}
    directory, _, file = chosen["INTERROGATE_METAGATE_KEY_FILE"].rpartition("/")
    [source] = mounted[directory]["projected"]["sources"]
    assert (source["serviceAccountToken"]["audience"], source["serviceAccountToken"]["path"]) == ("registry", file)
    directory, _, file = chosen["INTERROGATE_METAGATE_CA_FILE"].rpartition("/")
    assert mounted[directory]["secret"] == {"secretName": "metagate-tls", "items": [{"key": "ca.crt", "path": file}]}
    plain = parts(chart, TRIAL)["gate"]
    assert not [name for name in environment(plain) if name.startswith("INTERROGATE_METAGATE_")]
    assert not [mount for mount in plain["volumeMounts"] if "metagate" in mount["mountPath"]]


def test_what_an_installation_chooses_arrives(chart: Chart):
    chosen = environment(parts(chart, EVERYTHING)["gate"])
    assert chosen["INTERROGATE_SURFACES"] == "mcp-*,public"
    assert chosen["INTERROGATE_TARGET_HOSTS"] == "*.partner.example,tools.example.com:8443"
    assert chosen["INTERROGATE_RESOURCE"] == "https://admission.example.com"
    assert chosen["INTERROGATE_SIGNING_KEY_FILE"] == "/etc/interrogate/signing/key.pem"
    own = "interrogate,interrogate.legivellum.svc,interrogate.legivellum.svc.*"
    assert chosen["INTERROGATE_ALLOWED_HOSTS"] == f"{own},mcp.example.com"
    assert chosen["INTERROGATE_AUTHORIZATION_SERVERS"] == "https://login.example.com"
    plainly = environment(parts(chart, TRIAL)["gate"])
    assert plainly["INTERROGATE_ALLOWED_HOSTS"] == own
    assert not {"INTERROGATE_AUTHORIZATION_SERVERS", "INTERROGATE_CREDENTIALS_DIR"} & plainly.keys()
    assert plainly["INTERROGATE_RESOURCE"] == "http://interrogate.legivellum:8005"
    assert "INTERROGATE_SIGNING_KEY_FILE" not in plainly
    assert "INTERROGATE_TARGET_HOSTS" not in plainly


@pytest.mark.parametrize("name", FORMS)
def test_every_variable_is_read_by_somebody(chart: Chart, name: str):
    """A misspelt variable would silently do nothing."""
    read = {"PGPASSWORD"} | {Settings.variable(field) for field in Settings.model_fields}
    for command in typer.main.get_group(app).commands.values():
        for option in command.params:
            read |= {option.envvar} if isinstance(option.envvar, str) else set(option.envvar or ())
    for part in parts(chart, FORMS[name]).values():
        assert {item["name"] for item in part["env"]} <= read


@pytest.mark.invariant("INV-123")
@pytest.mark.parametrize("name", ["beside a trial", "everything"])
def test_forwards_go_to_targets_and_never_to_the_nodes_metadata(chart: Chart, name: str):
    """In: the gate's one port; nothing at all to the migration, which reaches its database and DNS only."""
    objects = rendered(chart, FORMS[name])
    policies = list(of_kind(objects, "NetworkPolicy").values())
    ours = {
        metadata["labels"]["app.kubernetes.io/component"]: PolicyPeer(metadata["labels"], HOME)
        for _, metadata, _ in everything(objects)
    }
    tenant = PolicyPeer({"app": "worker"}, {"tenant": "yes"})
    other = PolicyPeer({"app": "worker"}, {"tenant": "no"})
    assert allowed(policies, ours["gate"], tenant, 8080)
    assert allowed(policies, ours["gate"], other, 8080) is (name != "everything")
    for component in ("gate", "migrate"):
        assert allowed(policies, ours[component], DNS, 53, "UDP")
        assert not any(allowed(policies, ours[component], METADATA, port) for port in (80, 443, 8080))
    assert not allowed(policies, ours["migrate"], tenant, 8080)
    neighbour = PolicyPeer(NEIGHBOUR.labels, HOME)
    assert {port for port in (80, 443, 5432, 8005) if allowed(policies, neighbour, ours["gate"], port)} == {8005}
    assert not any(allowed(policies, neighbour, ours["migrate"], port) for port in (80, 8005))


def test_the_ledger_is_kept_by_its_own_release(chart: Chart):
    """No CronJob unless it is asked for: a MemoryGate beside it makes the coming months' partitions."""
    assert of_kind(rendered(chart, TRIAL), "CronJob") == {}
    assert set(of_kind(rendered(chart, EVERYTHING), "CronJob")) == {"interrogate-migrate"}
