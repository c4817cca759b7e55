"""The webhook, called by a real API server for a real `kubectl apply`."""

from __future__ import annotations

import base64
import itertools
import json
import ssl
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from tests.cluster.control_plane import Cluster, eventually
from tests.operator.machinery import (
    SYSTEM,
    Admission,
    Operator,
    Tenancy,
    answers,
    control_plane_time,
    until_second_after,
)

from metagate_operator.cluster.admission.certificates import LEAF_LIFETIME, issue_certificates, renew_certificates
from metagate_operator.cluster.rbac import CERTIFICATES, WEBHOOK

KEYS = ("tasks", "jobs", "work_items", "payloads", "deploy", "scale", "provision", "execute")
SHAPES = {
    "root": lambda key: {key: 1},
    "nested": lambda key: {"a": {"b": {key: 1}}},
    "list item": lambda key: {"a": [{key: 1}]},
    "list in list": lambda key: {"a": [[{key: 1}]]},
}
SPELLINGS = (
    str,
    str.upper,
    lambda key: key.replace("_", "-"),
    lambda key: "".join(part.title() for part in key.split("_")),
)


@pytest.fixture
def webhook(cluster: Cluster) -> Iterator[Admission]:
    """One self-managed webhook, called for every apply of the test."""
    with Admission.running(cluster) as process:
        yield process


def forbidden(tenancy: Tenancy) -> Iterator[tuple[str, dict]]:
    """(path of the key, object) for each key, shape, place and a spelling."""
    for number, (key, (shape, make), place) in enumerate(itertools.product(KEYS, SHAPES.items(), PLACES)):
        spelled = SPELLINGS[number % len(SPELLINGS)](key)
        kind, spec = PLACES[place](make(spelled), tenancy)
        yield f"{key} {shape} {place}", tenancy.resource(kind, f"f{number}", spec)


PLACES = {
    "manifest environment": lambda value, _: ("Manifest", {"deploymentKey": "d", "version": 1, "environment": value}),
    "manifest memoryMap": lambda value, _: ("Manifest", {"deploymentKey": "d", "version": 1, "memoryMap": value}),
    "manifest service metadata": lambda value, _: (
        "Manifest",
        {
            "deploymentKey": "d",
            "version": 1,
            "services": {"mail": {"type": "mail", "endpoint": "http://mail:1", "metadata": value}},
        },
    ),
    "profile capabilities": lambda value, _: ("Profile", {"capabilities": value}),
    "profile policy": lambda value, _: ("Profile", {"policy": value}),
    "override capabilities": lambda value, tenancy: (
        "PrincipalBinding",
        tenancy.binding("x", overrides={"capabilities": value})["spec"],
    ),
    "override environment": lambda value, tenancy: (
        "PrincipalBinding",
        tenancy.binding("x", overrides={"environment": value})["spec"],
    ),
}


@pytest.mark.invariant("INV-031")
def test_forbidden_keys_are_refused_wherever_they_hide(tenancy: Tenancy, webhook: Admission) -> None:
    """8 keys x 4 shapes x every free-form place, in four spellings: `kubectl apply` refuses each and says where."""
    cases = dict(forbidden(tenancy))
    done = tenancy.kubectl.run("apply", "-f", "-", stdin=list(cases.values()), check=False)
    assert done.returncode != 0
    assert done.stderr.count("is a forbidden key") == len(cases) == len(KEYS) * len(SHAPES) * len(PLACES)
    assert not tenancy.kubectl.get("-n", tenancy.namespace, "manifests,profiles,principalbindings")["items"]


def test_the_issuer_of_the_shared_secret_is_nobody_elses(tenancy: Tenancy, cluster: Cluster) -> None:
    """D-37: told that HS256 is on, the webhook refuses a TokenIssuer with its issuer, and lets any other pass."""
    spec = {"audiences": ["metagate"], "algorithms": ["RS256"], "jwks": {"source": "URL", "url": "https://x.example"}}
    with Admission.running(cluster, METAGATE_JWT_ISSUER="corp"):
        for issuer in ("corp", "corp-too"):
            applied = {
                "apiVersion": "metagate.legivellum.io/v1alpha1",
                "kind": "TokenIssuer",
                "metadata": {"name": f"{tenancy.namespace}-{issuer}"},
                "spec": {**spec, "issuer": issuer},
            }
            done = cluster.kubectl.run("apply", "--dry-run=server", "-f", "-", stdin=applied, check=False)
            assert (done.returncode == 0) == (issuer != "corp"), done.stderr
            assert ("is reserved for the shared secret" in done.stderr) == (issuer == "corp")


