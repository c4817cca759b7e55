"""From headers to a caller."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import UUID

import pytest
from tests.unit.identity.issued import (
    AUDIENCE,
    CLUSTER,
    NOW,
    OUTSIDE,
    SECRET,
    SHARED,
    Changed,
    KeyRow,
    account,
    claims,
    published,
    token,
)

from legivellum.identity import authenticator
from legivellum.identity.api_keys import mint
from legivellum.identity.auth_failure_throttle import AuthFailureThrottle
from legivellum.identity.authenticator import Authenticator, AuthFailure, Caller, Credential, FailureReason, Pod
from legivellum.identity.caller import VerificationContext
from legivellum.identity.keyring import KeyRing
from legivellum.identity.shared_secret import SharedSecret
from legivellum.identity.tokens import TokenVerifier

TENANT = UUID("5f0c0b6e-1f57-4a4b-9f0f-3b1e6a0b5d11")
KEY = mint()
LONG_AGO = datetime.fromtimestamp(NOW - 1000, UTC)


@dataclass(frozen=True)
class PrincipalStub:
    tenant: UUID = TENANT
    namespace: str = "team-a"
    namespace_created: datetime | None = LONG_AGO
    principal_key: str = "indexer"
    type: str = "component"
    scope: str = "Namespace"
    rights: Sequence[str] = ()
    suspended: bool = False


class FakeDirectory:
    """A directory in memory that counts what it is asked."""

    def __init__(self) -> None:
        self.subjects: dict[tuple[str, str], PrincipalStub] = {
            ("", KEY.sha256): PrincipalStub(),
            (OUTSIDE, "indexer@example.com"): PrincipalStub(),
            (CLUSTER, "system:serviceaccount:team-a:indexer"): PrincipalStub(),
            (SHARED, "tester"): PrincipalStub(),
        }
        self.asked: list[tuple[str, str]] = []

    async def resolve(self, issuer: str, subject: str) -> PrincipalStub | None:
        self.asked.append((issuer, subject))
        return self.subjects.get((issuer, subject))


@pytest.fixture
def directory() -> FakeDirectory:
    return FakeDirectory()


@pytest.fixture
def gate(directory: FakeDirectory) -> Authenticator:
    return make(directory)


def make(directory: FakeDirectory, **options: object) -> Authenticator:
    made = Authenticator(
        keys=KeyRing(),
        tokens=TokenVerifier(audiences=(AUDIENCE,), shared=SharedSecret(SHARED, SECRET)),
        directory=directory,
        clock=lambda: NOW,
        **options,  # type: ignore[arg-type]
    )
    made.apply(replace(published(), api_keys=(KeyRow(KEY.sha256, KEY.id),)))
    return made


def bearer(value: bytes) -> tuple[bytes, bytes]:
    return b"authorization", b"Bearer " + value


def api_key(value: bytes = KEY.key.encode()) -> tuple[bytes, bytes]:
    return b"x-api-key", value


async def refusal(gate: Authenticator, *headers: tuple[bytes, bytes]) -> FailureReason:
    caller = await gate.authenticate(headers)
    assert isinstance(caller, AuthFailure), caller
    return caller.reason


@pytest.mark.invariant("INV-003", "INV-004")
async def test_a_key_and_tokens_speak_for_one_principal(gate: Authenticator) -> None:
    """Key, outside token, service-account token and shared token are one principal when it declares them all."""
    shown = [
        api_key(),
        bearer(token(claims())),
        bearer(token(account())),
        bearer(SharedSecret(SHARED, SECRET).mint("tester", now=NOW).encode()),
    ]
    callers = [await gate.authenticate([(b"host", b"x"), header]) for header in shown]
    assert all(isinstance(caller, Caller) for caller in callers), callers
    assert {(c.tenant, c.namespace, c.principal_key) for c in callers if isinstance(c, Caller)} == {
        (TENANT, "team-a", "indexer")
    }
    assert [c.credential for c in callers if isinstance(c, Caller)] == [
        Credential("key", "", KEY.sha256, None),
        Credential("token", OUTSIDE, "indexer@example.com", "rs-1"),
        Credential("token", CLUSTER, "system:serviceaccount:team-a:indexer", "rs-1"),
        Credential("token", SHARED, "tester", None),
    ]


async def test_everything_known_of_a_caller_is_told(directory: FakeDirectory) -> None:
    """The caller carries identity, credential, pod and expiry, so that nobody has to look at the token again."""
    directory.subjects[CLUSTER, "system:serviceaccount:team-a:indexer"] = PrincipalStub(
        rights=("witness",), suspended=True
    )
    assert await make(directory).authenticate([bearer(token(account()))]) == Caller(
        tenant=TENANT,
        namespace="team-a",
        principal_key="indexer",
        type="component",
        scope="Namespace",
        rights=frozenset({"witness"}),
        suspended=True,
        credential=Credential("token", CLUSTER, "system:serviceaccount:team-a:indexer", "rs-1"),
        pod=Pod("5f0c0b6e-1f57-4a4b-9f0f-3b1e6a0b5d11", "indexer-7c9", "node-1"),
        expires_at=datetime.fromtimestamp(NOW + 3590, UTC),
        audience="metagate",
        verification=VerificationContext("metagate", "RS256", None, 3_600),
    )


@pytest.mark.parametrize(
    "headers",
    [
        [api_key(), bearer(b"x")],
        [bearer(b"x"), api_key()],
        [api_key(), api_key()],
        [bearer(b"x"), bearer(b"x")],
        [api_key(), (b"Authorization", b"Basic abc")],
        [(b"X-API-KEY", b"a"), (b"x-api-key", b"b")],
        [api_key(KEY.key.encode() + b", " + KEY.key.encode())],
        [(b"authorization", b"Bearer a.b.c, Bearer d.e.f")],
    ],
)
async def test_several_credentials_are_refused(
    gate: Authenticator, directory: FakeDirectory, headers: list[tuple[bytes, bytes]]
) -> None:
    """Two credentials are never picked from, not even two equal ones or two joined by a proxy: 400 (D-32)."""
    caller = await gate.authenticate(headers)
    assert isinstance(caller, AuthFailure)
    assert (caller.reason, caller.status) == (FailureReason.MULTIPLE_CREDENTIALS, 400)
    assert directory.asked == []


@pytest.mark.parametrize("scheme", [b"Bearer ", b"bearer ", b"BEARER "])
async def test_the_scheme_is_case_insensitive(gate: Authenticator, scheme: bytes) -> None:
    """RFC 9110 §11.1: the name of a scheme in any case, one space, the token."""
    caller = await gate.authenticate([(b"authorization", scheme + token(claims()))])
    assert isinstance(caller, Caller)


@pytest.mark.invariant("INV-002")
@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ([], FailureReason.MISSING),
        ([(b"cookie", b"session=1"), (b"x-forwarded-user", b"admin")], FailureReason.MISSING),
        ([(b"authorization", b"")], FailureReason.SCHEME),
        ([(b"authorization", b"Bearer")], FailureReason.SCHEME),
        ([(b"authorization", b"Basic aW5kZXhlcjpw")], FailureReason.SCHEME),
        ([(b"authorization", b"bearer\tabc")], FailureReason.SCHEME),
        ([(b"authorization", KEY.key.encode())], FailureReason.SCHEME),
        ([bearer(b"")], FailureReason.TOKEN_MALFORMED),
        ([bearer(b" " + token(claims()))], FailureReason.TOKEN_MALFORMED),
        ([bearer(KEY.key.encode())], FailureReason.TOKEN_MALFORMED),
        ([api_key(b"")], FailureReason.KEY_MALFORMED),
        ([api_key(b"x" * 16_000)], FailureReason.KEY_MALFORMED),
        ([api_key(KEY.key.encode() + b" ")], FailureReason.KEY_MALFORMED),
        ([api_key(KEY.sha256.encode())], FailureReason.KEY_MALFORMED),
        ([api_key(mint().key.encode())], FailureReason.KEY_UNKNOWN),
        ([(b"x-api-key-2", KEY.key.encode())], FailureReason.MISSING),
    ],
)
async def test_what_is_no_credential_is_401(
    gate: Authenticator, directory: FakeDirectory, headers: list[tuple[bytes, bytes]], reason: FailureReason
) -> None:
    """Everything wrong with a credential is 401 with its reason, and the directory is not asked."""
    caller = await gate.authenticate(headers)
    assert isinstance(caller, AuthFailure)
    assert (caller.reason, caller.status) == (reason, 401)
    assert directory.asked == []


@pytest.mark.invariant("INV-004")
async def test_a_good_token_of_nobody_is_403(gate: Authenticator, directory: FakeDirectory) -> None:
    """A subject that no Principal declares is authenticated and refused, also after it was once known."""
    caller = await gate.authenticate([bearer(token(claims(sub="stranger@example.com")))])
    assert isinstance(caller, AuthFailure)
    assert (caller.reason, caller.status) == (FailureReason.SUBJECT_UNKNOWN, 403)
    assert not isinstance(await gate.authenticate([api_key()]), AuthFailure)
    directory.subjects.clear()
    gate.apply(Changed(mark=2))
    assert await refusal(gate, api_key()) is FailureReason.SUBJECT_UNKNOWN


async def test_a_token_older_than_its_namespace_is_refused(directory: FakeDirectory) -> None:
    """A recreated namespace inherits nothing: a service account's token from before it is refused (D-46)."""
    at = (CLUSTER, "system:serviceaccount:team-a:indexer")
    value = bearer(token(account(iat=NOW - 10)))
    for created, believed in ((NOW - 11, True), (NOW - 10, True), (NOW - 9, False), (None, False)):
        moment = None if created is None else datetime.fromtimestamp(created + (0.9 if created == NOW - 10 else 0), UTC)
        directory.subjects[at] = PrincipalStub(namespace_created=moment)
        caller = await make(directory).authenticate([value])
        assert isinstance(caller, Caller) is believed, created
        assert believed or (isinstance(caller, AuthFailure) and caller.reason is FailureReason.BEFORE_NAMESPACE)


