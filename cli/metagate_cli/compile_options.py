"""How the settings of API and operator become the compiler's: both must agree on HS256 and on defaults (D-37)."""

from __future__ import annotations

from typing import Final, Literal, Protocol

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from metagate_crds.objects import CompileSettings
from metagate_operator.settings import OperatorSettings

Place = Literal["standalone", "cluster", "files"]

_EVERYWHERE: Final = ("*",)


class CompileOptions(Protocol):
    """What the settings of the API and of the operator have in common."""

    @property
    def jwt_secret(self) -> SecretStr | None: ...
    @property
    def jwt_issuer(self) -> str: ...
    @property
    def jwt_namespaces(self) -> str | None: ...
    @property
    def default_startup_sla_seconds(self) -> int: ...
    @property
    def model_fields_set(self) -> set[str]: ...


def compile_settings(
    system_namespace: str, settings: CompileOptions | None = None, *, place: Place = "files"
) -> CompileSettings:
    """What `metagate dev` (standalone), the operator and admission (cluster), `validate`, `compile` and `plan` (files)
    compile by.

    HS256 is on while JWT_SECRET is set. Operator and admission must not hold the secret, and files may be meant for a
    cluster: there naming JWT_ISSUER says that it is on. Who may claim its subjects when JWT_NAMESPACES is unset: nobody
    in a cluster, everybody elsewhere.
    """
    settings = settings or OperatorSettings()
    hs256_on = settings.jwt_secret is not None or (place != "standalone" and "jwt_issuer" in settings.model_fields_set)
    names = settings.jwt_namespaces
    default_namespaces = () if place == "cluster" else _EVERYWHERE
    return CompileSettings(
        system_namespace=system_namespace,
        default_sla_seconds=settings.default_startup_sla_seconds,
        jwt_issuer=settings.jwt_issuer if hs256_on else None,
        jwt_namespaces=default_namespaces if names is None else tuple(names.replace(",", " ").split()),
    )


class _RolePasswords(BaseSettings):
    """METAGATE_PUBLISHER_PASSWORD, METAGATE_API_PASSWORD, METAGATE_IDENTITY_PASSWORD."""

    model_config = SettingsConfigDict(env_prefix="METAGATE_", frozen=True, extra="ignore", hide_input_in_errors=True)

    publisher_password: SecretStr | None = None
    api_password: SecretStr | None = None
    identity_password: SecretStr | None = None


def role_passwords() -> dict[str, str]:
    """The passwords that `metagate migrate` gives to the roles, by role; a role without one keeps its own."""
    passwords = _RolePasswords()
    by_role = {
        "publisher": passwords.publisher_password,
        "api": passwords.api_password,
        "identity": passwords.identity_password,
    }
    return {f"metagate_{role}": secret.get_secret_value() for role, secret in by_role.items() if secret is not None}