@pytest.mark.invariant("INV-031")
async def test_without_the_webhook_they_are_told_by_status_and_never_served(
    tenancy: Tenancy, operator: Operator
) -> None:
    """The same rules again in the compiler: `Accepted=False`, and the last good snapshot stays."""
    tenancy.apply(*tenancy.world())
    tenancy.wait_ready("pb/indexer")
    good = await tenancy.packet()
    for shape, make in SHAPES.items():
        tenancy.apply(
            tenancy.resource(
                "Manifest", "prod", {"deploymentKey": "default", "version": 1, "environment": make("Work-Items")}
            )
        )
        accepted = tenancy.condition("Manifest", "prod", "Accepted")
        assert (accepted["status"], accepted["reason"]) == ("False", "ForbiddenKey"), shape
        assert await tenancy.packet() == good
    cases = [item for number, (_, item) in enumerate(forbidden(tenancy)) if number % 13 == 0]
    tenancy.apply(*cases)
    for case in cases:
        assert tenancy.condition(case["kind"], case["metadata"]["name"], "Accepted")["status"] == "False"
    assert await tenancy.packet() == good


def test_a_refusal_names_everything_at_once_and_no_value(tenancy: Tenancy, webhook: Admission) -> None:
    """Three mistakes, three paths in one answer; what was declared is not repeated."""
    canary = "AKIA" + "QZ7X4M2K9B3V5N8P"
    spec = {
        "deploymentKey": "default",
        "version": 1,
        "environment": {"tasks": [1], "secret": canary},
        "services": {"mail": {"type": "mail", "endpoint": "http://mail:1", "metadata": {"password": canary}}},
    }
    done = tenancy.kubectl.run("apply", "-f", "-", stdin=tenancy.resource("Manifest", "prod", spec), check=False)
    assert done.returncode != 0
    assert "spec.environment.tasks" in done.stderr
    assert "spec.services.mail.metadata" in done.stderr
    assert canary not in done.stderr + webhook.log


def test_what_does_not_exist_yet_is_only_a_warning(tenancy: Tenancy, webhook: Admission) -> None:
    """GitOps applies in any order: a Binding without its references is taken, and kubectl prints what is missing."""
    done = tenancy.kubectl.apply(tenancy.binding("indexer"))
    assert "created" in done.stdout
    assert "Warning: spec.principalRef: Principal indexer does not exist" in done.stderr
    tenancy.apply(*tenancy.world())
    done = tenancy.kubectl.apply(tenancy.binding("indexer", components=["a"]))
    assert "Warning" not in done.stderr
    until_second_after(tenancy.get("PrincipalBinding", "indexer"))
    done = tenancy.kubectl.apply(tenancy.binding("second", principal="indexer"))
    assert "created" in done.stdout
    assert "Warning: " in done.stderr
    assert "indexer" in done.stderr


def test_a_reference_that_is_served_in_an_earlier_version_resolves(tenancy: Tenancy, operator: Operator) -> None:
    """A Manifest whose update was refused is still served: a Binding that names it is taken without a warning."""
    tenancy.apply(*tenancy.world())
    tenancy.wait_ready("pb/indexer")
    tenancy.apply(*tenancy.world(environment={"tasks": 1})[2:3])
    assert tenancy.condition("Manifest", "prod", "Accepted")["status"] == "False"
    with Admission.running(tenancy.cluster):
        done = tenancy.kubectl.apply(tenancy.binding("indexer", components=["a"]))
        assert "configured" in done.stdout
        assert "Warning" not in done.stderr


