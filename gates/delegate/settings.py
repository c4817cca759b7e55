"""Everything an installation of DeleGate can choose: what every gate that follows identity has, and its own."""

from typing import Literal

from pydantic import AliasChoices, Field, SecretStr

from legivellum.gate.settings import IdentityGateSettings, prefixed

IDENTITY_DATABASE_URL = "postgresql://metagate_identity@127.0.0.1:5432/metagate"
LARGEST_REQUEST = 48 * 1_024
_URL = r"^https?://[^\s/]+(/.*)?$"


class Settings(IdentityGateSettings):
    """One field per setting; docs/delegate/settings.md shows the same table."""

    model_config = prefixed("DELEGATE")

    identity_database_url: SecretStr | None = Field(
        SecretStr(IDENTITY_DATABASE_URL), description="MetaGate's database as the role `metagate_identity`."
    )
    audience: str = Field("delegate", description="The audience a token must be made for (D-44).", min_length=1)
    port: int = Field(8004, description="Port to listen on; 0 picks one.", ge=0, le=65_535)
    body_bytes: int = Field(LARGEST_REQUEST, description="Largest request body.", ge=1_024, le=LARGEST_REQUEST)
    deadline_ms: int = Field(
        10_000, description="Milliseconds within which every request is answered.", ge=50, le=60_000
    )
    # A gate that hands out work and may have missed a withdrawal must not go on: it fails closed.
    identity_stale_seconds: float = Field(
        60.0,
        validation_alias=AliasChoices("DELEGATE_STALE_SECONDS"),
        description="How long principals and templates are believed while MetaGate's database is away; then 503.",
        gt=0,
    )

    credentials: str | None = Field(
        None,
        description="Directory with the credential of each tenant that is served: a file named like the namespace, one "
        "line, an API key or a token of its `delegate` Principal; read again when it changes. Unset: nobody is served.",
    )
    admission: Literal["required", "off"] = Field(
        "required",
        description="`required`: requests come through InterroGate, which admits every step too. `off`, without "
        "InterroGate: requests come to `/plans`, and nothing is admitted.",
    )
    memorygate_url: str = Field("http://127.0.0.1:8001", description="The ledger.", pattern=_URL)
    asyncgate_url: str = Field("http://127.0.0.1:8002", description="AsyncGate.", pattern=_URL)
    depotgate_url: str = Field("http://127.0.0.1:8003", description="DepotGate.", pattern=_URL)
    interrogate_url: str = Field(
        "http://127.0.0.1:8005", description="InterroGate, where admission is required.", pattern=_URL
    )
    gates_ca_file: str | None = Field(
        None, description="Whom the certificates of these gates are signed by; unset: the authorities of the system."
    )
    gate_ms: int = Field(
        5_000, description="Milliseconds within which one of these gates must answer; then it counts as away.", ge=50
    )
