"""Database URLs before anybody connects with them."""

import pytest

from legivellum.postgres.dsn import address
from legivellum.postgres.errors import UnusableAddress

HIDDEN = "hunter2"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p%40ss@h:5432/d?sslmode=verify-full&sslrootcert=/ca.crt",
        "postgres://h/d",
        "postgresql:///d",
        "postgresql://u@h1:1,h2:2/d",
        "postgresql://[::1]:5432/d",
        "postgresql://[::1]/d",
        "postgresql://%2Fvar%2Frun/d",
    ],
)
def test_what_the_driver_takes(url: str) -> None:
    """Whatever PostgreSQL's own tools take passes as it is; the seeds' driver is dropped and nothing else."""
    assert address(url, "X") == url
    assert address(url.replace("://", "+asyncpg://", 1), "X") == url


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("connect_timeout=3&keepalives_idle=30&channel_binding=prefer", ""),
        ("sslmode=require&connect_timeout=10", "?sslmode=require"),
        ("keepalives=1&keepalives_interval=5&keepalives_count=3&tcp_user_timeout=1000", ""),
        ("gssencmode=disable&sslsni=1&sslcompression=0&load_balance_hosts=random&fallback_application_name=x", ""),
        ("client_encoding=UTF8&application_name=mine", "?application_name=mine"),
        ("options=-c%20statement_timeout%3D5s&connect_timeout=3&target_session_attrs=read-write",
         "?options=-c%20statement_timeout%3D5s&target_session_attrs=read-write"),
        ("host=%2Fvar%2Frun&sslcertmode=allow&requiressl=0", "?host=%2Fvar%2Frun"),
    ],
)  # fmt: skip
def test_parameters_of_libpq(given: str, taken: str) -> None:
    """What libpq knows is understood, or dropped where it only tunes the connection; nothing of it reaches the server as
    a setting.
    """
    for before in ("postgresql://u:p%40ss@h:5432/d", "postgresql:///d", "postgres://h1,h2/d"):
        assert address(f"{before}?{given}", "X") == before + taken


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("pool_size=5&schema=public", "none of a PostgreSQL URL: pool_size, schema ("),
        ("statement_timeout=5", "options=-c"),
        ("connect_timeout=soon", "a parameter connect_timeout that is not a number"),
        ("channel_binding=require", "asks for channel_binding"),
        ("gssencmode=require", "asks for gssencmode"),
        ("require_auth=scram-sha-256", "require_auth"),
        ("client_encoding=LATIN1", "asks for client_encoding"),
        ("hostaddr=10.0.0.1", "hostaddr"),
        (f"{HIDDEN}%20=1", "one whose name is no name"),
    ],
)
def test_other_parameters_are_named(query: str, says: str) -> None:
    """By their names, never with their values; a protection that cannot be had is not dropped silently."""
    with pytest.raises(UnusableAddress, match="DATABASE_URL ") as refused:
        address(f"postgresql://u:p@h/d?{query}", "DATABASE_URL")
    assert says in str(refused.value)
    assert HIDDEN not in str(refused.value)


@pytest.mark.parametrize("part", [f"12?{HIDDEN}=x@h/d", f"12/{HIDDEN}?{HIDDEN}=1@h/d", f"12?a={HIDDEN}&{HIDDEN}=1@h/d"])
def test_a_password_that_looks_like_parameters_is_not_named(part: str) -> None:
    """A `?` of the password begins what looks like parameters."""
    with pytest.raises(UnusableAddress, match="percent-encoded") as refused:
        address(f"postgresql://u:{part}", "X")
    assert HIDDEN not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "must begin with postgresql://"),
        (f"{HIDDEN}@h/d", "must begin with postgresql://"),
        (f"mysql://u:{HIDDEN}@h/d", "must begin with postgresql://"),
        (f"postgresql:u:{HIDDEN}@h/d", "must begin with postgresql://"),
        (f"postgresql://u:{HIDDEN}@h:port/d", "a port that is not a number"),
        (f"postgresql://u:{HIDDEN}@h:99999/d", "a port that is not a number"),
        (f"postgresql://u:{HIDDEN}/!@h/d", "a port that is not a number"),
        (f"postgresql://u:{HIDDEN}@!@h/d", "percent-encoded"),
        (f"postgresql://u:{HIDDEN}#!@h/d", "percent-encoded"),
        (f"postgresql://u:{HIDDEN}@[h/d", "is not a URL"),
        (f"postgresql://u:{HIDDEN}@h/d?sslmode", "is not a URL"),
        (f"postgresql://u:{HIDDEN}@h/d?sslmode=on", "an sslmode that is none of disable"),
    ],
)
def test_what_is_malformed_is_named_without_itself(url: str, says: str) -> None:
    """The refusal names the setting and what is wrong, and nothing of the URL: any of it may be the password."""
    with pytest.raises(UnusableAddress) as refused:
        address(url, "DATABASE_URL")
    assert str(refused.value).startswith("DATABASE_URL ")
    assert says in str(refused.value)
    assert HIDDEN not in str(refused.value)
