"""What every gate can choose, read once from the environment into one frozen object.

    ServedGateSettings                        what serves HTTP
      CalledGateSettings                      … and knows its callers
        IdentityGateSettings                  … from MetaGate's database, which it follows (D-60)
        OwnDatabaseSettings                   … and has a database: MetaGate
          DatabaseGateSettings                both: the gates that keep state
            ClosingGateSettings               … and fail closed when they may have missed a withdrawal

A gate names its prefix and its port; every field is then the variable `<PREFIX>_<FIELD>`:

    class Settings(DatabaseGateSettings):
        model_config = prefixed("SAMPLEGATE")
        port: int = Field(8009, description="Port to listen on; 0 picks one.", ge=0, le=65_535)
"""

from collections.abc import Mapping
from typing import Final, Literal, Self
from urllib.parse import quote, urlsplit, urlunsplit

from pydantic import AliasChoices, AliasGenerator, Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from legivellum.base.settings import GateSettings
from legivellum.postgres.dsn import address

_UNPREFIXED: Final[Mapping[str, tuple[str, ...]]] = {
    "database_url": ("DATABASE_URL",),
    "identity_database_url": ("IDENTITY_DATABASE_URL",),
}
"""Variables that hold a setting too, where the gate's own variable is not set."""


def prefixed(prefix: str, unprefixed: Mapping[str, tuple[str, ...]] = _UNPREFIXED) -> SettingsConfigDict:
    """The configuration of a gate's settings class: its fields are the variables that begin with `prefix`."""

    def variables(field: str) -> AliasChoices:
        return AliasChoices(f"{prefix}_{field.upper()}", *unprefixed.get(field, ()))

    return SettingsConfigDict(alias_generator=AliasGenerator(validation_alias=variables), title=prefix)


class ServedGateSettings(GateSettings):
    """What is chosen of every process that serves HTTP, also of one that nobody calls."""

    version: str = Field("0.1", description="The version that `/` names.")
    debug: bool = Field(False, description="Log at debug level. Nothing else changes.")

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(description="Port to listen on; 0 picks one.", ge=0, le=65_535)
    workers: int = Field(1, description="Serving processes.", ge=1, le=256)
    tls_cert: str | None = Field(None, description="PEM file of the certificate chain; unset: plain HTTP.")
    tls_key: str | None = Field(None, description="PEM file of its key.")
    backlog: int = Field(4_096, description="Connections the kernel may queue before they are accepted.", ge=1)
    drain_seconds: int = Field(10, description="After SIGTERM, how long requests in flight may take.", ge=0)
    log_format: Literal["json", "console"] = Field("json", description="How log lines look.")
    access_log: Literal["all", "refused", "none"] = Field("refused", description="Which requests are logged.")
    tracing: bool = Field(
        False,
        description="Send a span for every answer to an OpenTelemetry collector (the extra `otel`); where to, how "
        "often and under which name: its `OTEL_…` variables.",
    )

    deadline_ms: int = Field(
        1_000, description="Milliseconds within which every request is answered.", ge=50, le=60_000
    )
    body_bytes: int = Field(65_536, description="Largest request body.", ge=1_024)
    connections: int = Field(4_096, description="Most open connections per process.", ge=1)
    keep_alive_seconds: int = Field(30, description="Idle time after which a connection is closed.", ge=1)

    @model_validator(mode="after")
    def _certificate_with_key(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError(f"{self.variable('tls_cert')} and {self.variable('tls_key')} belong together")
        return self

    @classmethod
    def variable(cls, field: str) -> str:
        """The environment variable that holds a setting: the one that wins, where several do."""
        alias = cls.model_fields[field].validation_alias
        assert isinstance(alias, AliasChoices)
        return str(alias.choices[0])

    @property
    def deadline_seconds(self) -> float:
        return self.deadline_ms / 1_000


class CalledGateSettings(ServedGateSettings):
    """A gate whose callers send credentials."""

    audience: str = Field(description="The audience a token must be made for (D-44).", min_length=1)
    api_key_header: str = Field("X-API-Key", description="Name of the header that carries an API key.")
    rate_per_second: float = Field(
        1_000.0, description="Tokens a second of each principal's bucket, per process; 0: no limit.", ge=0
    )
    rate_burst: float = Field(10_000.0, description="Size of that bucket.", ge=1)


class IdentityGateSettings(CalledGateSettings):
    """A gate that follows what MetaGate publishes of principals and their credentials."""

    identity_database_url: SecretStr | None = Field(
        None,
        description="MetaGate's database as the role `metagate_identity`. Unset: the gate's own database and role.",
    )
    identity_database_password: SecretStr | None = Field(
        None, description="Password of that role when the URL carries none, so that nothing in it has to be quoted."
    )
    identity_poll_ms: int = Field(200, description="How often published identities are looked for.", ge=20)
    identity_stale_seconds: float = Field(
        86_400.0, description="How long what was read of identity is believed while MetaGate is away.", gt=0
    )

    @property
    def audiences(self) -> tuple[str, ...]:
        """Every audience that a token may be made for."""
        return (self.audience,)

    @property
    def identity_dsn(self) -> str:
        """A password of its own goes into the URL: libpq's one variable (PGPASSWORD) is the gate's own role's.

        Raises UnusableAddress.
        """
        url = self._identity_address()
        if self.identity_database_password is None:
            return url
        parts = urlsplit(url)
        user, _, place = parts.netloc.rpartition("@")
        password = quote(self.identity_database_password.get_secret_value(), safe="")
        return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}:{password}@{place}"))

    def _identity_address(self) -> str:
        url = "" if self.identity_database_url is None else self.identity_database_url.get_secret_value()
        return address(url, self.variable("identity_database_url"))


class OwnDatabaseSettings(CalledGateSettings):
    """A gate with a database of its own."""

    database_url: SecretStr = Field(description="PostgreSQL as the role of the gate's process.")
    pool_size: int = Field(4, description="Database connections per process.", ge=2, le=64)

    @property
    def dsn(self) -> str:
        """Raises UnusableAddress."""
        return address(self.database_url.get_secret_value(), self.variable("database_url"))


class DatabaseGateSettings(IdentityGateSettings, OwnDatabaseSettings):
    """A gate that keeps state, follows MetaGate's identity and streams; it adds fields and overrides defaults."""

    streams: int = Field(64, description="Most open streams per process.", ge=1)
    heartbeat_seconds: float = Field(15.0, description="A silent stream says that it lives.", gt=0)

    def _identity_address(self) -> str:
        return self.dsn if self.identity_database_url is None else super()._identity_address()


class ClosingGateSettings(DatabaseGateSettings):
    """A gate that hands out work or bytes: when it may have missed a withdrawal it fails closed."""

    identity_stale_seconds: float = Field(
        60.0,
        description="How long what was read of identity is believed while MetaGate's database is away; then 503.",
        gt=0,
    )
