"""Gates without a database of their own: one that only shows views of itself, one that knows its callers."""

import pickle
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from pydantic import Field, SecretStr
from tests.integration.memorygate.ledger_fixture import free_port
from typer.main import get_command
from typer.testing import CliRunner

from legivellum.gate.command_line import gate_commands
from legivellum.gate.composition import composed, serving
from legivellum.gate.definition import IdentityDefinition, ServedDefinition
from legivellum.gate.metrics import IdentityMetrics, ServedMetrics
from legivellum.gate.process import IdentityProcess, ServedProcess
from legivellum.gate.settings import IdentityGateSettings, ServedGateSettings, prefixed
from legivellum.http.endpoints import ANY_PRINCIPAL, ANYBODY, Endpoint, Reply
from legivellum.http.exchange import Exchange, Response, json_response
from legivellum.postgres.dsn import UnusableAddress

pytestmark = pytest.mark.asyncio(loop_scope="session")


class ViewSettings(ServedGateSettings):
    model_config = prefixed("VIEWGATE")

    port: int = Field(8098, description="Port to listen on; 0 picks one.", ge=0, le=65_535)


class AskedSettings(IdentityGateSettings):
    model_config = prefixed("ASKEDGATE")

    audience: str = Field("askedgate", description="The audience a token must be made for.", min_length=1)
    port: int = Field(8097, description="Port to listen on; 0 picks one.", ge=0, le=65_535)


async def number(_exchange: Exchange) -> Response:
    return json_response(200, b'{"counts":{"calls":1}}')


BESIDE: list[str] = []


def view_handlers(process: ServedProcess[ViewSettings]):
    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        BESIDE.append("entered")
        yield
        BESIDE.append("left")

    process.beside.append(running)
    return {"GET /number": number}


def asked_handlers(process: IdentityProcess[AskedSettings]):
    async def whoami(exchange: Exchange) -> Response:
        return json_response(200, (await process.authenticator.caller(exchange)).principal_key.encode())

    return {"GET /number": number, "GET /whoami": whoami}


NUMBER = Endpoint("GET", "/number", "A number.", ANYBODY, (Reply(200, "It.", "Object"),))
WHO = Endpoint("GET", "/whoami", "Who asks.", ANY_PRINCIPAL, (Reply(200, "A name.", "Object"),))
VIEW = ServedDefinition(
    module=__name__, name="viewgate", title="ViewGate", doctrine="It shows.", description="A gate of the tests.",
    settings=ViewSettings, endpoints=(NUMBER,), handlers=view_handlers, metrics=ServedMetrics("viewgate"),
)  # fmt: skip
ASKED = IdentityDefinition(
    module=__name__, name="askedgate", title="AskedGate", doctrine="It asks.", description="A gate of the tests.",
    settings=AskedSettings, endpoints=(NUMBER, WHO), handlers=asked_handlers, metrics=IdentityMetrics("askedgate"),
)  # fmt: skip


async def test_a_gate_that_only_shows_is_ready_at_once_and_knows_no_credentials() -> None:
    """No database is named anywhere: not in its settings, its readiness, its metrics or its document."""
    BESIDE.clear()
    async with serving(VIEW, ViewSettings(port=free_port())) as url, httpx.AsyncClient(base_url=url) as client:
        assert (await client.get("/readyz")).json() == {"status": "ok"}
        assert (await client.get("/number")).json() == {"counts": {"calls": 1}}
        assert (await client.get("/health")).json()["service"] == "viewgate"
        document = (await client.get("/openapi.json")).json()
        assert set(document["paths"]) == {"/", "/health", "/livez", "/readyz", "/metrics", "/openapi.json", "/number"}
        assert document["components"]["securitySchemes"] == {}
        exposition = (await client.get("/metrics")).text
        assert 'viewgate_http_requests_total{route="/number",status="200"} 1.0' in exposition
        assert not any(word in exposition for word in ("database", "identity", "auth_failures", "streams"))
        assert BESIDE == ["entered"]
    assert BESIDE == ["entered", "left"]
    assert not {"database_url", "identity_database_url", "audience", "rate_per_second"} & set(ViewSettings.model_fields)


async def test_a_gate_that_knows_its_callers_waits_for_the_principals() -> None:
    """It has no database of its own to wait for, and says so; what needs nobody is answered meanwhile."""
    nowhere = SecretStr(f"postgresql://metagate_identity@127.0.0.1:{free_port()}/metagate")
    chosen = AskedSettings(port=free_port(), identity_database_url=nowhere)
    async with serving(ASKED, chosen) as url, httpx.AsyncClient(base_url=url) as client:
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()["code"]) == (503, "NOT_READY")
        assert answer.json()["detail"] == "The principals are not known yet."
        assert (await client.get("/number")).status_code == 200
        assert (await client.get("/whoami")).json()["code"] == "CREDENTIAL_MISSING"
        assert (await client.get("/whoami", headers={"X-API-Key": "mgk_0"})).json()["code"] == "UNAVAILABLE"
        exposition = (await client.get("/metrics")).text
        assert "askedgate_identity_age_seconds -1.0" in exposition
        assert "database_up" not in exposition


async def test_the_address_of_the_identities_must_be_named() -> None:
    """There is no database of its own whose address could stand for it."""
    with pytest.raises(UnusableAddress, match="ASKEDGATE_IDENTITY_DATABASE_URL"):
        composed(ASKED, AskedSettings(port=0))


async def test_a_gate_without_a_schema_has_no_migrate() -> None:
    app = gate_commands("viewgate", "ViewGate.", (), lambda: VIEW)
    assert set(get_command(app).commands) == {"serve"}  # type: ignore[attr-defined]
    assert CliRunner().invoke(app, ["migrate"]).exit_code == 2
    assert CliRunner().invoke(app, ["serve", "--help"]).exit_code == 0


async def test_definitions_are_pickled_by_their_names() -> None:
    """A worker process imports the module."""
    assert VIEW.__reduce__()[1] == (f"{__name__}:GATE",)
    assert all(map(pickle.dumps, (VIEW, ASKED)))