@pytest.mark.invariant("INV-003")
async def test_the_header_can_be_renamed(directory: FakeDirectory) -> None:
    """A renamed API key header works in any case of letters, and the old one is nothing any more."""
    gate = make(directory, api_key_header="X-Agent-Key")
    assert isinstance(await gate.authenticate([(b"x-agent-KEY", KEY.key.encode())]), Caller)
    assert await refusal(gate, api_key()) is FailureReason.MISSING


@pytest.mark.parametrize("name", ["", "Authorization", "cookie", "Host", "x api key", "x:y", "schlüssel", "x\r\ny"])
def test_a_header_name_that_cannot_be_is_refused(directory: FakeDirectory, name: str) -> None:
    """A name that is no header, or means something else already, is refused when it is set."""
    with pytest.raises(ValueError, match="API_KEY_HEADER"):
        make(directory, api_key_header=name)


async def test_what_the_directory_says_holds_from_the_next_request_on(
    gate: Authenticator, directory: FakeDirectory
) -> None:
    """Nothing is cached beside the directory: a changed type is effective at once, without any word of a publication."""
    assert isinstance(await gate.authenticate([api_key()]), Caller)
    directory.subjects["", KEY.sha256] = PrincipalStub(type="admin")
    changed = await gate.authenticate([api_key()])
    assert isinstance(changed, Caller)
    assert changed.type == "admin"
    assert directory.asked == [("", KEY.sha256)] * 2


