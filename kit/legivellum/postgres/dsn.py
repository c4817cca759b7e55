"""A database's URL, looked at before anybody connects with it: a malformed one is a wrong setting and told as that.

libpq's parameters are the ones people copy from their provider. The driver understands some of them and would send all
others to the server as settings of the session, which refuses the connection with an error that says nothing of a URL.
So those are dropped that only tune a connection, and refused by name where dropping one would give up a protection.

No value of the URL is ever repeated: where it is malformed, anything in it may be the password.
"""

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl, unquote_plus, urlsplit

from legivellum.postgres.errors import UnusableAddress

_SCHEMES: Final = frozenset({"postgresql", "postgres"})
_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_QUOTE: Final = "; a special character in a password is percent-encoded, as in p%40ss"

_UNDERSTOOD: Final = frozenset({
    "application_name", "database", "dbname", "gsslib", "host", "krbsrvname", "options", "passfile", "password", "port",
    "service", "ssl_max_protocol_version", "ssl_min_protocol_version", "sslcert", "sslcrl", "sslkey", "sslmode",
    "sslnegotiation", "sslpassword", "sslrootcert", "target_session_attrs", "user",
})  # fmt: skip
"""What the driver does as libpq does."""

_NUMBERS: Final = frozenset({
    "connect_timeout", "keepalives", "keepalives_count", "keepalives_idle", "keepalives_interval", "tcp_user_timeout",
})  # fmt: skip
"""Dropped: gates bound every connection and statement themselves, more tightly than TCP could."""

_DROPPED: Final = frozenset({"fallback_application_name", "load_balance_hosts", "sslcompression", "sslsni"})

_DROPPED_VALUES: Final[Mapping[str, frozenset[str]]] = {
    "channel_binding": frozenset({"disable", "prefer"}),
    "client_encoding": frozenset({"auto", "utf8", "utf-8", "unicode"}),
    "gssdelegation": frozenset({"0"}),
    "gssencmode": frozenset({"disable", "prefer"}),
    "max_protocol_version": frozenset({"3.0", "3.2", "latest"}),
    "min_protocol_version": frozenset({"3.0"}),
    "replication": frozenset({"false", "off", "no", "0"}),
    "requiressl": frozenset({"0"}),
    "sslcertmode": frozenset({"disable", "allow"}),
}
"""Dropped with these values, which are the defaults or ask for less; another value is a demand that cannot be met."""

_PARAMETER: Final = re.compile(r"[a-z][a-z0-9_.]{1,40}\Z", re.IGNORECASE)


def address(url: str, setting: str) -> str:
    """The URL as the driver takes it: without a `+asyncpg`, and without parameters that it does not know.

    `setting` is what the person who gave it calls it. Raises UnusableAddress.
    """
    scheme, separator, rest = url.partition("://")
    plain = scheme.removesuffix("+asyncpg") + separator + rest
    wrong = _wrong(plain)
    if wrong is not None:
        raise UnusableAddress(f"{setting} {wrong}")
    return _without_dropped(plain)


def _wrong(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
    except ValueError:
        return "is not a URL: postgresql://USER:PASSWORD@HOST:5432/DATABASE" + _QUOTE
    if parts.scheme not in _SCHEMES or "://" not in url:
        return "must begin with postgresql://"
    if parts.fragment or parts.netloc.count("@") > 1:
        return "has an @ or # too many" + _QUOTE
    places = parts.netloc.rpartition("@")[2].split(",")
    if not all(_is_port(place.rpartition("]")[2].partition(":")[2]) for place in places):
        return "names a port that is not a number" + _QUOTE
    if query.get("sslmode", "prefer") not in _MODES:
        return f"has an sslmode that is none of {', '.join(_MODES)}"
    wrong = _wrong_parameters(query)
    if wrong is not None and "@" not in parts.netloc and "@" in parts.path + parts.query:
        # A ? or / of the password begins what looks like path and parameters: no name of those may be repeated.
        return "has an @ or # too many" + _QUOTE
    return wrong


def _wrong_parameters(query: Mapping[str, str]) -> str | None:
    for name, value in query.items():
        if name in _NUMBERS and not re.fullmatch(r"-?\d{1,10}", value.strip()):
            return f"has a parameter {name} that is not a number"
        if name in _DROPPED_VALUES and value.lower() not in _DROPPED_VALUES[name]:
            allowed = " or ".join(sorted(_DROPPED_VALUES[name]))
            return f"asks for {name}, and the driver can do no more than {allowed}: leave it out"
    known = _UNDERSTOOD | _NUMBERS | _DROPPED | _DROPPED_VALUES.keys()
    others = sorted(name for name in query if name not in known)
    if not others:
        return None
    named = ", ".join(name if _PARAMETER.match(name) else "one whose name is no name" for name in others[:5])
    return (
        f"has parameters that are none of a PostgreSQL URL: {named} "
        "(a setting of the session is written options=-c%20name%3Dvalue)"
    )


def _without_dropped(url: str) -> str:
    """The URL without what is dropped; every other byte of it as it was."""
    parts = urlsplit(url)
    if not parts.query:
        return url
    dropped = _NUMBERS | _DROPPED | _DROPPED_VALUES.keys()
    pairs = parts.query.split("&")
    kept = [pair for pair in pairs if unquote_plus(pair.partition("=")[0]) not in dropped]
    if len(kept) == len(pairs):
        return url
    # urlunsplit would turn postgresql:///d into postgresql:/d
    before, _, _ = url.partition("?")
    return f"{before}?{'&'.join(kept)}" if kept else before


def _is_port(text: str) -> bool:
    return not text or (text.isascii() and text.isdigit() and int(text) < 65_536)
