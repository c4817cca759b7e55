"""The token corpus against a served gate: every attack is 401 and leaves no row, every good token boots."""

import asyncio
import json

import pytest
from tests import corpora
from tests.integration.api.gate_fixture import GateFixture, PrincipalFixture
from tests.integration.identity.conftest import CLUSTER, OUTSIDE, Corpus, issuer_rows, subject_rows

POD, OTHER_POD = "another pod", "service account, RS256"


async def raw(gate: GateFixture, path: str, authorization: bytes, body: bytes) -> int:
    """Send a header that no client library would, and return the status of the answer."""
    reader, writer = await asyncio.open_connection(*gate.address)
    try:
        writer.write(
            b"POST %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
            b"Authorization: %b\r\nContent-Length: %d\r\n\r\n%b" % (path.encode(), authorization, len(body), body)
        )
        try:
            async with asyncio.timeout(10):
                line = await reader.readline()
        except ConnectionResetError:
            return 0
        return int(line.split()[1]) if line else 0
    finally:
        writer.close()


async def boot(gate: GateFixture, token: str) -> tuple[int, dict[str, object]]:
    headers = {"authorization": f"Bearer {token}"}
    answer = await gate.client.post("/v1/bootstrap", json={"component_key": "indexer_1"}, headers=headers)
    return answer.status_code, answer.json()


@pytest.mark.invariant("INV-003", "INV-004", "INV-016")
async def test_every_good_token_boots(gate: GateFixture, indexer: PrincipalFixture, corpus: Corpus) -> None:
    """Each good token is 200 with one row, and all of them are one principal with one packet."""
    before = await gate.sessions()
    answers = {name: await boot(gate, token) for name, token in corpus.good.items()}
    assert {name: status for name, (status, _) in answers.items() if status != 200} == {}
    assert {body["packet_etag"] for _, body in answers.values()} == {indexer.etag("indexer_1")}
    assert await gate.sessions() == before + len(corpus.good)


@pytest.mark.invariant("INV-002", "INV-016")
@pytest.mark.parametrize("path", ["bootstrap", "startup/ready", "startup/failed"])
async def test_every_attack_is_401_and_leaves_no_row(
    gate: GateFixture, indexer: PrincipalFixture, corpus: Corpus, path: str
) -> None:
    """Every attack token is refused before the body is looked at: 401, or 400 and 431 where it is not even a header."""
    before = await gate.sessions()
    wrong = {}
    for name, token in corpus.attacks.items():
        if name == "trailing space":
            continue  # white space around a header's value is not part of it
        status = await raw(gate, f"/v1/{path}", b"Bearer " + token, b"not JSON")
        corpora.count(f"tokens at /v1/{path}", status)
        header = b"\n" not in token and b"\x00" not in token and len(token) < 12_000
        if status not in ({401} if header else {400, 401, 431}):
            wrong[name] = status
    assert wrong == {}
    assert await gate.sessions() == before


async def test_refusals_say_nothing_of_the_credential(
    gate: GateFixture, indexer: PrincipalFixture, corpus: Corpus
) -> None:
    """A 401 is problem+json with a code, and no part of what was sent comes back."""
    for name in (
        "signed by a stranger with a known kid",
        "unknown kid",
        "no aud",
        "sub with NUL",
        "alg none with a signature",
    ):
        token = corpus.attacks[name].decode()
        answer = await gate.client.post(
            "/v1/bootstrap", json={"component_key": "x"}, headers={"authorization": f"Bearer {token}"}
        )
        assert answer.status_code == 401
        assert answer.headers["content-type"].startswith("application/problem+json")
        assert answer.json()["code"] == "CREDENTIAL_INVALID"
        assert not any(part in answer.text for part in token.split(".") if len(part) > 8)


@pytest.mark.invariant("INV-004")
async def test_a_genuine_token_of_nobody_is_403(gate: GateFixture, indexer: PrincipalFixture, corpus: Corpus) -> None:
    """A subject that no Principal declares is refused with its own code and leaves no row."""
    before = await gate.sessions()
    status, body = await boot(gate, corpus.later["stranger"])
    assert (status, body["code"]) == (403, "PRINCIPAL_UNKNOWN")
    assert await gate.sessions() == before


async def test_several_credentials_are_400(gate: GateFixture, indexer: PrincipalFixture, corpus: Corpus) -> None:
    """A good key and a good token together are refused, not picked from (D-32)."""
    before = await gate.sessions()
    token = {"authorization": f"Bearer {corpus.good['HS256']}"}
    answer = await gate.client.post(
        "/v1/bootstrap", json={"component_key": "indexer_1"}, headers={**indexer.by_key, **token}
    )
    assert (answer.status_code, answer.json()["code"]) == (400, "SEVERAL_CREDENTIALS")
    assert await gate.sessions() == before


