"""Everything an installation of AsyncGate can choose: what every gate has, and its own."""

from pydantic import Field, SecretStr

from legivellum.gate.settings import ClosingGateSettings, prefixed

DATABASE_URL = "postgresql://asyncgate_broker@127.0.0.1:5432/metagate"


class Settings(ClosingGateSettings):
    """One field per setting; docs/asyncgate/settings.md shows the same table."""

    model_config = prefixed("ASYNCGATE")

    database_url: SecretStr = Field(
        SecretStr(DATABASE_URL),
        description="The ledger's PostgreSQL as the role `asyncgate_broker`; other commands name their own.",
    )
    audience: str = Field("asyncgate", description="The audience a token must be made for (D-44).", min_length=1)
    port: int = Field(8002, description="Port to listen on; 0 picks one.", ge=0, le=65_535)
    body_bytes: int = Field(32_768, description="Largest request body; batches may have 1 MiB.", ge=1_024)

    ttl_seconds: int = Field(60, description="Length of a lease whose worker asks for none.", ge=5, le=900)
    max_ttl_seconds: int = Field(900, description="Longest lease before it is renewed.", ge=5, le=86_400)
    max_renewals: int = Field(10, description="How often a lease may be renewed.", ge=0, le=10_000)
    max_lifetime_seconds: int = Field(
        7_200, description="From the issue of a lease to the latest moment to which it can be renewed.", ge=5
    )
    max_leases: int = Field(
        32, description="After so many leases a task is escalated instead of leased again.", ge=1, le=1_000_000
    )
    ceilings_file: str | None = Field(
        None,
        description="YAML: the most authority that tasks of a namespace may carry; unset: they may carry none.",
    )
    require_admission: str = Field(
        "",
        description="Namespaces whose tasks need an admission of InterroGate: globs, comma-separated.",
    )
    waiters: int = Field(
        1_024, description="Most long polls per process; one tenant may have a quarter of them.", ge=4, le=65_536
    )
    archive_days: int = Field(
        30, description="How long ids and digests of ended tasks answer repeated requests.", ge=1, le=3_650
    )
    pass_seconds: float = Field(
        5.0, description="How often overdue leases and needs that others closed are looked for.", gt=0
    )
    queue: int = Field(2_048, description="Most requests waiting for a statement, per process.", ge=1)
