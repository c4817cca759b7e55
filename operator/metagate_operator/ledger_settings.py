"""How the relay reaches the ledger (D-56): `METAGATE_LEDGER_URL` turns mirroring on."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from metagate_operator.ledger_door import Access


class LedgerSettings(BaseSettings):
    """Read once from the environment. Without `ledger_url` nothing is mirrored."""

    model_config = SettingsConfigDict(
        env_prefix="METAGATE_", frozen=True, extra="ignore", env_ignore_empty=True, populate_by_name=True
    )

    ledger_url: str | None = None
    token_file: Path | None = Field(None, description="A token for the ledger's audience; read again for each request.")
    api_key_file: Path | None = Field(None, description="An API key instead.")
    ca_file: Path | None = Field(None, description="Whom the ledger's certificate is signed by.")

    @property
    def access(self) -> Access | None:
        if self.ledger_url is None:
            return None
        return Access(self.ledger_url, token_file=self.token_file, api_key_file=self.api_key_file, ca_file=self.ca_file)
