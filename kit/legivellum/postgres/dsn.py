"""A database's URL, looked at before anybody connects with it: a malformed one is a wrong setting and told as that.

Nothing of the URL is ever repeated: where it is malformed, anything in it may be the password.
"""

from typing import Final
from urllib.parse import parse_qs, urlsplit

from legivellum.postgres.errors import UnusableAddress

_SCHEMES: Final = frozenset({"postgresql", "postgres"})
_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_QUOTE: Final = "; a special character in a password is percent-encoded, as in p%40ss"


def address(url: str, setting: str) -> str:
    """The URL as the driver takes it: without a `+asyncpg`. `setting` is what the person who gave it calls it.

    Raises UnusableAddress.
    """
    scheme, separator, rest = url.partition("://")
    plain = scheme.removesuffix("+asyncpg") + separator + rest
    wrong = _wrong(plain)
    if wrong is not None:
        raise UnusableAddress(f"{setting} {wrong}")
    return plain


def _wrong(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        query = parse_qs(parts.query, strict_parsing=True) if parts.query else {}
    except ValueError:
        return "is not a URL: postgresql://USER:PASSWORD@HOST:5432/DATABASE" + _QUOTE
    if parts.scheme not in _SCHEMES or "://" not in url:
        return "must begin with postgresql://"
    if parts.fragment or parts.netloc.count("@") > 1:
        return "has an @ or # too many" + _QUOTE
    places = parts.netloc.rpartition("@")[2].split(",")
    if not all(_is_port(place.rpartition("]")[2].partition(":")[2]) for place in places):
        return "names a port that is not a number" + _QUOTE
    if query.get("sslmode", ["prefer"])[-1] not in _MODES:
        return f"has an sslmode that is none of {', '.join(_MODES)}"
    return None


def _is_port(text: str) -> bool:
    return not text or (text.isascii() and text.isdigit() and int(text) < 65_536)
