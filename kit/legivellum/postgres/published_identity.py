"""Principals and credentials as MetaGate's database publishes them: rows of its functions `resolve`, `everybody` and
`credentials`. MetaGate reads them with its own role, the other gates with `metagate_identity`.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from legivellum.postgres.pool import Pool

CHANGES: Final = (
    "SELECT m.mark AS newest, c.* FROM metagate.credential_mark() AS m (mark) "
    "LEFT JOIN metagate.credentials($1) AS c ON true"
)
"""Credentials that changed after a mark, and the newest mark; one row without a change when there is none."""

_REVISION: Final = "SELECT revision, pg_postmaster_start_time() FROM metagate.state()"


@dataclass(frozen=True, slots=True)
class PublishedRevision:
    """What was published last, and which server says so.

    A standby that is promoted may lack what the primary published last, and give the same numbers to other contents.
    Its start time differs from that of the primary: what was read before is then read again from the beginning.
    """

    number: int
    server_started_at: datetime


async def read_revision(pool: Pool) -> PublishedRevision:
    """Raises Unavailable, SchemaMismatch."""
    [row] = await pool.fetch(_REVISION)
    return PublishedRevision(int(row[0] or 0), row[1])


@dataclass(frozen=True, slots=True)
class KnownPrincipal:
    """The principal that declares a credential's subject."""

    tenant: UUID
    namespace: str
    namespace_created: datetime | None
    principal_key: str
    type: str
    scope: str
    rights: Collection[str]
    suspended: bool


@dataclass(frozen=True, slots=True)
class PublishedKey:
    sha256: str
    key_id: str
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class PublishedIssuer:
    issuer: str
    audiences: tuple[str, ...]
    algorithms: tuple[str, ...]
    max_token_lifetime_seconds: int
    source: str


@dataclass(frozen=True, slots=True)
class PublishedIssuerKey:
    issuer: str
    kid: str
    jwk: Mapping[str, Any]
    alg: str | None


@dataclass(frozen=True, slots=True)
class CredentialChanges:
    """What changed since a mark (`legivellum.identity.caller.Changes`). `full`: forget everything known before."""

    mark: int
    full: bool
    api_keys: tuple[PublishedKey, ...]
    issuers: tuple[PublishedIssuer, ...]
    issuer_keys: tuple[PublishedIssuerKey, ...]
    gone_api_keys: tuple[str, ...]
    gone_issuers: tuple[str, ...]
    gone_issuer_keys: tuple[tuple[str, str], ...]


def credential_changes(rows: Sequence[Mapping[str, Any]], *, full: bool) -> CredentialChanges:
    """From the rows of CHANGES. `full`: they are all there are, so that there is nothing to withdraw."""
    present: dict[str, list[Any]] = {"api_key": [], "issuer": [], "issuer_key": []}
    removed: dict[str, list[tuple[str, str]]] = {"api_key": [], "issuer": [], "issuer_key": []}
    changes = [row for row in rows if row["kind"] is not None]
    for row in changes:
        if row["body"] is not None:
            published = _published(row["kind"], row["a"], row["b"], json.loads(row["body"]))
            present[row["kind"]].append(published)
        elif not full:
            removed[row["kind"]].append((row["a"], row["b"]))
    return CredentialChanges(
        max((row["mark"] for row in changes), default=rows[0]["newest"]),
        full=full,
        api_keys=tuple(present["api_key"]),
        issuers=tuple(present["issuer"]),
        issuer_keys=tuple(present["issuer_key"]),
        gone_api_keys=tuple(a for a, _ in removed["api_key"]),
        gone_issuers=tuple(a for a, _ in removed["issuer"]),
        gone_issuer_keys=tuple(removed["issuer_key"]),
    )


def _published(
    kind: str, a: str, b: str, body: Mapping[str, Any]
) -> PublishedKey | PublishedIssuer | PublishedIssuerKey:
    if kind == "api_key":
        return PublishedKey(a, body["key_id"], _moment(body["expires_at"]))
    if kind == "issuer":
        seconds = body["max_token_lifetime_seconds"]
        return PublishedIssuer(a, tuple(body["audiences"]), tuple(body["algorithms"]), seconds, body["source"])
    return PublishedIssuerKey(a, b, body["jwk"], body["alg"])


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
