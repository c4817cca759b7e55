"""What the settings of every gate have in common: read once from the environment into one frozen object, never shown
with their secrets.

A Service makes Kubernetes inject variables such as `METAGATE_PORT=tcp://10.0.0.1:8000` into every pod: `tcp://` values
are ignored.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict


class _EnvironmentSource(EnvSettingsSource):
    def _load_env_vars(self) -> Mapping[str, str | None]:
        variables = super()._load_env_vars()
        return {name: value for name, value in variables.items() if not (value or "").startswith("tcp://")}


class UnusableSettingError(ValueError):
    """A setting that has the right form and still cannot be used; the text names it and holds no secret."""


class GateSettings(BaseSettings):
    """One field per setting; each names its variables itself."""

    model_config = SettingsConfigDict(
        frozen=True,
        populate_by_name=True,
        case_sensitive=True,
        env_ignore_empty=True,
        extra="ignore",
        hide_input_in_errors=True,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - replaced
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - no second place
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - no second place
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, _EnvironmentSource(settings_cls)

    def masked(self) -> dict[str, Any]:
        """Every setting by name, secrets as stars: what is printed once at start."""
        return {name: "**********" if isinstance(value, SecretStr) else value for name, value in self}
