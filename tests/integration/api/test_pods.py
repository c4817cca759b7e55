"""Service-account tokens at the socket: verified offline, bound to their pod, dead with their key or their namespace."""

import time
from typing import Any
from uuid import uuid4

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey
from tests.integration.api.gate_fixture import GateFixture, PrincipalFixture
from tests.integration.store.worlds import row

ISSUER = "https://kubernetes.default.svc.cluster.local"
KEY = RSAKey.generate_key(2048, {"kid": "cluster-1", "use": "sig", "alg": "RS256"})


def account(namespace: str, pod: str | None = "pod-1", **changes: Any) -> str:
    """A projected token of service account `indexer`."""
    now = int(time.time())
    bound: dict[str, Any] = {"namespace": namespace, "serviceaccount": {"name": "indexer", "uid": "sa-uid"}}
    if pod is not None:
        bound |= {"pod": {"name": f"{pod}-name", "uid": pod}, "node": {"name": "node-1", "uid": "n"}}
    claims = {
        "iss": ISSUER,
        "sub": f"system:serviceaccount:{namespace}:indexer",
        "aud": ["metagate"],
        "iat": now,
        "nbf": now,
        "exp": now + 3_600,
        "jti": str(uuid4()),
        "kubernetes.io": bound,
        **changes,
    }
    return jwt.encode({"alg": "RS256", "kid": "cluster-1"}, claims, KEY)


async def settle(gate: GateFixture) -> tuple[PrincipalFixture, str]:
    """A principal whose subject is a service account of its namespace, and the cluster's issuer with its key."""
    tenant = uuid4()
    namespace = f"team-{tenant.hex[:8]}"
    principal = PrincipalFixture(tenant, "indexer")
    subject = row(
        principal.uid,
        issuer=ISSUER,
        subject=f"system:serviceaccount:{namespace}:indexer",
        tenant=str(tenant),
        principal_key="indexer",
    )
    issuer = row(
        uuid4(),
        issuer=ISSUER,
        name="cluster",
        audiences=["metagate"],
        algorithms=["RS256"],
        max_token_lifetime_seconds=7_200,
        source="Cluster",
        url=None,
        generation=1,
    )
    key = row(uuid4(), issuer=ISSUER, kid="cluster-1", jwk=KEY.as_dict(private=False), alg="RS256")
    await gate.publish(principal, subject=[subject], issuer=[issuer], issuer_key=[key])
    return principal, namespace


async def boot(gate: GateFixture, token: str, **headers: str) -> httpx.Response:
    return await gate.client.post(
        "/v1/bootstrap", json={"component_key": "indexer_1"}, headers={"authorization": f"Bearer {token}", **headers}
    )


async def ready(gate: GateFixture, session: str, headers: dict[str, str]) -> httpx.Response:
    body = {"startup_id": session, "build_version": "1"}
    return await gate.client.post("/v1/startup/ready", json=body, headers=headers)


@pytest.mark.invariant("INV-021", "INV-003")
async def test_only_the_same_pod_reports(gate: GateFixture) -> None:
    """D-43: another pod, a token of no pod and the API key of the same principal are 403 NOT_THIS_POD; the pod is 200."""
    principal, namespace = await settle(gate)
    mine = account(namespace)
    booted = await boot(gate, mine)
    assert booted.status_code == 200, booted.text
    session = booted.json()["startup"]["startup_id"]
    stored = await gate.stored(session)
    assert (stored["pod_uid"], stored["pod_name"], stored["pod_node"]) == ("pod-1", "pod-1-name", "node-1")
    others = [
        {"authorization": f"Bearer {account(namespace, 'pod-2')}"},
        {"authorization": f"Bearer {account(namespace, None)}"},
        principal.by_key,
    ]
    for headers in others:
        answer = await ready(gate, session, headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "NOT_THIS_POD")
        again = await gate.client.get(f"/v1/startup/{session}/packet", headers=headers)
        assert (again.status_code, again.json()["code"]) == (403, "NOT_THIS_POD")
    assert (await gate.stored(session))["status"] == "OPEN"
    renewed = account(namespace)
    assert (await ready(gate, session, {"authorization": f"Bearer {renewed}"})).status_code == 200


async def test_a_replay_belongs_to_its_pod(gate: GateFixture) -> None:
    """D-41: another pod with the same Idempotency-Key gets 403, not the first pod's session."""
    _, namespace = await settle(gate)
    key = {"idempotency-key": "same"}
    first = await boot(gate, account(namespace), **key)
    again = await boot(gate, account(namespace), **key)
    assert again.json() == first.json()
    other = await boot(gate, account(namespace, "pod-2"), **key)
    assert (other.status_code, other.json()["code"]) == (403, "NOT_THIS_POD")


@pytest.mark.invariant("INV-002", "INV-003")
async def test_tokens_that_do_not_hold(gate: GateFixture) -> None:
    """Another audience, expired, issued before the namespace was created (D-46), another namespace's account: no row."""
    _, namespace = await settle(gate)
    now = int(time.time())
    before = await gate.sessions()
    for status, token in [
        (401, account(namespace, aud=["another"])),
        (401, account(namespace, iat=now - 7_000, nbf=now - 7_000, exp=now - 100)),
        (401, account(namespace, iat=now - 90_000, exp=now - 90_000 + 7_000)),
        (401, account(namespace, sub="system:serviceaccount:kube-system:indexer")),
        (401, account(namespace, exp=now + 100_000)),
        (403, account("elsewhere")),
    ]:
        answer = await boot(gate, token)
        assert answer.status_code == status, answer.text
    assert await gate.sessions() == before


async def test_a_retired_key_takes_its_tokens_along(gate: GateFixture) -> None:
    """A token that was verified a moment ago is refused once its key is gone (D-45)."""
    _, namespace = await settle(gate)
    token = account(namespace)
    assert (await boot(gate, token)).status_code == 200
    await gate.publish(deletes={"issuer_key": [(ISSUER, "cluster-1")]})
    answer = await boot(gate, token)
    assert answer.status_code == 401
