"""From the driver's records to the values of `rows`."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from legivellum.postgres.published_identity import KnownPrincipal
from metagate_store.rows import (
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


def identity(row: Record) -> KnownPrincipal:
    return KnownPrincipal(
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
    matching = [row for row in rows if row["status"] != "LOOKED"]
    items = tuple(startup(row) for row in matching[:limit])
    end = items[-1] if len(matching) > limit else next((row for row in rows if row["status"] == "LOOKED"), None)
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
        server_started_at=row["server_started_at"],
    )


def topology(row: Record) -> Topology:
    return Topology(
        revision=row["revision"],
        principals=tuple(
            TopologyPrincipal(
                principal_key=principal["principal_key"],
                type=principal["type"],
                suspended=principal["suspended"],
                components=tuple(principal["components"]),
                seen=tuple(principal["seen"]),
                profile=principal["profile"],
                manifest=principal["manifest"],
                services=tuple(principal["services"]),
            )
            for principal in json.loads(row["principals"])
        ),
        services=tuple(
            TopologyService(service["name"], service["type"], service["endpoint"], tuple(service["used_by"]))
            for service in json.loads(row["services"])
        ),
        more=row["more"],
    )


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
