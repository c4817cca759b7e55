"""Everything an installation can choose, read once from the environment into one frozen object.

The names without a prefix (INV-036) work as they are; with a `METAGATE_` prefix they win. A Service named `metagate`
makes Kubernetes inject variables such as `METAGATE_PORT=tcp://10.0.0.1:8000` into pods: `tcp://` values are ignored.
"""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import AliasChoices, Field, SecretStr, model_validator
from pydantic.fields import FieldInfo

from legivellum.base.settings import GateSettings
from legivellum.postgres.dsn import address

PUBLISHED_JWT_SECRET = "change-me-in-production"  # noqa: S105  # the seeds' example; everybody knows it
SHORTEST_JWT_SECRET: Mapping[str, int] = {"HS256": 32, "HS384": 48, "HS512": 64}
"""Bytes, by algorithm: a shorter key can be guessed from one token (RFC 7518 §3.2)."""
DATABASE_URL = "postgresql://metagate:metagate@db:5432/metagate"


def _seed(name: str, default: Any, says: str, **rules: Any) -> Any:
    """A setting the seeds name: under that name and with the prefix."""
    return Field(default, description=says, validation_alias=AliasChoices(f"METAGATE_{name}", name), **rules)


def _own(name: str, default: Any, says: str, **rules: Any) -> Any:
    """A setting of ours: with the prefix only."""
    return Field(default, description=says, validation_alias=AliasChoices(f"METAGATE_{name}"), **rules)


class UnusableSettingError(ValueError):
    """A setting that has the right form and still cannot be used; the text names it and holds no secret."""


