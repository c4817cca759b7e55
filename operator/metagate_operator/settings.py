"""How the writer behaves: one frozen object, read once from the environment (`METAGATE_…`)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class WriterSettings(BaseSettings):
    """Seconds, unless the name says otherwise."""

    model_config = SettingsConfigDict(env_prefix="METAGATE_", frozen=True, extra="ignore", populate_by_name=True)

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
