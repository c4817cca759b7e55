"""Small published worlds for the store's tests, written as rows: the compiler has its own tests."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from uuid_utils.compat import uuid7

from metagate_store.publisher import Publisher
from metagate_store.rows import (
    BootstrapQuery,
    Change,
    ChangeRow,
    CredentialRow,
    DeclaredRow,
    PodRow,
    ReportQuery,
    TenantRow,
)


def digest_of(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def content_of(values: dict[str, Any]) -> str:
    return digest_of(json.dumps(values, sort_keys=True).encode())


def row(owner: UUID | str, **values: Any) -> dict[str, Any]:
    return {**values, "owner": str(owner), "content": content_of(values)}


@dataclass(slots=True)
class Somebody:
    """A principal with a key, a subject and a binding."""

    tenant: UUID
    name: str
    components: tuple[str, ...] = ("*",)
    sla_seconds: int = 120
    suspended: bool = False
    type: str = "component"
    body: bytes | None = b'{"capabilities":{},"services":{}}'
    bound: bool = True
    uid: UUID = field(default_factory=uuid4)

    @property
    def key(self) -> str:
        return digest_of(f"{self.tenant}/{self.name}".encode())

    @property
    def digest(self) -> str | None:
        return None if self.body is None else digest_of(self.body)

    @property
    def credential(self) -> CredentialRow:
        return CredentialRow("key", "", self.key)

    @property
    def token(self) -> CredentialRow:
        return CredentialRow("token", "https://issuer.test", f"{self.tenant}:{self.name}")

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        tenant = str(self.tenant)
        made: dict[str, list[dict[str, Any]]] = {
            "principal": [
                row(
                    self.uid,
                    tenant=tenant,
                    principal_key=self.name,
                    type=self.type,
                    scope="Namespace",
                    rights=[],
                    suspended=self.suspended,
                    generation=1,
                )
            ],
            "api_key": [
                row(
                    self.uid,
                    sha256=self.key,
                    key_id=self.key[:10],
                    tenant=tenant,
                    principal_key=self.name,
                    expires_at=None,
                )
            ],
            "subject": [
                row(
                    self.uid,
                    issuer=self.token.issuer,
                    subject=self.token.subject,
                    tenant=tenant,
                    principal_key=self.name,
                )
            ],
        }
        if self.bound:
            made["binding"] = [
                row(
                    self.uid,
                    tenant=tenant,
                    principal_key=self.name,
                    name=f"{self.name}-binding",
                    digest=self.digest,
                    components=list(self.components),
                    sla_seconds=self.sla_seconds,
                    profile="worker",
                    manifest="prod",
                    generation=1,
                )
            ]
        return made

    def ask(self, component: str = "indexer_1", **kwargs: Any) -> BootstrapQuery:
        kwargs.setdefault("expected_digest", self.digest)
        kwargs.setdefault("credential", self.credential)
        return BootstrapQuery(
            tenant=self.tenant,
            principal_key=self.name,
            component_key=component,
            startup_id=uuid7(),
            packet_id=uuid7(),
            **kwargs,
        )

    def tells(self, startup_id: UUID, status: str = "READY", **kwargs: Any) -> ReportQuery:
        kwargs.setdefault("credential", self.credential)
        kwargs.setdefault("payload", '{"build_version": "1"}')
        return ReportQuery(tenant=self.tenant, principal_key=self.name, startup_id=startup_id, status=status, **kwargs)


def change_of(people: Iterable[Somebody], *, more: dict[str, list[dict[str, Any]]] | None = None) -> Change:
    """A change that publishes these people."""
    people = list(people)
    upserts: dict[str, list[dict[str, Any]]] = {}
    for person in people:
        for table, rows in person.rows().items():
            upserts.setdefault(table, []).extend(rows)
    for table, rows in (more or {}).items():
        upserts.setdefault(table, []).extend(rows)
    created = datetime(2026, 1, 1, tzinfo=UTC)
    return Change(
        upserts=upserts,
        packets={
            person.digest: person.body for person in people if person.digest is not None and person.body is not None
        },
        tenants=[
            TenantRow(tenant, f"team-{tenant.hex[:8]}", created) for tenant in {person.tenant for person in people}
        ],
        audit=[
            ChangeRow(
                "Principal",
                person.tenant,
                "team",
                person.name,
                str(person.uid),
                1,
                None,
                content_of({"n": person.name}),
            )
            for person in people
        ],
    )


async def publish(dsn: str, *people: Somebody, more: dict[str, list[dict[str, Any]]] | None = None) -> int:
    publisher = await Publisher.open(dsn)
    try:
        await publisher.load()
        return await publisher.publish(change_of(people, more=more))
    finally:
        await publisher.close()


def somebody(name: str = "indexer", **kwargs: Any) -> Somebody:
    kwargs.setdefault("tenant", uuid4())
    return Somebody(name=name, **kwargs)


def declared(uid: UUID, generation: int = 1, **spec: Any) -> DeclaredRow:
    return DeclaredRow(str(uid), generation, "Profile", uuid4(), "team", "worker", datetime.now(UTC), spec)


__all__ = ["PodRow", "Somebody", "change_of", "declared", "digest_of", "publish", "row", "somebody"]
