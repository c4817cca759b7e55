"""A database URL that names several hosts becomes a URL for each."""

from pathlib import Path

import pytest

from legivellum.postgres.connecting import host_urls


@pytest.mark.parametrize(
    ("url", "urls"),
    [
        ("postgresql://u:p%40ss@h:5432/d?sslmode=require", ["postgresql://u:p%40ss@h:5432/d?sslmode=require"]),
        ("postgresql:///d", ["postgresql:///d"]),
        ("postgresql:///d?host=%2Fvar%2Frun&port=5433", ["postgresql:///d?host=%2Fvar%2Frun&port=5433"]),
        ("postgresql://u:p@h1:1,h2:2/d", ["postgresql://u:p@h1:1/d", "postgresql://u:p@h2:2/d"]),
        ("postgresql://h1,[::1]:2/d?sslmode=require", ["postgresql://h1/d?sslmode=require", "postgresql://[::1]:2/d?sslmode=require"]),
        ("postgresql:///d?host=h1,h2&port=1,2", ["postgresql:///d?host=h1&port=1", "postgresql:///d?host=h2&port=2"]),
        ("postgresql://u@/d?host=h1,h2&sslmode=require&port=5433", ["postgresql://u@/d?sslmode=require&host=h1&port=5433", "postgresql://u@/d?sslmode=require&host=h2&port=5433"]),
    ],
)  # fmt: skip
def test_each_host_has_a_url(url: str, urls: list[str]) -> None:
    """Everything else of the URL stays as it was."""
    assert host_urls(url) == urls


def test_read_write_is_the_primary() -> None:
    """A role that only reads has a read-only session on every host: to the driver none would qualify."""
    assert host_urls("postgresql://h1,h2/d?target_session_attrs=read-write&sslmode=require") == [
        "postgresql://h1/d?target_session_attrs=primary&sslmode=require",
        "postgresql://h2/d?target_session_attrs=primary&sslmode=require",
    ]
    assert host_urls("postgresql://h/d?target_session_attrs=any") == ["postgresql://h/d?target_session_attrs=any"]


def test_every_connection_is_opened_here() -> None:
    """A call of the driver's own `connect` would not follow a failover."""
    root = Path(__file__).parents[2]
    sources = [
        path for name in ("api", "cli", "gates", "kit", "operator", "store") for path in (root / name).rglob("*.py")
    ]
    assert {path.name for path in sources if "asyncpg.connect(" in path.read_text(encoding="utf-8")} == {
        "connecting.py"
    }
