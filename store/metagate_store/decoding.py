"""From the driver's records to the values of `rows`."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from metagate_store.rows import (
    ApiKeyRow,
    CredentialRowChanges,
    IdentityRow,
    IssuerKeyRow,
    IssuerRow,
    Item,
    PacketOutcome,
    PacketResult,
    PodRow,
    StartupPage,
    StartupRow,
    State,
    Topology,
    TopologyPrincipal,
    TopologyService,
)

Record = Mapping[str, Any]


def identity(row: Record) -> IdentityRow:
    return IdentityRow(
        tenant=row["tenant"],
        namespace=row["namespace"] or "",
        namespace_created=row["namespace_created"],
        principal_key=row["principal_key"],
        type=row["type"],
        scope=row["scope"],
        rights=tuple(row["rights"]),
        suspended=row["suspended"],
    )


def packet(row: Record) -> PacketResult:
    return PacketResult(**{**row, "outcome": PacketOutcome(row["outcome"])})


def startup(row: Record) -> StartupRow:
    pod = None if row["pod_uid"] is None else PodRow(row["pod_uid"], row["pod_name"], row["pod_node"])
    return StartupRow(
        tenant=row["tenant"],
        startup_id=row["startup_id"],
        principal_key=row["principal_key"],
        component_key=row["component_key"],
        status=row["status"],
        overdue=row["overdue"],
        late=row["late"],
        opened_at=row["opened_at"],
        deadline_at=row["deadline_at"],
        acknowledged_at=row["acknowledged_at"],
        packet_id=row["packet_id"],
        digest=row["digest"],
        revision=row["revision"],
        report=None if row["report"] is None else json.loads(row["report"]),
        pod=pod,
    )


def startup_page(rows: Sequence[Record], limit: int) -> StartupPage:
    """One row more than `limit` means that there is a next page; a row LOOKED says where a filter stopped looking."""
    found = [row for row in rows if row["status"] != "LOOKED"]
    items = tuple(startup(row) for row in found[:limit])
    end = items[-1] if len(found) > limit else next((row for row in rows if row["status"] == "LOOKED"), None)
    if end is None:
        return StartupPage(items, None)
    tenant, startup_id = (
        (end.tenant, end.startup_id) if isinstance(end, StartupRow) else (end["tenant"], end["startup_id"])
    )
    return StartupPage(items, (str(tenant), str(startup_id)))


def item(row: Record) -> Item:
    return Item(row["tenant"], row["namespace"], row["name"], row["revision"], _with_times(json.loads(row["body"])))


def _with_times(body: dict[str, Any]) -> dict[str, Any]:
    """Times of the columns, which jsonb writes in the session's time zone; what somebody declared stays as it is."""
    if "compiled_at" in body:
        body["compiled_at"] = _moment(body["compiled_at"])
    for key in body.get("api_keys", ()):
        key["expires_at"] = _moment(key["expires_at"])
    return body


def state(row: Record) -> State:
    return State(
        revision=row["revision"],
        compiled_at=row["compiled_at"],
        schema_version=row["schema_version"],
        now=row["at"],
        mirror_waiting=row["mirror_waiting"],
        mirror_lag_seconds=row["mirror_lag_seconds"],
    )


def topology(row: Record) -> Topology:
    return Topology(
        revision=row["revision"],
        principals=tuple(
            TopologyPrincipal(
                principal_key=one["principal_key"],
                type=one["type"],
                suspended=one["suspended"],
                components=tuple(one["components"]),
                seen=tuple(one["seen"]),
                profile=one["profile"],
                manifest=one["manifest"],
                services=tuple(one["services"]),
            )
            for one in json.loads(row["principals"])
        ),
        services=tuple(
            TopologyService(one["name"], one["type"], one["endpoint"], tuple(one["used_by"]))
            for one in json.loads(row["services"])
        ),
        more=row["more"],
    )


def credential_changes(rows: Sequence[Record], *, full: bool) -> CredentialRowChanges:
    """From the rows of `credentials`: a body says what there is, none that it is gone."""
    changed = [(row["kind"], row["a"], row["b"], row["body"]) for row in rows if row["kind"] is not None]
    there = [(kind, a, b, json.loads(body)) for kind, a, b, body in changed if body is not None]
    gone = [] if full else [(kind, a, b) for kind, a, b, body in changed if body is None]
    return CredentialRowChanges(
        mark=max((row["mark"] for row in rows if row["mark"] is not None), default=rows[0]["newest"]),
        full=full,
        api_keys=tuple(_api_key(a, body) for kind, a, _, body in there if kind == "api_key"),
        issuers=tuple(_issuer(a, body) for kind, a, _, body in there if kind == "issuer"),
        issuer_keys=tuple(_issuer_key(a, b, body) for kind, a, b, body in there if kind == "issuer_key"),
        gone_api_keys=tuple(a for kind, a, _ in gone if kind == "api_key"),
        gone_issuers=tuple(a for kind, a, _ in gone if kind == "issuer"),
        gone_issuer_keys=tuple((a, b) for kind, a, b in gone if kind == "issuer_key"),
    )


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _api_key(sha256: str, body: Record) -> ApiKeyRow:
    return ApiKeyRow(
        sha256=sha256,
        key_id=body["key_id"],
        tenant=UUID(body["tenant"]),
        principal_key=body["principal_key"],
        expires_at=_moment(body["expires_at"]),
    )


def _issuer(issuer: str, body: Record) -> IssuerRow:
    return IssuerRow(
        issuer=issuer,
        name=body["name"],
        audiences=tuple(body["audiences"]),
        algorithms=tuple(body["algorithms"]),
        max_token_lifetime_seconds=body["max_token_lifetime_seconds"],
        source=body["source"],
        url=body["url"],
    )


def _issuer_key(issuer: str, kid: str, body: Record) -> IssuerKeyRow:
    return IssuerKeyRow(
        issuer=issuer, kid=kid, jwk=body["jwk"], alg=body["alg"], first_seen=_moment(body["first_seen"])
    )
