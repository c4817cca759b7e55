"""Everything an installation can choose, read once from the environment into one frozen object.

The names without a prefix (INV-036) work as they are; with a `METAGATE_` prefix they win. A Service named `metagate`
makes Kubernetes inject variables such as `METAGATE_PORT=tcp://10.0.0.1:8000` into pods: `tcp://` values are ignored.
"""

from collections.abc import Mapping
from typing import Final, Literal, Self

from pydantic import AliasChoices, Field, SecretStr, model_validator
from pydantic.fields import FieldInfo

from legivellum.console.settings import ConsoleSettings
from legivellum.gate.settings import OwnDatabaseSettings, prefixed
from legivellum.postgres.dsn import address

PUBLISHED_JWT_SECRET = "change-me-in-production"  # noqa: S105  # the seeds' example; everybody knows it
SHORTEST_JWT_SECRET: Mapping[str, int] = {"HS256": 32, "HS384": 48, "HS512": 64}
"""Bytes, by algorithm: a shorter key can be guessed from one token (RFC 7518 §3.2)."""
DATABASE_URL = "postgresql://metagate:metagate@db:5432/metagate"


_SEED_NAMES: Final = (
    "DATABASE_URL",
    "JWT_SECRET",
    "JWT_ALGORITHM",
    "JWT_ISSUER",
    "JWT_AUDIENCE",
    "JWT_NAMESPACES",
    "API_KEY_HEADER",
    "DEBUG",
    "DEFAULT_STARTUP_SLA_SECONDS",
    "RECEIPT_RETENTION_HOURS",
)
"""Settings that the seeds name without a prefix (INV-036)."""


