"""Canary secrets in a cluster: in Secrets, in the operator's environment and in refused objects, and nowhere else."""

import json

import pytest
from tests.canaries import canaries_in, canary, dump
from tests.cluster.control_plane import eventually
from tests.operator.machinery import ALL_KINDS, Operator, Tenancy

pytestmark = pytest.mark.cluster


@pytest.mark.invariant("INV-034")
def test_the_operator_says_no_secret(tenancy: Tenancy) -> None:
    """Not in its log at debug level, a status, an event, a metric or the database; its own password included."""
    values = {name: canary() for name in ("in a Secret", "declared", "declared under another name", "a variable")}
    values["the database's password"] = tenancy.database.publisher.split(":")[2].split("@")[0]
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mail", "namespace": tenancy.namespace}}
    tenancy.apply({**secret, "stringData": {"password": values["in a Secret"]}})
    with Operator.running(tenancy, DEBUG="true", MAIL_PASSWORD=values["a variable"]) as operator:
        good = tenancy.world()
        good[1]["spec"]["secretRefs"] = [{"name": "mail", "kind": "Env", "ref": "MAIL_PASSWORD", "required": True}]
        refused = {
            "environment": {"password": values["declared"]},
            "services": {"m": {"type": "t", "endpoint": "http://m:1", "metadata": {"token": values["declared"]}}},
        }
        odd = {"deploymentKey": "d", "version": 1, values["declared under another name"]: {"password": "x"}}
        tenancy.apply(*good)
        tenancy.apply(tenancy.resource("Manifest", "bad", {"deploymentKey": "d", "version": 1, **refused}))
        tenancy.kubectl.run(
            "apply", "--validate=false", "-f", "-", stdin=tenancy.resource("Manifest", "odd", odd), check=False
        )
        assert tenancy.condition("Manifest", "bad", "Accepted")["status"] == "False"
        _, metrics = operator.probe("/metrics")
        eventually(lambda: tenancy.kubectl.get("-n", tenancy.namespace, "events")["items"])
        listed = json.loads(tenancy.kubectl.run("get", ALL_KINDS, "-n", tenancy.namespace, "-o", "json").stdout)
        places = {
            "statuses": json.dumps([item.get("status") for item in listed["items"]]),
            "events": json.dumps(tenancy.kubectl.get("-n", tenancy.namespace, "events")["items"]),
            "metrics": metrics,
            "the database": dump(tenancy.database.superuser),
        }
        operator.terminate()
        places["the log"] = operator.log
    assert "spec.environment.password" in places["statuses"]
    assert canaries_in(values, places) == []
