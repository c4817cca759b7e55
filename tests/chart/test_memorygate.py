"""The ledger's chart: it refuses to guess its database, its pods see no more than they need, and MetaGate's chart meets it halfway."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from tests.chart.rendering import (
    EXTERNAL,
    MATRIX,
    ROOT,
    Chart,
    Object,
    RenderingRefused,
    containers,
    environment,
    of_kind,
    plain,
    pods,
)
from tests.chart.test_network_policies import DNS, INTERNET, METADATA, NEIGHBOUR, PolicyPeer, allowed

from memorygate.main import app
from memorygate.settings import Settings

FOLDER = ROOT / "charts" / "memorygate"
HOME = {"kubernetes.io/metadata.name": "legivellum"}
TRIAL = {"database": {"trialOf": "metagate"}}
OWN = {"database": {"host": "pg-rw.databases", "caSecret": "pg-ca", "existingSecret": "ledger-db"}}
EVERYTHING = {
    "fullnameOverride": "ledger",
    "commonLabels": {"team": "platform"},
    "imagePullSecrets": ["registry"],
    "image": {"digest": "sha256:" + "a" * 64},
    "replicas": 3,
    "maxUnavailable": 0,
    "database": {
        **OWN["database"],
        "port": 6000,
        "owner": {"username": "metagate_owner", "existingSecret": "pg-owner", "passwordKey": "password"},
        "writer": {"existingSecret": "pg-writer", "passwordKey": "password"},
        "auditor": {"existingSecret": "pg-auditor", "passwordKey": "password"},
    },
    "identity": {"host": "metagate-db", "port": 6001, "caSecret": "metagate-ca", "existingSecret": "pg-identity"},
    "migration": {"schedule": ""},
    "console": {"enabled": True, "secretName": "ledger-console", "sessionMinutes": 5, "secure": False},
    "networkPolicy": {"from": [{"podSelector": {}}], "database": [{"ipBlock": {"cidr": "192.0.2.1/32"}}]},
    "extraEnv": [{"name": "MEMORYGATE_STREAMS", "value": "8"}],
    "podAnnotations": {"example.com/a": "b"},
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "x", "operator": "Exists"}],
}
FORMS: Mapping[str, Mapping[str, Any]] = {
    "beside a trial": TRIAL,
    "a database of one's own": OWN,
    "everything": EVERYTHING,
    "nothing optional": {
        **OWN,
        "networkPolicy": {"enabled": False},
        "maxUnavailable": 0,
        "migration": {"schedule": ""},
    },
}


def helm(chart: Chart, values: Mapping[str, Any], *command: str) -> str:
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(plain(values), file)
        file.flush()
        return chart.run(*command, "-f", file.name)


def rendered(
    chart: Chart, values: Mapping[str, Any], release: str = "memorygate", folder: Path = FOLDER
) -> list[Object]:
    text = helm(chart, values, "template", release, str(folder), "-n", "legivellum")
    return [document for document in yaml.safe_load_all(text) if document]


def made(chart: Chart, values: Mapping[str, Any]) -> dict[str, list[Object]]:
    """The containers of each kind of pod, by its component."""
    return {
        metadata["labels"]["app.kubernetes.io/component"]: containers(spec)
        for _, metadata, spec in everything(rendered(chart, values))
    }


def everything(objects: list[Object]) -> list[tuple[str, Object, Object]]:
    """Every pod's owner, metadata and spec; a CronJob's as its Job's."""
    jobs = [{**value["spec"]["jobTemplate"], "kind": "CronJob", "metadata": value["metadata"]} for value in of_kind(objects, "CronJob").values()]  # fmt: skip
    return [*pods(objects), *pods(jobs)]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "no database: set database.host"),
        ({"database": {**OWN["database"], "trialOf": "metagate"}}, "two databases: database.trialOf"),
        ({**TRIAL, "identity": {"host": "db"}}, "leave identity.host empty"),
        ({"database": {"host": "pg", "caSecret": "ca"}}, "database.existingSecret is empty"),
        ({"database": {"host": "pg", "existingSecret": "s"}}, "database.caSecret is empty"),
        ({**OWN, "identity": {"host": "db"}}, "identity.caSecret is empty"),
        ({"database": {**OWN["database"], "password": "hunter2"}}, "password"),
        ({**OWN, "replicas": 0}, "/replicas"),
        ({**OWN, "console": {"enabled": True}}, "console.secretName is empty"),
    ],
)
def test_wrong_values_are_refused(chart: Chart, values: dict[str, Any], says: str):
    """What is missing or contradicts itself is named before anything is installed, and no value is repeated."""
    with pytest.raises(RenderingRefused) as refused:
        rendered(chart, values)
    assert says in str(refused.value)
    assert "hunter2" not in str(refused.value)


