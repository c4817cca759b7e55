"""Everything an installation of DepotGate can choose: what every gate has, and its own."""

from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator

from legivellum.gate.settings import ClosingGateSettings, prefixed

DATABASE_URL = "postgresql://depotgate_keeper@127.0.0.1:5432/metagate"
LARGEST_BYTES = 16 * 2**30
TRANSFER_SECONDS = 6 * 3_600.0
"""The longest that an upload or a download may take (DP-09)."""


class Settings(ClosingGateSettings):
    """One field per setting; docs/depotgate/settings.md shows the same table."""

    model_config = prefixed("DEPOTGATE")

    database_url: SecretStr = Field(
        SecretStr(DATABASE_URL),
        description="The ledger's PostgreSQL as the role `depotgate_keeper`; other commands name their own.",
    )
    audience: str = Field("depotgate", description="The audience a token must be made for (D-44).", min_length=1)
    port: int = Field(8003, description="Port to listen on; 0 picks one.", ge=0, le=65_535)

    store: str = Field(
        "file:///var/lib/depotgate",
        description="Where the bytes are: `file:///directory`, `s3://bucket/prefix`, `gs://…`, `az://…`; keys and "
        "endpoints of object stores come from their own variables (`AWS_…`).",
        pattern=r"^(file:///|[a-z0-9]+://).+$",
    )
    s3_sse: Literal["", "AES256", "aws:kms", "aws:kms:dsse"] = Field(
        "", description="How S3 encrypts what it keeps; empty: as the bucket says."
    )
    s3_kms_key: str = Field("", description="The key of KMS that it does so with.")
    max_bytes: int = Field(LARGEST_BYTES, description="Largest artifact in bytes.", ge=1, le=LARGEST_BYTES)
    uploads: int = Field(16, description="Most uploads at once, per process.", ge=1, le=1_024)
    downloads: int = Field(64, description="Most downloads at once, per process.", ge=1, le=4_096)
    leases: Literal["required", "optional"] = Field(
        "required", description="Whether outputs and supporting artifacts need a lease; `optional` without AsyncGate."
    )
    public_url: str = Field(
        "http://127.0.0.1:8003",
        description="How this gate is reached: `artifact_location` of its receipts and answers.",
        pattern=r"^https?://.+[^/]$",
    )
    queue: int = Field(1_024, description="Most requests waiting for a statement, per process.", ge=1)

    @model_validator(mode="after")
    def _key_with_encryption(self) -> Self:
        if self.s3_kms_key and not self.s3_sse.startswith("aws:kms"):
            raise ValueError("DEPOTGATE_S3_KMS_KEY needs DEPOTGATE_S3_SSE=aws:kms")
        return self
