"""Whose plans are served: a file of the namespace's name, with a credential of that tenant's own delegate (DG-02)."""

from collections.abc import Callable
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from structlog.testing import capture_logs

from legivellum.http.problem_codes import Code, ProblemCode
from legivellum.http.problems import RequestRefused
from legivellum.identity.api_keys import MintedKey, mint
from legivellum.identity.authenticator import Authenticator
from legivellum.identity.keyring import KeyRing
from legivellum.identity.replica import ReplicatedDirectory
from legivellum.identity.tenant_credentials import Introspect, ServedTenant, TenantCredentials
from legivellum.identity.tokens import TokenVerifier
from legivellum.postgres.errors import Unavailable
from legivellum.postgres.published_identity import CredentialChanges, KnownPrincipal, PublishedKey

TEAM, OTHER = UUID(int=1), UUID(int=2)


class Identities:
    """The gate's own authenticator, with what MetaGate published."""

    def __init__(self) -> None:
        self.now = 0.0
        self.keys = KeyRing()
        self.directory = ReplicatedDirectory(stale_seconds=60, clock=lambda: self.now)
        self.authenticator = Authenticator(
            keys=self.keys, tokens=TokenVerifier(audiences=("delegate",)), directory=self.directory
        )
        self._known: dict[tuple[str, str], KnownPrincipal] = {}
        self._published: list[PublishedKey] = []

    def declare(
        self, namespace: str = "team-a", tenant: UUID = TEAM, kind: str = "delegate", *, suspended: bool = False
    ) -> MintedKey:
        key = mint()
        self._published.append(PublishedKey(key.sha256, key.id, None))
        self._known["", key.sha256] = KnownPrincipal(
            tenant, namespace, None, f"{kind}-1", kind, "Namespace", (), suspended
        )
        self.publish()
        return key

    def withdraw(self, key: MintedKey) -> None:
        self._published = [row for row in self._published if row.sha256 != key.sha256]
        self.publish()

    def publish(self) -> None:
        self.directory.replace(self._known)
        self.authenticator.apply(CredentialChanges(1, True, tuple(self._published), (), (), (), (), ()))


class GateCode(Code):
    """The codes of a gate that acts for tenants."""

    TENANT_NOT_SERVED = ProblemCode(403, "Tenant not served", "It has no credential.", "Give it one.")


def of_delegates(directory: Path | None, introspect: Introspect) -> TenantCredentials:
    return TenantCredentials(
        directory, introspect, principal_type="delegate", not_served=GateCode.TENANT_NOT_SERVED, gate="delegate",
        api_key_header="X-API-Key",
    )  # fmt: skip


@pytest.fixture
def identities() -> Identities:
    return Identities()


@pytest.fixture
def credentials(identities: Identities, tmp_path: Path) -> TenantCredentials:
    return of_delegates(tmp_path, identities.authenticator.introspect)


async def code_of(credentials: TenantCredentials, namespace: str) -> str:
    """The code of the refusal; "" where the tenant is served."""
    try:
        await credentials.of(namespace)
    except RequestRefused as refused:
        return refused.problem.code.name
    return ""


async def test_a_tenant_is_served_with_the_key_of_its_own_delegate(
    identities: Identities, credentials: TenantCredentials, tmp_path: Path
) -> None:
    key = identities.declare()
    (tmp_path / "team-a").write_text(f"{key.key}\n")
    served = await credentials.of("team-a")
    assert (served.uid, served.namespace, served.principal_key) == (TEAM, "team-a", "delegate-1")
    assert served.headers == {"X-API-Key": key.key}
    assert await credentials.by_uid(TEAM) == served
    assert key.key not in repr(served)
    assert await credentials.all() == [served]


REFUSED: dict[str, Callable[[Identities], str]] = {
    "a key of another tenant": lambda identities: identities.declare("team-b", OTHER).key,
    "a key of a worker": lambda identities: identities.declare(kind="worker").key,
    "a key of an admin": lambda identities: identities.declare(kind="admin").key,
    "a key of a suspended delegate": lambda identities: identities.declare(suspended=True).key,
    "a key that nobody declared": lambda _identities: mint().key,
    "nothing": lambda _identities: "\n",
    "two lines": lambda identities: f"{identities.declare().key}\n{identities.declare().key}\n",
    "no credential": lambda _identities: "secret",
    "not ASCII": lambda _identities: "mgk_ä",
    "too much": lambda _identities: "a" * 20_000,
}


