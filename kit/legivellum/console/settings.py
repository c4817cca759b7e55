"""What an installation chooses of a gate's console."""

from __future__ import annotations

import secrets

from pydantic import Field, SecretStr

from legivellum.gate.settings import DatabaseGateSettings, ServedGateSettings


def _new_secret() -> SecretStr:
    return SecretStr(secrets.token_urlsafe(32))


class ConsoleSettings(ServedGateSettings):
    """A gate that may serve a console. Worker processes are given the settings of the process that starts them, so a
    secret that nobody chose is the same in all of them.
    """

    console: bool = Field(False, description="Serve the console at /console; `metagate dev` does unless told not to.")
    console_secret: SecretStr = Field(
        default_factory=_new_secret,
        description="Signs the console's cookies; the same for all processes behind one address. Unset: made anew at "
        "each start.",
        min_length=32,
    )
    console_minutes: int = Field(
        30, description="How long a console session lasts; never longer than its credential.", ge=1, le=720
    )
    console_secure: bool = Field(
        False,
        description="The console's cookies are for https only. Always so with TLS here or a public URL that begins "
        "with https://.",
    )

    def console_cookies_secure(self, public_url: str) -> bool:
        """`public_url`: where people reach the gate; empty: at the host that they ask."""
        return self.console_secure or self.tls_cert is not None or public_url.lower().startswith("https://")


class ConsoleGateSettings(ConsoleSettings, DatabaseGateSettings):
    """A gate that keeps state, follows MetaGate's identity and may serve a console."""

    console_public_url: str | None = Field(
        None, description="Where people reach this gate, as their browsers have it; unset: at the host they ask."
    )
