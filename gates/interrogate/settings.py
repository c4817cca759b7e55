"""Everything an installation of InterroGate can choose: what every gate has, and its own."""

from pydantic import AliasChoices, Field, SecretStr

from legivellum.gate.settings import DatabaseGateSettings, prefixed

DATABASE_URL = "postgresql://interrogate_writer@127.0.0.1:5432/metagate"


class Settings(DatabaseGateSettings):
    """One field per setting; docs/interrogate/settings.md shows the same table."""

    model_config = prefixed("INTERROGATE")

    database_url: SecretStr = Field(
        SecretStr(DATABASE_URL),
        description="The ledger's PostgreSQL as the role `interrogate_writer`; other commands name their own.",
    )
    audience: str = Field("interrogate", description="The audience a token must be made for (D-44).", min_length=1)
    port: int = Field(8005, description="Port to listen on; 0 picks one.", ge=0, le=65_535)
    body_bytes: int = Field(262_144, description="Largest request body.", ge=1_024)
    # One time for identity and policy: a boundary that does not know whom to believe, or by which rules, fails closed.
    identity_stale_seconds: float = Field(
        60.0,
        validation_alias=AliasChoices("INTERROGATE_STALE_SECONDS"),
        description="How long identity and policies are believed while MetaGate's database is away; then 503.",
        gt=0,
    )

    surfaces: str = Field(
        "*",
        description="Surfaces that this instance serves: globs, comma-separated. Others are 404 here.",
        min_length=1,
    )
    target_hosts: str = Field(
        "",
        description="Hosts outside the tenant's namespace that targets may name: globs of `host` or `host:port`, "
        "comma-separated. A bare host is always a service of the tenant's namespace.",
    )
    resource: str = Field(
        "http://interrogate:8005",
        description="The public URI of this gate: `iss` of its tokens. Its MCP endpoint is `/mcp` below it; both are "
        "audiences that a token may be made for.",
        min_length=1,
    )
    allowed_hosts: str = Field(
        "",
        description="Host names under which `/mcp` may be called, and from whose pages, beside that of `RESOURCE` and "
        "the loopback's: globs, comma-separated.",
    )
    authorization_servers: str = Field(
        "",
        description="Issuers that OAuth clients get tokens for `/mcp` from, comma-separated: shown in the metadata of "
        "RFC 9728.",
    )
    mcp_calls: int = Field(256, description="Most requests to `/mcp` that are open at once, per process.", ge=1)
    credentials_dir: str | None = Field(
        None,
        description="Directory of the credentials for MCP servers: `<namespace>/<secretRef>`, one token in each file; "
        "unset: there are none.",
    )
    signing_key_file: str | None = Field(
        None, description="PEM file (PKCS#8, Ed25519) that signs the tokens for targets; unset: they get none."
    )
    metagate_url: str | None = Field(
        None, description="MetaGate, where this gate announces the Problematas that it serves; unset: nowhere."
    )
    metagate_key_file: str | None = Field(
        None,
        description="File of the API key or token that announces them: of a Principal in their `gateway.principals`.",
    )
    metagate_ca_file: str | None = Field(
        None, description="Whom MetaGate's certificate is signed by; unset: the authorities of the system."
    )
    forward_ms: int = Field(
        5_000, description="Milliseconds within which a target must have answered, unless it declares fewer.", ge=50
    )
    outcome_ms: int = Field(
        5_000,
        description="Milliseconds within which the outcome of a tool call must be stored, or its result is withheld.",
        ge=50,
    )
    queue: int = Field(2_048, description="Most requests waiting for a statement, per process.", ge=1)
    sweep_seconds: float = Field(
        15.0, description="How often forwards that nobody finished are looked for and failed.", gt=0
    )

    @property
    def audiences(self) -> tuple[str, ...]:
        """A client of OAuth asks for a token for the URI it was given, which is the gate's or that of its endpoint."""
        resource = self.resource.rstrip("/")
        return (self.audience, self.resource, resource, f"{resource}/mcp")
