"""Settings: the seeds' names, ours, and what wins."""

import pytest
from pydantic import ValidationError

from metagate_api.settings import PUBLISHED_JWT_SECRET, Settings, names

SEEDS = {
    "DATABASE_URL": ("database_url", "postgresql://metagate:metagate@db:5432/metagate", "postgresql://a:b@h/d"),
    "JWT_SECRET": ("jwt_secret", None, "another-secret-" * 5),
    "JWT_ALGORITHM": ("jwt_algorithm", "HS256", "HS512"),
    "JWT_ISSUER": ("jwt_issuer", "metagate", "https://issuer.example"),
    "API_KEY_HEADER": ("api_key_header", "X-API-Key", "X-Other"),
    "DEBUG": ("debug", False, True),
    "METAGATE_VERSION": ("version", "0.1", "0.2"),
    "DEFAULT_STARTUP_SLA_SECONDS": ("default_startup_sla_seconds", 120, 60),
    "RECEIPT_RETENTION_HOURS": ("receipt_retention_hours", 72, 24),
}


def plain(value: object) -> object:
    return value.get_secret_value() if hasattr(value, "get_secret_value") else value


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in Settings.model_fields.values():
        for name in names(field):
            monkeypatch.delenv(name, raising=False)


@pytest.mark.invariant("INV-036")
@pytest.mark.parametrize("name", SEEDS)
def test_the_seeds_names(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each variable of INV-036 has its default, is read under its name, and loses to the METAGATE_ one."""
    field, default, other = SEEDS[name]
    assert plain(getattr(Settings(), field)) == default
    monkeypatch.setenv(name, str(other))
    assert plain(getattr(Settings(), field)) == other
    monkeypatch.setenv(name, "nonsense" if field not in {"jwt_algorithm", "debug"} else str(default))
    monkeypatch.setenv(f"METAGATE_{name}", str(other))
    assert plain(getattr(Settings(), field)) == other


@pytest.mark.parametrize(("algorithm", "least"), [("HS256", 32), ("HS384", 48), ("HS512", 64)])
def test_a_short_secret_refuses_to_start(algorithm: str, least: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 7518 §3.2: a key as long as its hash, in bytes; the refusal says so and not the secret."""
    monkeypatch.setenv("JWT_ALGORITHM", algorithm)
    monkeypatch.setenv("JWT_SECRET", "s" * (least - 1))
    with pytest.raises(ValidationError, match=f"JWT_SECRET must have {least} bytes") as refused:
        Settings()
    assert "sss" not in str(refused.value)
    monkeypatch.setenv("METAGATE_ALLOW_INSECURE", "true")
    assert Settings().jwt_secret is not None
    monkeypatch.delenv("METAGATE_ALLOW_INSECURE")
    monkeypatch.setenv("JWT_SECRET", "é" * (least // 2))
    assert Settings().jwt_secret is not None


@pytest.mark.invariant("INV-036")
def test_the_published_secret_refuses_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """D-37: the example everybody knows is refused, DEBUG or not; only an explicit word allows it."""
    monkeypatch.setenv("JWT_SECRET", PUBLISHED_JWT_SECRET)
    monkeypatch.setenv("DEBUG", "true")
    with pytest.raises(ValidationError) as refused:
        Settings()
    assert PUBLISHED_JWT_SECRET not in str(refused.value)
    monkeypatch.setenv("METAGATE_ALLOW_INSECURE", "true")
    assert Settings().jwt_secret is not None


def test_what_kubernetes_injects_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Service named metagate must not configure MetaGate."""
    monkeypatch.setenv("METAGATE_PORT", "tcp://10.0.0.1:8000")
    monkeypatch.setenv("METAGATE_PORT_8000_TCP", "tcp://10.0.0.1:8000")
    monkeypatch.setenv("METAGATE_SERVICE_HOST", "10.0.0.1")
    assert Settings().port == 8000


def test_asyncpg_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The seeds' URL names a driver; ours does not."""
    monkeypatch.setenv("DATABASE_URL", "postgresql+asyncpg://a:p%2B+asyncpg@h/d")
    assert Settings().dsn == "postgresql://a:p%2B+asyncpg@h/d"
    monkeypatch.setenv("DATABASE_URL", "postgresql://a:p+asyncpg@h/d")
    assert Settings().dsn == "postgresql://a:p+asyncpg@h/d", "a password is nobody's driver"


def test_printed_once_masked() -> None:
    """What is printed at start holds no secret, in any form."""
    settings = Settings(database_url="postgresql://u:canary-one@h/d", jwt_secret="canary-two" * 4)
    for text in (str(settings.masked()), str(settings), repr(settings)):
        assert "canary" not in text


def test_frozen_and_checked() -> None:
    """Nothing changes after start; what is out of range never starts."""
    with pytest.raises(ValidationError):
        Settings().port = 1  # type: ignore[misc]
    for wrong in ({"port": 70_000}, {"workers": 0}, {"deadline_ms": 1}, {"tls_cert": "x"}, {"jwt_algorithm": "none"}):
        with pytest.raises(ValidationError):
            Settings(**wrong)
