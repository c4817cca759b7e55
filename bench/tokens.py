"""What recognising a caller costs: new tokens beside pgbench, seen tokens beside keys, junk beside good ones, and
whether it matters how many API keys there are.

Rounds alternate and figures are medians, as in `bench.py`; the load generator is a process of its own. Signing is
done beforehand: an RSA signature costs more than everything that the gate does with it.
"""

import argparse
import asyncio
import base64
import json
import multiprocessing
import os
import secrets
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import asyncpg
import bootstraps
import console
import load
import machine
import setting
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from joserfc.jwk import ECKey, RSAKey

from metagate_store.publisher import Publisher
from metagate_store.rows import Change

ISSUER = "https://idp.bench.example"
MANY_KEYS = 200_000
Algorithm = Literal["RS256", "ES256"]


class BenchIssuer:
    """An outside issuer with a key per algorithm."""

    def __init__(self) -> None:
        made: dict[Algorithm, Any] = {
            "RS256": rsa.generate_private_key(65537, 2048),
            "ES256": ec.generate_private_key(ec.SECP256R1()),
        }
        self.pem = {
            name: key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) for name, key in made.items()
        }
        self.public = {
            "RS256": RSAKey.import_key(made["RS256"].public_key()).as_dict(private=False),
            "ES256": ECKey.import_key(made["ES256"].public_key()).as_dict(private=False),
        }

    async def publish(self, on: setting.BenchServer, booters: list[setting.BenchPrincipal]) -> None:
        publisher = await Publisher.open(on.publisher)
        await publisher.load()
        row = setting._row  # noqa: SLF001 - the benchmark's own
        await publisher.publish(
            Change(
                upserts={
                    "issuer": [
                        row(
                            issuer=ISSUER,
                            name="bench",
                            audiences=["metagate"],
                            algorithms=["RS256", "ES256"],
                            max_token_lifetime_seconds=7_200,
                            source="Inline",
                            url=None,
                            generation=1,
                        )
                    ],
                    "issuer_key": [
                        row(issuer=ISSUER, kid=name, jwk={**jwk, "kid": name}, alg=name)
                        for name, jwk in self.public.items()
                    ],
                    "subject": [
                        row(issuer=ISSUER, subject=booter.name, tenant=str(booter.tenant), principal_key=booter.name)
                        for booter in booters
                    ],
                }
            )
        )
        await publisher.close()

    def requests(self, algorithm: Algorithm, booters: list[setting.BenchPrincipal], number: int) -> list[bytes]:
        """Bootstraps with a new token each, signed on every core."""
        names = [booter.name for booter in booters]
        parts = os.cpu_count() or 1
        with multiprocessing.get_context("spawn").Pool(parts) as pool:
            made = pool.map(partial(signed, self.pem[algorithm], algorithm, names), [number // parts] * parts)
        return [request for part in made for request in part]


def signed(pem: bytes, algorithm: Algorithm, names: list[str], number: int) -> list[bytes]:
    key: Any = load_pem_private_key(pem, None)
    sign: Callable[[bytes], bytes] = partial(_es256 if algorithm == "ES256" else _rs256, key)
    now = int(time.time())
    head = _b64({"alg": algorithm, "kid": algorithm, "typ": "JWT"})
    made = []
    for n in range(number):
        claims = {"iss": ISSUER, "aud": "metagate", "iat": now, "exp": now + 3_600, "jti": secrets.token_hex(8)}
        text = f"{head}.{_b64({**claims, 'sub': names[n % len(names)]})}".encode()
        made.append(bearing(text + b"." + base64.urlsafe_b64encode(sign(text)).rstrip(b"=")))
    return made


def _rs256(key: rsa.RSAPrivateKey, text: bytes) -> bytes:
    return key.sign(text, padding.PKCS1v15(), hashes.SHA256())


def _es256(key: ec.EllipticCurvePrivateKey, text: bytes) -> bytes:
    r, s = decode_dss_signature(key.sign(text, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def _b64(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def bearing(token: bytes) -> bytes:
    body = b'{"component_key": "indexer_1"}'
    return (
        b"POST /v1/bootstrap HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (token, len(body), body)
    )


def junk(request: bytes, number: int) -> list[bytes]:
    """As dear as junk can be: everything right but the signature, so that one has to be verified each time."""
    head, _, rest = request.partition(b"\r\nContent-Type")
    text, _, signature = head.rpartition(b".")
    made = []
    for _ in range(number):
        wrong = base64.urlsafe_b64encode(secrets.token_bytes(256)).rstrip(b"=")[: len(signature)]
        made.append(text + b"." + wrong + b"\r\nContent-Type" + rest)
    return made


def _median(values: list[float]) -> float:
    return statistics.median(values)


def new_and_seen(
    on: setting.BenchServer, issuer: BenchIssuer, booters: list[setting.BenchPrincipal], arguments: argparse.Namespace
) -> dict[str, object]:
    """Every token new, then seen tokens and keys, in the rounds of one run beside pgbench."""
    result: dict[str, list[load.Tally]] = {"new RS256": [], "new ES256": [], "seen RS256": [], "API key": []}
    reference = []
    keys = [booter.request() for booter in booters]
    with setting.served(on, workers=arguments.workers) as port:
        drive = partial(load.drive, "127.0.0.1", port, connections=arguments.connections, seconds=arguments.seconds)
        enough = int(drive(keys, warm=0.5).rate * (arguments.seconds + 0.5))
        observations = issuer.requests("RS256", booters, len(booters))
        for number in range(arguments.rounds):
            console.step(f"tokens: round {number + 1} of {arguments.rounds}, {enough} new ones of each kind")
            for algorithm in ("RS256", "ES256"):
                tally = drive(issuer.requests(algorithm, booters, enough), warm=0.5, sharing="once")
                assert set(tally.statuses) == {200}, tally.statuses
                result[f"new {algorithm}"].append(tally)
            for name, requests in (("seen RS256", observations), ("API key", keys)):
                result[name].append(drive(requests, warm=0.5))
            reference.append(
                setting.pgbench(on, booters, connections=arguments.connections, seconds=max(1, int(arguments.seconds)))
            )
    rows = [bootstraps.BootstrapMeasurement(name, tallies, reference).as_row() for name, tallies in result.items()]
    console.table(
        f"Who is it: {arguments.connections} connections, {arguments.workers} workers, "
        f"{arguments.rounds} rounds of {arguments.seconds} s",
        bootstraps.COLUMNS,
        [bootstraps.row(row) for row in rows],
    )
    return {
        "rows": rows,
        "seen_to_keys": round(float(rows[2]["per_second"]) / float(rows[3]["per_second"]), 3),
    }


def beside_junk(
    on: setting.BenchServer, issuer: BenchIssuer, booters: list[setting.BenchPrincipal], arguments: argparse.Namespace
) -> dict[str, object]:
    """Good tokens alone, and with as many connections of junk beside them; by the gate's own CPU, because the machine
    also has to make the junk.
    """
    good = issuer.requests("RS256", booters, len(booters))
    solo, mixed, solo_cpu, mixed_cpu, refused, late = [], [], [], [], [], 0
    with setting.served_process(on, workers=arguments.workers) as (port, process):
        for _ in range(arguments.rounds):
            before = machine.cpu_seconds(process)
            asking = load.LoadPart(good, arguments.connections)
            [alone] = load.drive_apart(port, asking, seconds=arguments.seconds)
            middle = machine.cpu_seconds(process)
            nonsense = load.LoadPart(junk(good[0], 20_000), arguments.connections, "once")
            beside, bad = load.drive_apart(port, asking, nonsense, seconds=arguments.seconds)
            after = machine.cpu_seconds(process)
            # A 503 is an answer past its deadline, on a machine that is too busy; only answers with a packet count.
            assert {*alone.statuses, *beside.statuses} <= {200, 503}, (alone.statuses, beside.statuses)
            assert set(bad.statuses) <= {401, 503}, bad.statuses
            late += alone.statuses.get(503, 0) + beside.statuses.get(503, 0)
            solo.append(alone.rate)
            solo_cpu.append(alone.rate / (middle - before))
            mixed.append(beside.rate)
            mixed_cpu.append(beside.rate / (after - middle))
            refused.append(bad.statuses[401] / bad.seconds)
    return {
        "good_alone_per_second": round(_median(solo)),
        "good_beside_junk_per_second": round(_median(mixed)),
        "good_answered_late": late,
        "junk_refused_per_second": round(_median(refused)),
        "kept": round(_median(mixed) / _median(solo), 3),
        "kept_per_cpu_of_the_gate": round(_median(mixed_cpu) / _median(solo_cpu), 3),
    }


async def add_keys(on: setting.BenchServer, booters: list[setting.BenchPrincipal], number: int) -> None:
    """Keys of nobody in particular, straight into the snapshot: who compiles them is measured elsewhere."""
    connection = await asyncpg.connect(on.superuser)
    try:
        await connection.execute(
            "INSERT INTO metagate.api_key (sha256, key_id, tenant, principal_key, owner, content, revision) "
            "SELECT encode(sha256(('bench-' || n)::bytea), 'hex'), lpad(n::text, 10, '0'), "
            f"'{booters[0].tenant}', '{booters[0].name}', gen_random_uuid(), '', "
            f"(SELECT max(revision) FROM metagate.revision) FROM generate_series(1, {number}) n"
        )
        # What the server would do a minute later, in the middle of the measurement.
        await connection.execute("VACUUM ANALYZE metagate.api_key, metagate.credential_change")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()


def many_keys(
    on: setting.BenchServer, _: BenchIssuer, booters: list[setting.BenchPrincipal], arguments: argparse.Namespace
) -> dict[str, object]:
    """Good and junk keys with few keys published and with MANY_KEYS."""
    few = len(booters)
    good = [booter.request() for booter in booters]
    wrong = [
        good[0].replace(booters[0].key.encode(), setting.BenchPrincipal(booter.tenant, "x").key.encode())
        for booter in booters
    ]
    result: dict[str, dict[str, float]] = {}
    for number in (few, MANY_KEYS):
        if number > few:
            asyncio.run(add_keys(on, booters, number - few))
        with setting.served_process(on, workers=1) as (port, process):
            rates, cpu = [], []
            for _ in range(arguments.rounds):
                drive = partial(
                    load.drive, "127.0.0.1", port, connections=arguments.connections, seconds=arguments.seconds
                )
                rates.append(drive(good, warm=0.3).rate)
                before = machine.cpu_seconds(process)
                bad = drive(wrong, warm=0.0)
                assert set(bad.statuses) == {401}, bad.statuses
                cpu.append((machine.cpu_seconds(process) - before) / bad.statuses[401])
            result[str(number)] = {
                "good_per_second": round(_median(rates)),
                "junk_cpu_microseconds": round(_median(cpu) * 1e6),
            }
    return {
        **result,
        "many_to_few": round(result[str(MANY_KEYS)]["good_per_second"] / result[str(few)]["good_per_second"], 3),
    }


def main(arguments: argparse.Namespace) -> dict[str, object]:
    """New and seen tokens; junk and two hundred thousand keys only in the long run (`arguments.full`)."""
    with setting.base() as on:
        booters = asyncio.run(setting.publish(on, 64))
        issuer = BenchIssuer()
        asyncio.run(issuer.publish(on, booters))
        result: dict[str, object] = {
            "tokens": new_and_seen(on, issuer, booters, arguments),
            "connections": arguments.connections,
            "workers": arguments.workers,
            "rounds": arguments.rounds,
            "seconds": arguments.seconds,
        }
        if arguments.full:
            for name, part in (("junk", beside_junk), ("api_keys", many_keys)):
                console.step(f"tokens: {name}")
                result[name] = part(on, issuer, booters, arguments)
                console.table(name, ("", "figure"), _flat(result[name]))
    return result


def _flat(figures: object, above: str = "") -> list[list[object]]:
    assert isinstance(figures, dict)
    rows: list[list[object]] = []
    for name, value in figures.items():
        at = f"{above}{name.replace('_', ' ')}"
        rows += _flat(value, f"{at}, ") if isinstance(value, dict) else [[at, value]]
    return rows