def passwords(container: Object) -> dict[str, Any]:
    return {name: value for name, value in environment(container).items() if isinstance(value, tuple)}


def test_each_container_sees_its_own_passwords_only(chart: Chart):
    """The gate: writer and identity. The migration: owner, and those it gives. Beside a trial the rest is that release's."""
    by_form = {name: made(chart, values) for name, values in FORMS.items()}
    [gate], [migrate] = by_form["everything"]["gate"], by_form["everything"]["migrate"]
    assert passwords(gate) == {
        "PGPASSWORD": ("pg-writer", "password"), "MEMORYGATE_IDENTITY_DATABASE_PASSWORD": ("pg-identity", "identity"),
        "MEMORYGATE_CONSOLE_SECRET": ("ledger-console", "console-secret"),
    }  # fmt: skip
    assert passwords(migrate) == {
        "PGPASSWORD": ("pg-owner", "password"), "MEMORYGATE_WRITER_PASSWORD": ("pg-writer", "password"),
        "MEMORYGATE_AUDITOR_PASSWORD": ("pg-auditor", "password"),
    }  # fmt: skip
    [gate], [migrate] = by_form["beside a trial"]["gate"], by_form["beside a trial"]["migrate"]
    assert passwords(gate) == {
        "PGPASSWORD": ("memorygate-writer", "writer"),
        "MEMORYGATE_IDENTITY_DATABASE_PASSWORD": ("metagate-database", "metagate_identity"),
    }
    assert passwords(migrate) == {
        "PGPASSWORD": ("metagate-database", "metagate_owner"),
        "MEMORYGATE_WRITER_PASSWORD": ("memorygate-writer", "writer"),
    }
    [gate], [migrate] = by_form["a database of one's own"]["gate"], by_form["a database of one's own"]["migrate"]
    assert {*passwords(gate).values()} == {("ledger-db", "writer"), ("ledger-db", "identity")}
    assert {*passwords(migrate).values()} == {("ledger-db", "owner"), ("ledger-db", "writer")}


def test_the_console_is_off_until_asked_for(chart: Chart):
    """Then its cookies are signed with one secret for all pods, and are for https unless somebody says otherwise."""
    variables = {
        name: {key: value for key, value in environment(made(chart, values)["gate"][0]).items() if "CONSOLE" in key}
        for name, values in FORMS.items()
    }
    assert variables.pop("everything") == {
        "MEMORYGATE_CONSOLE": "true",
        "MEMORYGATE_CONSOLE_SECRET": ("ledger-console", "console-secret"),
        "MEMORYGATE_CONSOLE_MINUTES": "5",
        "MEMORYGATE_CONSOLE_SECURE": "false",
    }
    assert all(not off for off in variables.values())
    [gate] = made(chart, {**OWN, "console": {"enabled": True, "secretName": "s"}})["gate"]
    assert environment(gate)["MEMORYGATE_CONSOLE_SECURE"] == "true"


