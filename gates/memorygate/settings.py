"""Everything an installation of the ledger can choose, read once from the environment into one frozen object.

A Service named `memorygate` makes Kubernetes inject variables such as `MEMORYGATE_PORT=tcp://10.0.0.1:8001` into every
pod: `tcp://` values are ignored.
"""

from typing import Any, Literal
from urllib.parse import quote, urlsplit, urlunsplit

from pydantic import AliasChoices, Field, SecretStr

from legivellum.base.settings import GateSettings
from legivellum.postgres.dsn import address

DATABASE_URL = "postgresql://memorygate_writer@127.0.0.1:5432/metagate"


def _own(name: str, default: Any, says: str, **rules: Any) -> Any:
    return Field(default, description=says, validation_alias=AliasChoices(f"MEMORYGATE_{name}"), **rules)


class Settings(GateSettings):
    """One field per setting; docs/memorygate/settings.md shows the same table."""

    database_url: SecretStr = Field(
        SecretStr(DATABASE_URL),
        description="PostgreSQL as the role `memorygate_writer`; `migrate`, `verify`, `export` name their own.",
        validation_alias=AliasChoices("MEMORYGATE_DATABASE_URL", "DATABASE_URL"),
    )
    identity_database_url: SecretStr | None = Field(
        None,
        description="MetaGate's database as the role `metagate_identity`. Unset: the ledger's own database and role.",
        validation_alias=AliasChoices("MEMORYGATE_IDENTITY_DATABASE_URL", "IDENTITY_DATABASE_URL"),
    )
    identity_database_password: SecretStr | None = _own(
        "IDENTITY_DATABASE_PASSWORD",
        None,
        "Password of that role when the URL carries none, so that nothing in it has to be quoted.",
    )
    audience: str = _own("AUDIENCE", "memorygate", "The audience a token must be made for (D-44).", min_length=1)
    api_key_header: str = _own("API_KEY_HEADER", "X-API-Key", "Name of the header that carries an API key.")
    signers_file: str | None = _own(
        "SIGNERS_FILE", None, "YAML: whose signatures are known, and which tenants require them (D-28)."
    )
    version: str = Field("0.1", description="The version that `/` names.", validation_alias="MEMORYGATE_VERSION")
    debug: bool = _own("DEBUG", False, "Log at debug level. Nothing else changes.")

    host: str = _own("HOST", "127.0.0.1", "Address to listen on.")
    port: int = _own("PORT", 8001, "Port to listen on; 0 picks one.", ge=0, le=65_535)
    workers: int = _own("WORKERS", 1, "Serving processes.", ge=1, le=256)
    tls_cert: str | None = _own("TLS_CERT", None, "PEM file of the certificate chain; unset: plain HTTP.")
    tls_key: str | None = _own("TLS_KEY", None, "PEM file of its key.")
    backlog: int = _own("BACKLOG", 4_096, "Connections the kernel may queue before they are accepted.", ge=1)
    drain_seconds: int = _own("DRAIN_SECONDS", 10, "After SIGTERM, how long requests in flight may take.", ge=0)
    log_format: Literal["json", "console"] = _own("LOG_FORMAT", "json", "How log lines look.")
    access_log: Literal["all", "refused", "none"] = _own("ACCESS_LOG", "refused", "Which requests are logged.")
    tracing: bool = _own(
        "TRACING",
        False,
        "Send a span for every answer to an OpenTelemetry collector (the extra `otel`); where to, how often and under "
        "which name: its `OTEL_…` variables.",
    )

    deadline_ms: int = _own(
        "DEADLINE_MS", 1_000, "Milliseconds within which every request is answered.", ge=50, le=60_000
    )
    body_bytes: int = _own("BODY_BYTES", 524_288, "Largest request body.", ge=1_024)
    batch_receipts: int = _own("BATCH_RECEIPTS", 256, "Most receipts in one POST /receipts/batch.", ge=1, le=512)
    connections: int = _own("CONNECTIONS", 4_096, "Most open connections per process.", ge=1)
    keep_alive_seconds: int = _own("KEEP_ALIVE_SECONDS", 30, "Idle time after which a connection is closed.", ge=1)
    queue: int = _own("QUEUE", 2_048, "Most receipts waiting for a statement, per process.", ge=1)
    rate_per_second: float = _own(
        "RATE_PER_SECOND", 1_000.0, "Tokens a second of each principal's bucket, per process; 0: no limit.", ge=0
    )
    rate_burst: float = _own("RATE_BURST", 10_000.0, "Size of that bucket.", ge=1)
    pool_size: int = _own("POOL_SIZE", 4, "Database connections per process.", ge=2, le=64)
    streams: int = _own("STREAMS", 64, "Most open streams per process.", ge=1)
    heartbeat_seconds: float = _own("HEARTBEAT_SECONDS", 15.0, "A silent stream says that it lives.", gt=0)
    stream_poll_ms: int = _own("STREAM_POLL_MS", 250, "How often an idle stream looks for receipts.", ge=20)
    chain_receipts: int = _own("CHAIN_RECEIPTS", 1_000, "Most receipts of one chain in each direction.", ge=1)
    identity_poll_ms: int = _own("IDENTITY_POLL_MS", 200, "How often published identities are looked for.", ge=20)
    identity_stale_seconds: float = _own(
        "IDENTITY_STALE_SECONDS",
        86_400.0,
        "How long what was read of identity is believed while MetaGate is away.",
        gt=0,
    )

    @property
    def dsn(self) -> str:
        """Raises UnusableAddress."""
        return address(self.database_url.get_secret_value(), "MEMORYGATE_DATABASE_URL")

    @property
    def identity_dsn(self) -> str:
        """A password of its own goes into the URL: libpq's one variable (PGPASSWORD) is the writer's.

        Raises UnusableAddress.
        """
        if self.identity_database_url is None:
            url = self.dsn
        else:
            url = address(self.identity_database_url.get_secret_value(), "MEMORYGATE_IDENTITY_DATABASE_URL")
        if self.identity_database_password is None:
            return url
        parts = urlsplit(url)
        user, _, place = parts.netloc.rpartition("@")
        password = quote(self.identity_database_password.get_secret_value(), safe="")
        return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}:{password}@{place}"))

    @property
    def deadline_seconds(self) -> float:
        return self.deadline_ms / 1_000
