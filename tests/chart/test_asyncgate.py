"""The chart of AsyncGate: its pods see no more than they need and reach two databases, nothing else."""

from collections.abc import Mapping
from typing import Any

import pytest
import typer
import yaml
from tests.chart.rendering import ROOT, Chart, Object, RenderingRefused, containers, environment, of_kind
from tests.chart.test_memorygate import HOME, OWN, TRIAL, everything, passwords
from tests.chart.test_memorygate import rendered as rendered_from
from tests.chart.test_network_policies import DNS, METADATA, PolicyPeer, allowed

from asyncgate.main import app
from asyncgate.settings import Settings

FOLDER = ROOT / "charts" / "asyncgate"
CEILINGS = [
    {"namespaces": ["prod-*"], "authority": {"spawn": {"max": 5}, "maxDepth": 2}},
    {"namespaces": ["*"], "authority": {}},
]
EVERYTHING = {
    "commonLabels": {"team": "platform"},
    "image": {"digest": "sha256:" + "a" * 64},
    "replicas": 3,
    "maxUnavailable": 0,
    "ceilings": CEILINGS,
    "requireAdmission": ["prod-*", "public"],
    "database": {
        **OWN["database"],
        "writer": {"existingSecret": "pg-writer", "passwordKey": "password"},
    },
    "identity": {"host": "metagate-db", "port": 6001, "caSecret": "metagate-ca", "existingSecret": "pg-identity"},
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
    return rendered_from(chart, values, "asyncgate", FOLDER)


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
        ({**OWN, "ceilings": [{"authority": {}}]}, "namespaces"),
        ({**OWN, "requireAdmission": "prod"}, "/requireAdmission"),
    ],
)
def test_wrong_values_are_refused(chart: Chart, values: dict[str, Any], says: str):
    with pytest.raises(RenderingRefused) as refused:
        rendered(chart, values)
    assert says in str(refused.value)


def test_each_container_sees_its_own_passwords_only(chart: Chart):
    """The gate: broker and identity. The migration: the owner's, and the one it gives."""
    own = parts(chart, EVERYTHING)
    assert passwords(own["gate"]) == {
        "PGPASSWORD": ("pg-writer", "password"),
        "ASYNCGATE_IDENTITY_DATABASE_PASSWORD": ("pg-identity", "identity"),
    }
    assert passwords(own["migrate"]) == {
        "PGPASSWORD": ("ledger-db", "owner"),
        "ASYNCGATE_BROKER_PASSWORD": ("pg-writer", "password"),
    }
    trial = parts(chart, TRIAL)
    assert passwords(trial["gate"])["PGPASSWORD"] == ("asyncgate-writer", "writer")
    assert passwords(trial["migrate"])["PGPASSWORD"] == ("metagate-database", "metagate_owner")
    assert "ceilings" in {mount["name"] for mount in own["gate"]["volumeMounts"]}
    assert "ceilings" not in {mount["name"] for mount in own["migrate"]["volumeMounts"]}


def test_what_an_installation_chooses_arrives(chart: Chart):
    """Other ceilings are another ConfigMap, so that the pods that read them at their start are other pods."""
    objects = rendered(chart, EVERYTHING)
    chosen = environment(parts(chart, EVERYTHING)["gate"])
    assert chosen["ASYNCGATE_REQUIRE_ADMISSION"] == "prod-*,public"
    assert chosen["ASYNCGATE_CEILINGS_FILE"] == "/etc/asyncgate/ceilings/ceilings.yaml"
    [(name, ceilings)] = of_kind(objects, "ConfigMap").items()
    assert yaml.safe_load(ceilings["data"]["ceilings.yaml"]) == CEILINGS
    [deployment] = of_kind(objects, "Deployment").values()
    volumes = {volume["name"]: volume for volume in deployment["spec"]["template"]["spec"]["volumes"]}
    assert volumes["ceilings"]["configMap"] == {"name": name}
    assert set(of_kind(rendered(chart, {**EVERYTHING, "ceilings": CEILINGS[1:]}), "ConfigMap")).isdisjoint({name})
    plainly = environment(parts(chart, TRIAL)["gate"])
    assert not {"ASYNCGATE_CEILINGS_FILE", "ASYNCGATE_REQUIRE_ADMISSION"} & set(plainly)
    assert plainly["ASYNCGATE_DATABASE_URL"].startswith("postgresql://asyncgate_broker@")


@pytest.mark.parametrize("name", FORMS)
def test_every_variable_is_read_by_somebody(chart: Chart, name: str):
    """A misspelt variable would silently do nothing."""
    read = {"PGPASSWORD"} | {Settings.variable(field) for field in Settings.model_fields}
    for command in typer.main.get_group(app).commands.values():
        for option in command.params:
            read |= {option.envvar} if isinstance(option.envvar, str) else set(option.envvar or ())
    for part in parts(chart, FORMS[name]).values():
        assert {item["name"] for item in part["env"]} <= read


@pytest.mark.parametrize("name", ["beside a trial", "everything"])
def test_it_reaches_its_databases_and_nothing_else(chart: Chart, name: str):
    """In: the gate's one port; nothing at all to the migration."""
    objects = rendered(chart, FORMS[name])
    policies = list(of_kind(objects, "NetworkPolicy").values())
    ours = {
        metadata["labels"]["app.kubernetes.io/component"]: PolicyPeer(metadata["labels"], HOME)
        for _, metadata, _ in everything(objects)
    }
    worker = PolicyPeer({"app": "worker"}, {"tenant": "yes"})
    for component in ("gate", "migrate"):
        assert allowed(policies, ours[component], DNS, 53, "UDP")
        assert not any(allowed(policies, ours[component], METADATA, port) for port in (80, 443, 8080))
        assert not any(allowed(policies, ours[component], worker, port) for port in (80, 443, 8002, 8080))
    ports = (80, 443, 5432, 8002)
    assert {port for port in ports if allowed(policies, worker, ours["gate"], port)} == {8002}
    assert not any(allowed(policies, worker, ours["migrate"], port) for port in ports)


def test_the_ledger_is_kept_by_its_own_release(chart: Chart):
    """No CronJob unless it is asked for: a MemoryGate beside it makes the coming months' partitions."""
    assert of_kind(rendered(chart, TRIAL), "CronJob") == {}
    assert set(of_kind(rendered(chart, EVERYTHING), "CronJob")) == {"asyncgate-migrate"}