def test_no_password_is_in_a_url_or_an_argument(chart: Chart):
    """URLs name a user each and no password; TLS is checked against the mounted CA of each database."""
    result = made(chart, EVERYTHING)
    [gate], [migrate] = result["gate"], result["migrate"]
    ca = "sslmode=verify-full&sslrootcert=/etc/memorygate"
    assert environment(gate)["MEMORYGATE_DATABASE_URL"] == (
        f"postgresql://memorygate_writer@pg-rw.databases:6000/metagate?{ca}/database-ca/ca.crt"
    )
    assert environment(gate)["MEMORYGATE_IDENTITY_DATABASE_URL"] == (
        f"postgresql://metagate_identity@metagate-db:6001/metagate?{ca}/identity-ca/ca.crt"
    )
    assert environment(migrate)["MEMORYGATE_DATABASE_URL"].startswith(
        "postgresql://metagate_owner@pg-rw.databases:6000/"
    )
    for name in FORMS:
        for entry in [item for part in made(chart, FORMS[name]).values() for item in part]:
            assert not [value for value in entry["args"] if "password" in value.lower()]


@pytest.mark.parametrize("name", FORMS)
def test_every_variable_is_read_by_somebody(chart: Chart, name: str):
    """No container is given a variable that no process knows: a misspelt one would silently do nothing."""
    known = {"PGPASSWORD"}
    for command in typer.main.get_group(app).commands.values():
        for option in command.params:
            known |= {option.envvar} if isinstance(option.envvar, str) else set(option.envvar or ())
    for field in Settings.model_fields.values():
        alias = field.validation_alias
        known |= {alias} if isinstance(alias, str) else {str(choice) for choice in alias.choices}
    for part in made(chart, FORMS[name]).values():
        for entry in part:
            assert {item["name"] for item in entry["env"]} <= known


def test_a_release_of_another_name_finds_its_metagate(chart: Chart):
    """`trialOf` is the release's name, whatever it is called; the Service is then named as both READMEs say."""
    [gate] = made(chart, {"database": {"trialOf": "mg"}})["gate"]
    assert "@mg-metagate-database:5432/" in environment(gate)["MEMORYGATE_DATABASE_URL"]
    assert set(of_kind(rendered(chart, TRIAL), "Service")) == {"memorygate"}
    assert set(of_kind(rendered(chart, TRIAL, "lg"), "Service")) == {"lg-memorygate"}


def test_the_service_is_the_gates_alone(chart: Chart):
    """The migration's pod is never sent a request, and its Job is a new one at each revision."""
    objects = rendered(chart, OWN)
    [service] = of_kind(objects, "Service").values()
    labels = {metadata["labels"]["app.kubernetes.io/component"]: metadata["labels"] for _, metadata, _ in pods(objects)}
    selected = {name for name, item in labels.items() if service["spec"]["selector"].items() <= item.items()}
    assert selected == {"gate"}
    assert set(of_kind(objects, "Job")) == {"memorygate-migrate-1"}
    assert of_kind(objects, "CronJob")["memorygate-migrate"]["spec"]["schedule"] == "17 3 1 * *"


@pytest.mark.invariant("INV-059", "INV-123")
@pytest.mark.parametrize("name", ["beside a trial", "a database of one's own", "everything"])
def test_the_ledger_can_reach_its_databases_and_nothing_else(chart: Chart, name: str):
    """Out: DNS and the databases' ports. In: the gate's one port; nothing at all to the migration."""
    objects = rendered(chart, FORMS[name])
    policies = list(of_kind(objects, "NetworkPolicy").values())
    ours = {
        metadata["labels"]["app.kubernetes.io/component"]: PolicyPeer(metadata["labels"], HOME)
        for _, metadata, _ in everything(objects)
    }
    database = PolicyPeer(address="192.0.2.1")
    ports = {"everything": ({6000, 6001}, {6000})}.get(name, ({5432}, {5432}))
    tried = (53, 80, 443, 5432, 6000, 6001, 8000, 8001, 6443)
    for part, wanted in zip(("gate", "migrate"), ports, strict=True):
        assert {port for port in tried if allowed(policies, ours[part], database, port)} == wanted
        assert allowed(policies, ours[part], DNS, 53, "UDP")
        assert not any(allowed(policies, ours[part], METADATA, port) for port in (80, 443, 8001))
    if name == "everything":
        assert not any(allowed(policies, ours["gate"], INTERNET, port) for port in tried)
    neighbour = PolicyPeer(NEIGHBOUR.labels, HOME)
    assert {port for port in tried if allowed(policies, neighbour, ours["gate"], port)} == {8001}
    assert not any(allowed(policies, neighbour, ours["migrate"], port) for port in tried)