class Settings(ConsoleSettings, OwnDatabaseSettings):
    """One field per setting, beside those of every gate; docs/settings.md shows the same table."""

    model_config = prefixed("METAGATE", unprefixed={name.lower(): (name,) for name in _SEED_NAMES})

    # ── the seeds' ───────────────────────────────────────────────────────────────────────────────────────────────────
    database_url: SecretStr = Field(
        SecretStr(DATABASE_URL), description="PostgreSQL as the API's role; `+asyncpg` is dropped."
    )
    jwt_secret: SecretStr | None = Field(None, description="Key of HS256 tokens; unset: HS256 is off (D-37).")
    jwt_algorithm: Literal["HS256", "HS384", "HS512"] = Field("HS256", description="Algorithm of those tokens.")
    jwt_issuer: str = Field(
        "metagate",
        description="Their `iss`; subjects are declared with it. Operator and admission do not hold the secret: naming "
        "the issuer there says that HS256 is on.",
        min_length=1,
    )
    jwt_audience: str | None = Field(None, description="Their `aud`; unset: not checked.")
    jwt_namespaces: str | None = Field(
        None,
        description="Which namespaces may claim their subjects, by commas or spaces, for whoever compiles; `*`: any. "
        "Unset: `*` standalone, none in a cluster.",
    )
    version: str = Field(
        "0.1",
        description="The version that discovery names.",
        validation_alias=AliasChoices("METAGATE_METAGATE_VERSION", "METAGATE_VERSION"),
    )
    default_startup_sla_seconds: int = Field(
        120,
        description="Seconds until READY is overdue, where the Profile says nothing.",
        ge=1,
        le=86_400,
    )
    receipt_retention_hours: int = Field(72, description="How long startup sessions are kept (D-39).", ge=1)

    # ── trust ────────────────────────────────────────────────────────────────────────────────────────────────────────
    allow_insecure: bool = Field(False, description="Accept the published example, or a short one, as JWT_SECRET.")
    audience: str = Field("metagate", description="The audience a token must be made for.", min_length=1)
    public_url: str | None = Field(
        None, description="Base URL that discovery names; unset: paths only. Host headers are never trusted."
    )

    signing_key_file: str | None = Field(
        None, description="PEM file of an Ed25519 key that signs packets (EXT-09); unset: they are not signed."
    )

    # ── serving ──────────────────────────────────────────────────────────────────────────────────────────────────────
    port: int = Field(8000, description="Port to listen on; 0 picks one.", ge=0, le=65_535)
    metrics_port: int | None = Field(
        None, description="A port of its own for /metrics, which then is nowhere else.", ge=0, le=65_535
    )
    backlog: int = Field(8_192, description="Connections the kernel may queue before they are accepted.", ge=1)

    # ── bounds ───────────────────────────────────────────────────────────────────────────────────────────────────────
    deadline_ms: int = Field(500, description="Milliseconds within which every request is answered.", ge=50, le=60_000)
    header_bytes: int = Field(16_384, description="Most bytes of headers.", ge=1_024)
    header_count: int = Field(64, description="Most header fields.", ge=8)
    url_bytes: int = Field(4_096, description="Longest request target.", ge=256)
    header_seconds: float = Field(2.0, description="Time for the headers to arrive.", gt=0)
    body_seconds: float = Field(3.0, description="Time for the body to arrive.", gt=0)
    connections: int = Field(8_192, description="Most open connections per process.", ge=1)
    queue: int = Field(2_048, description="Most questions waiting for a statement, per process and kind.", ge=1)
    rate_per_second: float = Field(
        500.0, description="Tokens a second of each principal's bucket, per process; 0: no limit.", ge=0
    )
    rate_burst: float = Field(5_000.0, description="Size of that bucket.", ge=1)
    prepared_statements: bool = Field(True, description="Off behind a pooler that does not track named statements.")
    cache_bytes: int = Field(67_108_864, description="Checked packets kept in memory, per process.", ge=1_048_576)
    credentials_poll_ms: int = Field(
        200, description="How often published keys and issuers are looked for.", ge=20, le=10_000
    )

    # ── the console ───────────────────────────────────────────────────────────────────────────────────────────────────
    console_ledger_url: str | None = Field(
        None,
        description="Where people reach the ledger's console, which the console then links to; it asks nothing there.",
        pattern=r"^https?://[^\s]+$",
    )

    # ── the witness ──────────────────────────────────────────────────────────────────────────────────────────────────
    ledger_url: str | None = Field(None, description="The ledger; set: startups are mirrored to it (D-04).")

    @model_validator(mode="after")
    def _not_a_weak_secret(self) -> Self:
        secret = None if self.jwt_secret is None else self.jwt_secret.get_secret_value()
        if secret is not None and not self.allow_insecure:
            if secret == PUBLISHED_JWT_SECRET:
                raise ValueError(
                    "JWT_SECRET is the published example, which everybody knows: choose another, "
                    "or say METAGATE_ALLOW_INSECURE=true"
                )
            least = SHORTEST_JWT_SECRET[self.jwt_algorithm]
            if len(secret.encode()) < least:
                raise ValueError(
                    f"JWT_SECRET must have {least} bytes or more for {self.jwt_algorithm} (RFC 7518, 3.2): "
                    "take one from `openssl rand -base64 48`, or say METAGATE_ALLOW_INSECURE=true"
                )
        return self

    @property
    def dsn(self) -> str:
        """Raises UnusableAddress: only whoever uses the database is told that its URL is malformed."""
        return address(self.database_url.get_secret_value(), "DATABASE_URL")

    @property
    def deadline_seconds(self) -> float:
        """How long the work may take: a tenth of the deadline is kept for the answer itself to be written and read."""
        return self.deadline_ms * 0.9 / 1_000

    @property
    def mirror(self) -> bool:
        return self.ledger_url is not None


def names(field: FieldInfo) -> tuple[str, ...]:
    """The environment variables of a setting, the one that wins first."""
    alias = field.validation_alias
    return tuple(map(str, alias.choices)) if isinstance(alias, AliasChoices) else ()
