"""What can be chosen, and that the page says the same."""

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from memorygate.settings import Settings

PAGE = Path(__file__).parents[3] / "docs" / "memorygate" / "settings.md"


def test_the_page_lists_every_setting_with_its_default():
    """Names and defaults, in the order of the code."""
    documented = re.findall(r"^\| `(\w+)` \| ([^|]*?) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    expected = []
    for name, field in Settings.model_fields.items():
        alias = field.validation_alias
        shown = alias if isinstance(alias, str) else str(alias.choices[0])
        default = field.default
        text = (
            ""
            if default in {None, PydanticUndefined}
            else "the local one"
            if isinstance(default, SecretStr)
            else f"`{default}`"
        )
        assert shown.endswith(name.upper())
        expected.append((shown, text))
    assert documented == expected


def test_what_kubernetes_injects_is_ignored(monkeypatch):
    """A Service named memorygate must not set the port."""
    monkeypatch.setenv("MEMORYGATE_PORT", "tcp://10.0.0.1:8001")
    assert Settings().port == 8001


def test_secrets_are_masked_and_drivers_dropped(monkeypatch):
    """What is printed at start holds no password; a driver suffix is not part of a DSN."""
    monkeypatch.setenv("MEMORYGATE_DATABASE_URL", "postgresql+asyncpg://u:hunter2@h/d")
    settings = Settings()
    assert settings.dsn == "postgresql://u:hunter2@h/d"
    assert settings.identity_dsn == settings.dsn
    assert "hunter2" not in str(settings.masked())


def test_a_password_beside_the_url_needs_no_quoting(monkeypatch):
    """Whatever characters it has, it arrives as it is; the writer's URL is left alone and neither is printed."""
    monkeypatch.setenv("MEMORYGATE_DATABASE_URL", "postgresql://memorygate_writer@h/d")
    monkeypatch.setenv(
        "MEMORYGATE_IDENTITY_DATABASE_URL", "postgresql://metagate_identity:old@h2:5433/d?sslmode=require"
    )
    monkeypatch.setenv("MEMORYGATE_IDENTITY_DATABASE_PASSWORD", "a:b@c/d%?#")
    settings = Settings()
    parts = urlsplit(settings.identity_dsn)
    assert (parts.username, unquote(parts.password or "")) == ("metagate_identity", "a:b@c/d%?#")
    assert (parts.hostname, parts.port, parts.query) == ("h2", 5433, "sslmode=require")
    assert settings.dsn == "postgresql://memorygate_writer@h/d"
    assert "a:b@c" not in str(settings.masked())
