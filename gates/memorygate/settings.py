"""Everything an installation of the ledger can choose: what every gate has, and its own."""

from pydantic import Field, SecretStr

from legivellum.console.settings import ConsoleGateSettings
from legivellum.gate.settings import prefixed

DATABASE_URL = "postgresql://memorygate_writer@127.0.0.1:5432/metagate"


class Settings(ConsoleGateSettings):
    """One field per setting; docs/memorygate/settings.md shows the same table."""

    model_config = prefixed("MEMORYGATE")

    database_url: SecretStr = Field(
        SecretStr(DATABASE_URL),
        description="PostgreSQL as the role `memorygate_writer`; `migrate`, `verify`, `export` name their own.",
    )
    audience: str = Field("memorygate", description="The audience a token must be made for (D-44).", min_length=1)
    port: int = Field(8001, description="Port to listen on; 0 picks one.", ge=0, le=65_535)
    body_bytes: int = Field(524_288, description="Largest request body.", ge=1_024)

    signers_file: str | None = Field(
        None, description="YAML: whose signatures are known, and which tenants require them (D-28)."
    )
    batch_receipts: int = Field(256, description="Most receipts in one POST /receipts/batch.", ge=1, le=512)
    queue: int = Field(2_048, description="Most receipts waiting for a statement, per process.", ge=1)
    stream_poll_ms: int = Field(250, description="How often an idle stream looks for receipts.", ge=20)
    chain_receipts: int = Field(1_000, description="Most receipts of one chain in each direction.", ge=1)
