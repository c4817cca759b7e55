"""How the writer behaves and how it reaches the ledger: read once from the environment (`METAGATE_…`)."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import SettingsConfigDict

from legivellum.base.settings import GateSettings
from metagate_operator.ledger.ledger_client import LedgerAccess

_BY_PREFIX: Final = SettingsConfigDict(env_prefix="METAGATE_", case_sensitive=False)


def _named(name: str, default: Any, **rules: Any) -> Any:
    """A setting that the API reads too: with the prefix, or as the environment of the seeds names it (INV-036)."""
    return Field(default, validation_alias=AliasChoices(f"METAGATE_{name}", name), **rules)


class OperatorSettings(GateSettings):
    """What operator and admission read of what `docs/settings.md` describes for the API. It must be the same there:
    the compiler and the API have to agree on HS256 and on defaults (D-37).
    """

    debug: bool = _named("DEBUG", False)
    log_format: Literal["json", "console"] = Field("json", validation_alias=AliasChoices("METAGATE_LOG_FORMAT"))
    jwt_secret: SecretStr | None = _named("JWT_SECRET", None)
    """Only whether it is set counts here: it turns HS256 on."""
    jwt_issuer: str = _named("JWT_ISSUER", "metagate", min_length=1)
    jwt_namespaces: str | None = _named("JWT_NAMESPACES", None)
    default_startup_sla_seconds: int = _named("DEFAULT_STARTUP_SLA_SECONDS", 120, ge=1, le=86_400)
    receipt_retention_hours: int = _named("RECEIPT_RETENTION_HOURS", 72, ge=1)


class WriterSettings(GateSettings):
    """Seconds, unless the name says otherwise."""

    model_config = _BY_PREFIX

    resync_seconds: Annotated[float, Field(gt=0)] = 300.0
    """A full list-and-diff at least this often; up to a tenth earlier, so that several writers do not list together."""
    debounce_seconds: Annotated[float, Field(ge=0)] = 0.005
    """Events that come together are published together."""
    backoff_seconds: Annotated[float, Field(gt=0)] = 0.1
    backoff_max_seconds: Annotated[float, Field(gt=0)] = 10.0
    brake_objects: Annotated[int, Field(ge=1)] = 10
    """D-40: a listing that misses at least this many objects of a kind, and …"""
    brake_share: Annotated[float, Field(gt=0, le=1)] = 0.2
    """… more than this share of them, waits for a second one."""
    brake_seconds: Annotated[float, Field(gt=0)] = 2.0
    fail: str = ""
    """Names of steps at which the process kills itself, for fault tests only: `after_packets,before_commit`."""


class LedgerSettings(GateSettings):
    """How the relay reaches the ledger (D-56). Without `ledger_url` nothing is mirrored."""

    model_config = _BY_PREFIX

    ledger_url: str | None = None
    token_file: Path | None = Field(None, description="A token for the ledger's audience; read again for each request.")
    api_key_file: Path | None = Field(None, description="An API key instead.")
    ca_file: Path | None = Field(None, description="Whom the ledger's certificate is signed by.")

    @property
    def access(self) -> LedgerAccess | None:
        if self.ledger_url is None:
            return None
        return LedgerAccess(
            self.ledger_url, token_file=self.token_file, api_key_file=self.api_key_file, ca_file=self.ca_file
        )


def kill_at(names: Iterable[str]) -> Callable[[str], None]:
    """A hook for fault tests (F27): called with a step's name, it sends SIGKILL to this process when the step is one of
    `names`. Nothing is armed by default.
    """
    armed = frozenset(name.strip() for name in names if name.strip())

    def reach(name: str) -> None:
        if name in armed:
            os.kill(os.getpid(), signal.SIGKILL)

    return reach