async def test_a_subject_that_was_removed_is_nobody_at_the_next_request(
    gate: Authenticator, directory: FakeDirectory
) -> None:
    """A Principal that is gone is refused with the request that follows, key and token alike."""
    for header in (api_key(), bearer(token(claims()))):
        assert isinstance(await gate.authenticate([header]), Caller)
    directory.subjects.clear()
    for header in (api_key(), bearer(token(claims()))):
        assert await refusal(gate, header) is FailureReason.SUBJECT_UNKNOWN


async def test_a_refused_credential_never_asks_the_directory(gate: Authenticator, directory: FakeDirectory) -> None:
    """Junk costs no look-up: only a key or token that is valid is looked for."""
    for header in (
        api_key(b"junk"),
        api_key(mint().key.encode()),
        bearer(b"a.b.c"),
        bearer(token(claims(aud="other"))),
    ):
        assert isinstance(await gate.authenticate([header]), AuthFailure)
    assert directory.asked == []


async def test_a_directory_that_fails_is_not_a_refusal(gate: Authenticator, directory: FakeDirectory) -> None:
    """When nobody can be asked the error reaches the gate, which answers 503: never a 401 that makes callers give up."""

    async def broken(issuer: str, subject: str) -> PrincipalStub | None:
        raise ConnectionError("the database is away")

    directory.resolve = broken  # type: ignore[method-assign]
    with pytest.raises(ConnectionError):
        await gate.authenticate([api_key()])


async def test_senders_of_junk_wait_and_nobody_else(directory: FakeDirectory) -> None:
    """Refusals beyond the rate wait up to the longest wait; good credentials never do."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    throttle = AuthFailureThrottle(rate=10, burst=5, longest=0.25, clock=lambda: 0.0, sleep=sleep)
    gate = make(directory, throttle=throttle)
    for _ in range(20):
        assert await refusal(gate, api_key(b"junk")) is FailureReason.KEY_MALFORMED
        assert isinstance(await gate.authenticate([api_key()]), Caller)
    assert len(waits) == 15
    assert waits == sorted(waits)
    assert waits[-1] == pytest.approx(0.25)
    assert max(waits) <= 0.25


async def test_the_throttle_ends_with_the_flood() -> None:
    """A flood leaves no debt behind: a second after it a refusal is answered at once again."""
    now, waits = [0.0], list[float]()

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    throttle = AuthFailureThrottle(rate=10, burst=1, longest=0.25, clock=lambda: now[0], sleep=sleep)
    for _ in range(1000):
        await throttle()
    waits.clear()
    now[0] = 1.0
    await throttle()
    assert waits == []


def test_every_reason_has_its_status() -> None:
    """Several credentials are 400, an unknown subject 403, all else 401."""
    other = {FailureReason.MULTIPLE_CREDENTIALS: 400, FailureReason.SUBJECT_UNKNOWN: 403}
    assert {reason: authenticator.status_of(reason) for reason in FailureReason} == {
        reason: other.get(reason, 401) for reason in FailureReason
    }
