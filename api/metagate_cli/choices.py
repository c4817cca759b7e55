"""How the API's settings become the compiler's: both must agree on HS256 and on defaults (D-37)."""

from __future__ import annotations

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from metagate_api.settings import Settings
from metagate_crds.declared import CompileSettings


def compile_settings(system_namespace: str, settings: Settings | None = None) -> CompileSettings:
    """Standalone: every namespace may claim subjects of the shared secret unless JWT_NAMESPACES says otherwise."""
    settings = settings or Settings()
    names = settings.jwt_namespaces
    return CompileSettings(
        system_namespace=system_namespace,
        default_sla_seconds=settings.default_startup_sla_seconds,
        jwt_issuer=settings.jwt_issuer if settings.jwt_secret is not None else None,
        jwt_namespaces=("*",) if names is None else tuple(name for name in names.replace(",", " ").split() if name),
    )


class _RolePasswords(BaseSettings):
    """METAGATE_PUBLISHER_PASSWORD, METAGATE_API_PASSWORD, METAGATE_IDENTITY_PASSWORD."""

    model_config = SettingsConfigDict(env_prefix="METAGATE_", frozen=True, extra="ignore", hide_input_in_errors=True)

    publisher_password: SecretStr | None = None
    api_password: SecretStr | None = None
    identity_password: SecretStr | None = None


def role_passwords() -> dict[str, str]:
    """The passwords that `metagate migrate` gives to the roles, by role; a role without one keeps its own."""
    found = _RolePasswords()
    named = {"publisher": found.publisher_password, "api": found.api_password, "identity": found.identity_password}
    return {f"metagate_{role}": secret.get_secret_value() for role, secret in named.items() if secret is not None}
