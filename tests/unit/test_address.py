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