def test_status_and_unchanged_specs_are_not_judged(tenancy: Tenancy, cluster: Cluster) -> None:
    """An object that became invalid before the webhook was there can still be labelled, given a status, and deleted."""
    tenancy.apply(
        tenancy.resource("Manifest", "old", {"deploymentKey": "d", "version": 1, "environment": {"tasks": 1}})
    )
    with Admission.running(cluster):
        tenancy.kubectl.run("label", "-n", tenancy.namespace, "manifest/old", "a=b")
        status = json.dumps({"status": {"observedGeneration": 1}})
        tenancy.kubectl.run(
            "patch", "-n", tenancy.namespace, "manifest/old", "--subresource=status", "--type=merge", "-p", status
        )
        refused = tenancy.kubectl.run(
            "patch",
            "-n",
            tenancy.namespace,
            "manifest/old",
            "--type=merge",
            "-p",
            '{"spec":{"version":2}}',
            check=False,
        )
        assert "is invalid" in refused.stderr
        tenancy.kubectl.run("delete", "-n", tenancy.namespace, "manifest/old")


def test_two_replicas_agree_on_one_certificate(cluster: Cluster) -> None:
    """Started together they end with one CA in the Secret and in the webhook's caBundle, and both show certificates of it."""
    cluster.kubectl.run("delete", "secret", "-n", SYSTEM, CERTIFICATES, "--ignore-not-found")
    with Admission.running(cluster) as first:
        second = Admission(cluster)
        try:
            eventually(lambda: answers(second.port))
            secret = cluster.kubectl.get("secret", "-n", SYSTEM, CERTIFICATES)
            authorities = base64.b64decode(secret["data"]["ca.crt"])
            bundle = cluster.kubectl.get("validatingwebhookconfiguration", WEBHOOK)["webhooks"][0]["clientConfig"][
                "caBundle"
            ]
            assert base64.b64decode(bundle) == authorities
            shown = {shown_certificate(item.port) for item in (first, second)}
            assert shown == {base64.b64decode(secret["data"]["tls.crt"])}
        finally:
            second.close()


def test_a_certificate_is_renewed_before_it_ends_and_loaded_without_a_restart(
    tenancy: Tenancy, webhook: Admission
) -> None:
    """A leaf with little time left is replaced in the Secret and shown on new connections; applies go on working."""
    kubectl = tenancy.kubectl
    old = issue_certificates(["127.0.0.1"], control_plane_time() - LEAF_LIFETIME + timedelta(days=1))
    data = {name: base64.b64encode(value).decode() for name, value in old.secret().items()}
    kubectl.run("patch", "secret", "-n", SYSTEM, CERTIFICATES, "--type=merge", "-p", json.dumps({"data": data}))

    def replaced() -> bool:
        shown = shown_certificate(webhook.port)
        leaf = x509.load_pem_x509_certificate(shown)
        authority = x509.load_pem_x509_certificates(old.authorities)[0]
        return leaf.issuer == authority.subject and leaf.not_valid_after_utc > control_plane_time() + timedelta(days=30)

    eventually(replaced)
    done = eventually(lambda: apply_invalid(tenancy))
    assert "is invalid" in done.stderr


def apply_invalid(tenancy: Tenancy) -> subprocess.CompletedProcess[str] | None:
    spec = {"deploymentKey": "d", "version": 1, "environment": {"tasks": 1}}
    done = tenancy.kubectl.run("apply", "-f", "-", stdin=tenancy.resource("Manifest", "prod", spec), check=False)
    return None if "failed calling webhook" in done.stderr else done


def test_a_mounted_certificate_is_reloaded_when_it_changes(cluster: Cluster, tmp_path: Path) -> None:
    """cert-manager's way: files that are replaced while the process runs; connections see the new one, and no process is started."""
    first, second = (issue_certificates(["127.0.0.1"], control_plane_time()) for _ in range(2))
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    certificate.write_bytes(first.leaf)
    key.write_bytes(first.leaf_key)
    process = Admission(cluster, "--tls-certificate", str(certificate), "--tls-key", str(key))
    try:
        eventually(lambda: answers(process.port))
        assert shown_certificate(process.port) == first.leaf
        certificate.write_bytes(second.leaf)
        eventually(lambda: process.logged("certificate_not_renewed"))
        assert shown_certificate(process.port) == first.leaf, "half a replacement must not be loaded"
        key.write_bytes(second.leaf_key)
        eventually(lambda: shown_certificate(process.port) == second.leaf)
    finally:
        process.close()