# ── MetaGate's side ──────────────────────────────────────────────────────────────────────────────────────────────────

LEDGER = {"ledger": {"url": "http://memorygate:8001"}}


def test_metagate_declares_what_mirroring_needs(chart: Chart):
    """With `ledger.url`: the operator's account is the witness, and the issuer admits the ledger's audience; else neither."""
    objects = chart.render(LEDGER)
    witness = of_kind(objects, "Principal")["mg-metagate-ledger-witness"]
    [operator] = [name for name in of_kind(objects, "ServiceAccount") if name.endswith("-operator")]
    assert witness["spec"] == {
        "type": "service", "rights": ["witness"], "subjects": [{"serviceAccount": {"name": operator}}],
    }  # fmt: skip
    assert of_kind(objects, "TokenIssuer")["cluster"]["spec"]["audiences"] == ["metagate", "memorygate"]
    without = chart.render({"ledger": {**LEDGER["ledger"], "witness": False}})
    assert "mg-metagate-ledger-witness" not in of_kind(without, "Principal")
    plainly = chart.render(MATRIX["defaults"])
    assert "mg-metagate-ledger-witness" not in of_kind(plainly, "Principal")
    assert of_kind(plainly, "TokenIssuer")["cluster"]["spec"]["audiences"] == ["metagate"]


def test_metagates_migration_lets_the_ledger_look_up_callers(chart: Chart):
    """It gives `metagate_identity` its password: the trial's own, or the Secret that is named; without one, none."""

    def given(values: Mapping[str, Any]) -> Any:
        operator = of_kind(chart.render(values), "Deployment")["mg-metagate-operator"]["spec"]["template"]["spec"]
        return environment(operator["initContainers"][0]).get("METAGATE_IDENTITY_PASSWORD")

    assert given({}) == ("mg-metagate-database", "metagate_identity")
    external = EXTERNAL["external"]
    assert given({"database": EXTERNAL}) is None
    named = {**external, "identity": {"existingSecret": "pg-identity"}}
    assert given({"database": {**EXTERNAL, "external": named}}) == ("pg-identity", "password")


def test_the_witness_gets_past_its_own_webhook(chart: Chart):
    """With failurePolicy Fail the first install would otherwise wait for an admission pod that Helm has not started."""
    objects = chart.render({**LEDGER, "admission": {"failurePolicy": "Fail"}})
    [webhook] = of_kind(objects, "ValidatingWebhookConfiguration").values()
    [conditions] = [item["matchConditions"] for item in webhook["webhooks"]]
    assert conditions[1]["expression"] == (
        "!(request.kind.kind == 'Principal' && request.namespace == 'metagate-system' "
        "&& request.name == 'mg-metagate-ledger-witness')"
    )


def test_the_trial_database_opens_to_a_ledger_that_was_asked_for(chart: Chart):
    """Only with `ledger.url`, only to pods of the ledger's chart in the same namespace, and to nobody else."""
    home = {"kubernetes.io/metadata.name": "metagate-system"}
    [(_, metadata, _)] = [pod for pod in pods(rendered(chart, TRIAL)) if pod[0].startswith("Deployment")]
    for values, wanted in ((LEDGER, True), (MATRIX["defaults"], False)):
        objects = chart.render(values)
        policies = list(of_kind(objects, "NetworkPolicy").values())
        database = next(
            PolicyPeer(item["labels"], home)
            for _, item, _ in pods(objects)
            if item["labels"]["app.kubernetes.io/component"] == "database"
        )
        assert allowed(policies, PolicyPeer(metadata["labels"], home), database, 5432) is wanted
        assert not allowed(policies, PolicyPeer(metadata["labels"], HOME), database, 5432)
        assert not allowed(policies, NEIGHBOUR, database, 5432)