async def test_a_startup_is_traced_to_its_pod_and_reported_from_there_only(
    gate: GateFixture, indexer: PrincipalFixture, corpus: Corpus
) -> None:
    """The row names pod and node of the token; another pod and the key of the same principal get 403 (D-43)."""
    status, body = await boot(gate, corpus.good[OTHER_POD])
    assert status == 200
    startup_id = str(body["startup"]["startup_id"])  # type: ignore[index]
    stored = await gate.stored(startup_id)
    assert (stored["pod_uid"], stored["pod_name"], stored["pod_node"]) == (
        "5f0c0b6e-1f57-4a4b-9f0f-3b1e6a0b5d11",
        "indexer-7c9",
        "node-1",
    )
    report = {"startup_id": startup_id, "build_version": "1"}
    for headers in ({"authorization": f"Bearer {corpus.later[POD]}"}, indexer.by_key):
        answer = await gate.client.post("/v1/startup/ready", json=report, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "NOT_THIS_POD")
    assert (await gate.stored(startup_id))["status"] == "OPEN"
    own = {"authorization": f"Bearer {corpus.good[OTHER_POD]}"}
    assert (await gate.client.post("/v1/startup/ready", json=report, headers=own)).status_code == 200


@pytest.mark.invariant("EXT-11")
async def test_a_suspended_principal_gets_one_code(
    gate: GateFixture, indexer: PrincipalFixture, corpus: Corpus
) -> None:
    """By key, by service-account token and by shared token: 403 PRINCIPAL_SUSPENDED, no row, and back again."""
    await gate.change(indexer, suspended=True)
    await gate.publish(subject=subject_rows(indexer))
    before = await gate.sessions()
    result = [await boot(gate, corpus.good[name]) for name in (OTHER_POD, "HS256", "EdDSA")]
    by_key = await gate.boot(indexer)
    assert [(status, body["code"]) for status, body in result] == [(403, "PRINCIPAL_SUSPENDED")] * 3
    assert (by_key.status_code, by_key.json()["code"]) == (403, "PRINCIPAL_SUSPENDED")
    assert await gate.sessions() == before
    await gate.change(indexer, suspended=False)
    assert (await boot(gate, corpus.good["HS256"]))[0] == 200


async def test_a_key_that_is_taken_back_is_refused_at_once(
    gate: GateFixture, indexer: PrincipalFixture, corpus: Corpus
) -> None:
    """A token that was believed a moment ago is refused when the key that signed it is gone, and only such tokens."""
    assert (await boot(gate, corpus.good["EdDSA"]))[0] == 200
    await gate.publish(deletes={"issuer_key": [(OUTSIDE, "ed-1")]})
    status, body = await boot(gate, corpus.good["EdDSA"])
    assert status == 401, body
    assert (await boot(gate, corpus.good["ES256"]))[0] == 200
    await gate.publish(issuer_key=issuer_rows(corpus)["issuer_key"])
    assert (await boot(gate, corpus.good["EdDSA"]))[0] == 200


async def test_an_issuer_that_is_taken_back_is_refused_at_once(
    gate: GateFixture, indexer: PrincipalFixture, corpus: Corpus
) -> None:
    """Deleting a TokenIssuer is a revocation of all its tokens, those already verified included (D-20, D-45)."""
    assert (await boot(gate, corpus.good["ES256"]))[0] == 200
    await gate.publish(deletes={"issuer": [(OUTSIDE,)]})
    status, _ = await boot(gate, corpus.good["ES256"])
    assert status == 401
    assert (await boot(gate, corpus.good[OTHER_POD]))[0] == 200
    await gate.publish(**issuer_rows(corpus))


async def test_a_subject_that_is_taken_back_is_refused(
    gate: GateFixture, indexer: PrincipalFixture, corpus: Corpus
) -> None:
    """A Principal that no longer names the subject no longer answers for it, within the time of a publication."""
    subject = (CLUSTER, "system:serviceaccount:team-a:indexer")
    assert (await boot(gate, corpus.good[OTHER_POD]))[0] == 200
    await gate.publish(deletes={"subject": [subject]})
    status, _ = await boot(gate, corpus.good[OTHER_POD])
    assert status in {401, 403}
    await gate.publish(subject=subject_rows(indexer))
    assert (await boot(gate, corpus.good[OTHER_POD]))[0] == 200


async def test_a_token_older_than_its_namespace_is_refused(
    gate: GateFixture, indexer: PrincipalFixture, corpus: Corpus
) -> None:
    """A namespace recreated after the token was issued is another tenant, which inherits nothing (D-46)."""
    await gate.ask(
        "UPDATE metagate.tenant SET created_at = now() + interval '1 minute' WHERE tenant = $1", indexer.tenant
    )
    try:
        await gate.publish(await gate.principal("somebody-else"))  # anything published makes the gate ask again
        for _ in range(100):
            status, body = await boot(gate, corpus.good[OTHER_POD])
            if status != 200:
                break
            await asyncio.sleep(0.02)
        assert status == 401
        assert "before its namespace" in json.dumps(body)
        assert (await boot(gate, corpus.good["HS256"]))[0] == 200
    finally:
        await gate.ask(
            "UPDATE metagate.tenant SET created_at = now() - interval '1 day' WHERE tenant = $1", indexer.tenant
        )