class Settings(GateSettings):
    """One field per setting; docs/settings.md shows the same table."""

    # ── the seeds' ───────────────────────────────────────────────────────────────────────────────────────────────────
    database_url: SecretStr = _seed(
        "DATABASE_URL", SecretStr(DATABASE_URL), "PostgreSQL as the API's role; `+asyncpg` is dropped."
    )
    jwt_secret: SecretStr | None = _seed("JWT_SECRET", None, "Key of HS256 tokens; unset: HS256 is off (D-37).")
    jwt_algorithm: Literal["HS256", "HS384", "HS512"] = _seed("JWT_ALGORITHM", "HS256", "Algorithm of those tokens.")
    jwt_issuer: str = _seed(
        "JWT_ISSUER",
        "metagate",
        "Their `iss`; subjects are declared with it. Operator and admission do not hold the secret: naming the issuer "
        "there says that HS256 is on.",
        min_length=1,
    )
    jwt_audience: str | None = _seed("JWT_AUDIENCE", None, "Their `aud`; unset: not checked.")
    jwt_namespaces: str | None = _seed(
        "JWT_NAMESPACES",
        None,
        "Which namespaces may claim their subjects, by commas or spaces, for whoever compiles; `*`: any. Unset: `*` "
        "standalone, none in a cluster.",
    )
    api_key_header: str = _seed("API_KEY_HEADER", "X-API-Key", "Name of the header that carries an API key.")
    debug: bool = _seed("DEBUG", False, "Log at debug level. Nothing else changes.")
    version: str = Field(
        "0.1",
        description="The version that discovery names.",
        validation_alias=AliasChoices("METAGATE_METAGATE_VERSION", "METAGATE_VERSION"),
    )
    default_startup_sla_seconds: int = _seed(
        "DEFAULT_STARTUP_SLA_SECONDS",
        120,
        "Seconds until READY is overdue, where the Profile says nothing.",
        ge=1,
        le=86_400,
    )
    receipt_retention_hours: int = _seed(
        "RECEIPT_RETENTION_HOURS", 72, "How long startup sessions are kept (D-39).", ge=1
    )

    # ── trust ────────────────────────────────────────────────────────────────────────────────────────────────────────
    allow_insecure: bool = _own("ALLOW_INSECURE", False, "Accept the published example, or a short one, as JWT_SECRET.")
    audience: str = _own("AUDIENCE", "metagate", "The audience a token must be made for.", min_length=1)
    public_url: str | None = _own(
        "PUBLIC_URL", None, "Base URL that discovery names; unset: paths only. Host headers are never trusted."
    )

    signing_key_file: str | None = _own(
        "SIGNING_KEY_FILE", None, "PEM file of an Ed25519 key that signs packets (EXT-09); unset: they are not signed."
    )

    # ── serving ──────────────────────────────────────────────────────────────────────────────────────────────────────
    host: str = _own("HOST", "127.0.0.1", "Address to listen on.")
    port: int = _own("PORT", 8000, "Port to listen on; 0 picks one.", ge=0, le=65_535)
    workers: int = _own("WORKERS", 1, "Serving processes.", ge=1, le=256)
    metrics_port: int | None = _own(
        "METRICS_PORT", None, "A port of its own for /metrics, which then is nowhere else.", ge=0, le=65_535
    )
    tls_cert: str | None = _own("TLS_CERT", None, "PEM file of the certificate chain; unset: plain HTTP.")
    tls_key: str | None = _own("TLS_KEY", None, "PEM file of its key.")
    backlog: int = _own("BACKLOG", 8_192, "Connections the kernel may queue before they are accepted.", ge=1)
    drain_seconds: int = _own("DRAIN_SECONDS", 10, "After SIGTERM, how long requests in flight may take.", ge=0)
    access_log: Literal["all", "refused", "none"] = _own("ACCESS_LOG", "refused", "Which requests are logged.")
    log_format: Literal["json", "console"] = _own("LOG_FORMAT", "json", "How log lines look.")
    tracing: bool = _own(
        "TRACING",
        False,
        "Send a span for every answer to an OpenTelemetry collector (the extra `otel`); where to, how often and under "
        "which name: its `OTEL_…` variables.",
    )

    # ── bounds ───────────────────────────────────────────────────────────────────────────────────────────────────────
    deadline_ms: int = _own(
        "DEADLINE_MS", 500, "Milliseconds within which every request is answered.", ge=50, le=60_000
    )
    body_bytes: int = _own("BODY_BYTES", 65_536, "Largest request body.", ge=1_024)
    header_bytes: int = _own("HEADER_BYTES", 16_384, "Most bytes of headers.", ge=1_024)
    header_count: int = _own("HEADER_COUNT", 64, "Most header fields.", ge=8)
    url_bytes: int = _own("URL_BYTES", 4_096, "Longest request target.", ge=256)
    header_seconds: float = _own("HEADER_SECONDS", 2.0, "Time for the headers to arrive.", gt=0)
    body_seconds: float = _own("BODY_SECONDS", 3.0, "Time for the body to arrive.", gt=0)
    keep_alive_seconds: int = _own("KEEP_ALIVE_SECONDS", 30, "Idle time after which a connection is closed.", ge=1)
    connections: int = _own("CONNECTIONS", 8_192, "Most open connections per process.", ge=1)
    queue: int = _own("QUEUE", 2_048, "Most questions waiting for a statement, per process and kind.", ge=1)
    rate_per_second: float = _own(
        "RATE_PER_SECOND", 500.0, "Tokens a second of each principal's bucket, per process; 0: no limit.", ge=0
    )
    rate_burst: float = _own("RATE_BURST", 5_000.0, "Size of that bucket.", ge=1)
    pool_size: int = _own("POOL_SIZE", 4, "Database connections per process.", ge=2, le=64)
    prepared_statements: bool = _own(
        "PREPARED_STATEMENTS", True, "Off behind a pooler that does not track named statements."
    )
    cache_bytes: int = _own("CACHE_BYTES", 67_108_864, "Checked packets kept in memory, per process.", ge=1_048_576)
    credentials_poll_ms: int = _own(
        "CREDENTIALS_POLL_MS", 200, "How often published keys and issuers are looked for.", ge=20, le=10_000
    )

    # ── the console ───────────────────────────────────────────────────────────────────────────────────────────────────
    console: bool = _own("CONSOLE", False, "Serve the console at /console; `metagate dev` does unless told not to.")
    console_secret: SecretStr | None = _own(
        "CONSOLE_SECRET",
        None,
        "Signs the console's cookies; the same for all processes behind one address. Unset: made anew at each start.",
        min_length=32,
    )
    console_minutes: int = _own(
        "CONSOLE_MINUTES", 30, "How long a console session lasts; never longer than its credential.", ge=1, le=720
    )

    console_secure: bool = _own(
        "CONSOLE_SECURE",
        False,
        "The console's cookies are for https only. Always so with TLS here or a METAGATE_PUBLIC_URL that begins with https://.",
    )

    # ── the witness ──────────────────────────────────────────────────────────────────────────────────────────────────
    ledger_url: str | None = _own("LEDGER_URL", None, "The ledger; set: startups are mirrored to it (D-04).")

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
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("METAGATE_TLS_CERT and METAGATE_TLS_KEY belong together")
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
