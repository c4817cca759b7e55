"""D-64: every time that the gate says is RFC 3339 in UTC with `Z` and microseconds."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.integration.api.gate_fixture import GateFixture

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
NAMES = re.compile(r"[a-z_]+_at|issued_at|counted_since")


def times(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every member whose name is a time's and that has a value, with where it stands."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in members:
        if isinstance(name, str) and NAMES.fullmatch(name) and inner is not None:
            yield f"{path}.{name}", inner
        yield from times(inner, f"{path}.{name}")


async def test_every_time_has_microseconds_and_z(gate: GateFixture) -> None:
    """In packets, reports, lists, views and histories; also of a database whose clock has another time zone."""
    admin = await gate.principal(
        "admin", type="admin", key_expires=datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    )
    # The gate's own connections take the time zone of the database when they are opened.
    await gate.ask(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET timezone = %L', current_database(), 'Asia/Kathmandu'); END $$"
    )
    await gate.ask(
        "SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity AS a "
        "WHERE a.datname = current_database() AND a.application_name = 'metagate api'"
    )
    booted = await gate.boot(admin)
    while booted.status_code == 503:
        booted = await gate.boot(admin)
    session = booted.json()["startup"]["startup_id"]
    bodies = {"boot": booted.json(), "header": {"deadline_at": booted.headers["metagate-startup-deadline"]}}
    bodies["ready"] = (await gate.ready(admin, session)).json()
    for path in (
        "/readyz", "/v1/startups", "/v1/summary", f"/v1/startup/{session}", f"/v1/startup/{session}/packet",
        "/v1/admin/principals", "/v1/admin/principals/admin", "/v1/admin/bindings", "/v1/admin/history",
        "/v1/admin/history/objects",
    ):  # fmt: skip
        answer = await gate.client.get(path, headers=admin.by_key)
        assert answer.status_code == 200, (path, answer.text)
        bodies[path] = answer.json()
    result = [(f"{name}{where}", time) for name, body in bodies.items() for where, time in times(body)]
    assert {where.split(".")[-1] for where, _ in result} >= {
        "issued_at", "deadline_at", "compiled_at", "acknowledged_at", "opened_at", "expires_at",
    }  # fmt: skip
    assert [item for item in result if not TIME.fullmatch(item[1])] == []
