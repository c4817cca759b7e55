"""What an installation of DeleGate chooses, and what it cannot."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from delegate.gate import GATE
from delegate.settings import Settings
from legivellum.base.settings import UnusableSettingError
from legivellum.gate.composition import composed
from legivellum.postgres.dsn import UnusableAddress


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Admission is required and nobody is served until an installation says otherwise."""
    settings = Settings()
    assert (settings.admission, settings.credentials) == ("required", None)
    assert settings.identity_dsn == "postgresql://metagate_identity@127.0.0.1:5432/metagate"
    assert settings.identity_stale_seconds == 60
    monkeypatch.setenv("DELEGATE_STALE_SECONDS", "5")
    monkeypatch.setenv("DELEGATE_MEMORYGATE_URL", "https://ledger.example:8443")
    assert (Settings().identity_stale_seconds, Settings().memorygate_url) == (5, "https://ledger.example:8443")


def test_it_has_no_database_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that names one is read, so nothing can be kept there (DG-01)."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://owner:secret@db/metagate")
    monkeypatch.setenv("DELEGATE_DATABASE_URL", "postgresql://owner:secret@db/metagate")
    assert "secret" not in repr(Settings()) + str(Settings().masked())
    assert not {"database_url", "pool_size", "streams"} & set(Settings.model_fields)


@pytest.mark.parametrize(
    "wrong",
    [
        {"admission": "maybe"},
        {"body_bytes": 49_153},
        {"memorygate_url": "ftp://ledger"},
        {"depotgate_url": "depotgate:8003"},
        {"asyncgate_url": "http://a b/"},
        {"interrogate_url": ""},
        {"gate_ms": 0},
        {"identity_stale_seconds": 0},
    ],
)
def test_what_cannot_be(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Settings(**wrong)


async def test_a_wrong_address_is_told_before_anything_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DELEGATE_IDENTITY_DATABASE_URL", "mysql://metagate")
    with pytest.raises(UnusableAddress, match="DELEGATE_IDENTITY_DATABASE_URL"):
        composed(GATE, Settings())


async def test_certificates_that_cannot_be_used_end_it(tmp_path: Path) -> None:
    """A person hears which file it is."""
    with pytest.raises(FileNotFoundError, match=r"/nowhere/ca\.pem"):
        composed(GATE, Settings(gates_ca_file="/nowhere/ca.pem"))
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(UnusableSettingError, match="DELEGATE_GATES_CA_FILE"):
        composed(GATE, Settings(gates_ca_file=str(tmp_path / "ca.pem")))