@pytest.mark.parametrize("what", REFUSED)
async def test_a_file_that_opens_nothing(
    what: str, identities: Identities, credentials: TenantCredentials, tmp_path: Path
) -> None:
    """The same refusal whatever the reason; the log says once why, and never what the file holds."""
    content = REFUSED[what](identities)
    (tmp_path / "team-a").write_text(content)
    with capture_logs() as events:
        assert [await code_of(credentials, "team-a") for _ in range(3)] == ["TENANT_NOT_SERVED"] * 3
    assert [event["event"] for event in events] == ["credential_refused"]
    assert content.strip() == "" or content.strip()[:40] not in str(events)
    assert await credentials.all() == []


@pytest.mark.parametrize(
    "name", ["absent", "", ".", "..", "../team-a", "/etc/passwd", "..data", "a/b", "Team", "a\0b", "a" * 64]
)
async def test_a_name_that_is_no_namespace_reads_no_file(
    name: str, identities: Identities, credentials: TenantCredentials, tmp_path: Path
) -> None:
    outside = tmp_path.parent / "team-a"
    outside.write_text(identities.declare().key)
    assert await code_of(credentials, name) == "TENANT_NOT_SERVED"


async def test_a_changed_file_is_read_again(
    identities: Identities, credentials: TenantCredentials, tmp_path: Path
) -> None:
    """As Kubernetes swaps a mounted Secret: through a link, in one step; the old key may be withdrawn then."""
    first, second = identities.declare(), identities.declare()
    for name, key in (("..first", first), ("..second", second)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "team-a").write_text(key.key)
    (tmp_path / "..data").symlink_to("..first")
    (tmp_path / "team-a").symlink_to("..data/team-a")
    assert (await credentials.of("team-a")).headers == {"X-API-Key": first.key}
    (tmp_path / "..new").symlink_to("..second")
    (tmp_path / "..new").rename(tmp_path / "..data")
    identities.withdraw(first)
    assert (await credentials.of("team-a")).headers == {"X-API-Key": second.key}
    assert credentials.namespaces() == ["team-a"]
    (tmp_path / "team-a").unlink()
    assert await code_of(credentials, "team-a") == "TENANT_NOT_SERVED"


async def test_the_log_says_when_a_credential_is_good_again(
    identities: Identities, credentials: TenantCredentials, tmp_path: Path
) -> None:
    (tmp_path / "team-a").write_text("junk")
    with capture_logs() as events:
        await code_of(credentials, "team-a")
        (tmp_path / "team-a").write_text(identities.declare().key)
        assert await code_of(credentials, "team-a") == ""
        assert await code_of(credentials, "team-a") == ""
    assert [(event["event"], event["namespace"]) for event in events] == [
        ("credential_refused", "team-a"), ("credential_accepted", "team-a"),
    ]  # fmt: skip


async def test_a_token_is_sent_as_such(tmp_path: Path) -> None:
    """Whatever does not look like a key; its own audiences are for the gates that it is sent to."""
    from legivellum.identity.caller import Caller, Credential

    async def introspect(_credential: bytes) -> Caller:
        credential = Credential("token", "https://issuer", "delegate", "1")
        return Caller(
            TEAM, "team-a", "d", "delegate", "Namespace", frozenset(), False, credential, None, None, "memorygate"
        )

    (tmp_path / "team-a").write_text("eyJ.eyJ.sig\n")
    served = await of_delegates(tmp_path, introspect).of("team-a")
    assert served.headers == {"Authorization": "Bearer eyJ.eyJ.sig"}


async def test_nobody_is_served_without_a_directory(identities: Identities, tmp_path: Path) -> None:
    for directory in (None, tmp_path / "absent"):
        credentials = of_delegates(directory, identities.authenticator.introspect)
        assert await code_of(credentials, "team-a") == "TENANT_NOT_SERVED"
        assert await credentials.all() == []
        with pytest.raises(RequestRefused):
            await credentials.by_uid(uuid4())


async def test_old_identities_are_an_outage_and_no_refusal(
    identities: Identities, credentials: TenantCredentials, tmp_path: Path
) -> None:
    """Nobody can say whose the credential is: 503, so that a caller comes again."""
    (tmp_path / "team-a").write_text(identities.declare().key)
    identities.now = 61
    with pytest.raises(Unavailable):
        await credentials.of("team-a")


def test_a_served_tenant_prints_no_credential() -> None:
    assert "mgk_" not in f"{ServedTenant(TEAM, 'team-a', 'd', {'X-API-Key': 'mgk_secret'})}"