def test_the_policy_while_no_webhook_answers_is_a_choice(tenancy: Tenancy, cluster: Cluster) -> None:
    """`Fail` refuses applies while it is away, `Ignore` lets them through to the compiler."""
    manifest = tenancy.resource("Manifest", "prod", {"deploymentKey": "d", "version": 1})
    with Admission.running(cluster, failure_policy="Fail") as process:
        process.kill()
        assert "failed calling webhook" in tenancy.kubectl.apply(manifest, check=False).stderr
    with Admission.running(cluster, failure_policy="Ignore") as process:
        process.kill()
        assert "created" in tenancy.kubectl.apply(manifest).stdout


def test_it_costs_an_apply_little(tenancy: Tenancy, webhook: Admission) -> None:
    """The webhook's own share of a review stays in the milliseconds, lookups for warnings included."""
    for number in range(20):
        tenancy.apply(tenancy.resource("Profile", f"p{number}", {"capabilities": {"n": number}}))
    text = _metrics(webhook.port)
    total = sum(
        float(line.split()[-1]) for line in text.splitlines() if line.startswith("metagate_admission_seconds_sum")
    )
    count = sum(
        float(line.split()[-1]) for line in text.splitlines() if line.startswith("metagate_admission_seconds_count")
    )
    assert count >= 20
    assert total / count < 0.05


class TestRenewing:
    """The schedule of certificates, by the clock of the test."""

    START = datetime(2026, 1, 1, tzinfo=UTC)

    def test_nothing_is_due_at_first(self) -> None:
        """Young material is the very same object."""
        material = issue_certificates(["a.example"], self.START)
        assert renew_certificates(material, ["a.example"], self.START + timedelta(days=39)) is material

    def test_a_leaf_is_renewed_with_a_third_of_its_life_left(self) -> None:
        """The CA stays, so nobody needs to learn a new one."""
        material = issue_certificates(["a.example"], self.START)
        later = renew_certificates(material, ["a.example"], self.START + timedelta(days=41))
        assert later.authorities == material.authorities
        assert later.leaf != material.leaf

    def test_other_names_are_another_leaf(self) -> None:
        """A Service that is called otherwise gets a certificate for its name."""
        material = issue_certificates(["a.example"], self.START)
        assert renew_certificates(material, ["b.example"], self.START).leaf != material.leaf

    def test_a_new_authority_is_announced_before_it_signs(self) -> None:
        """First it joins the bundle while the leaf stays, then it signs; the old one stays trusted until it ends."""
        material = issue_certificates(["a.example"], self.START)
        now = self.START + timedelta(days=731)
        fresh = renew_certificates(material, ["a.example"], now - timedelta(days=2))
        announced = renew_certificates(fresh, ["a.example"], now)
        assert announced.leaf == fresh.leaf
        assert len(x509.load_pem_x509_certificates(announced.authorities)) == 2
        signed = renew_certificates(announced, ["a.example"], now + timedelta(minutes=10))
        leaf = x509.load_pem_x509_certificate(signed.leaf)
        assert leaf.issuer == x509.load_pem_x509_certificates(signed.authorities)[0].subject
        ended = renew_certificates(signed, ["a.example"], self.START + timedelta(days=3 * 365 + 1))
        assert len(x509.load_pem_x509_certificates(ended.authorities)) == 1


def shown_certificate(port: int) -> bytes:
    return ssl.get_server_certificate(("127.0.0.1", port), timeout=5).encode()


def _metrics(port: int) -> str:
    import urllib.request

    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with urllib.request.urlopen(f"https://127.0.0.1:{port}/metrics", context=context, timeout=5) as response:
        return response.read().decode()


def test_the_configuration_covers_our_group_and_nothing_else() -> None:
    """Every kind, no subresource, no deletion, and the policy that was asked for."""
    from metagate_operator.cluster.admission.webhook import webhook_configuration

    result = webhook_configuration(name="x", failure_policy="Ignore", service=("ns", "svc", 443))
    [hook] = result["webhooks"]
    [rule] = hook["rules"]
    assert rule["apiGroups"] == ["metagate.legivellum.io"]
    assert rule["operations"] == ["CREATE", "UPDATE"]
    assert not [resource for resource in rule["resources"] if "/" in resource]
    assert hook["failurePolicy"] == "Ignore"
    assert yaml.safe_dump(result)
