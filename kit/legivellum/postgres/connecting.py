"""Opening a connection where the URL names several hosts, as it does for a primary and its standbys.

The driver tries the hosts of a URL one after the other, and not as a failover needs it: a host that is gone without a
word uses up the time of all others, and one that answers but is still starting ends the search. Here each host has the
time for itself, and whatever is wrong with one of them, the next is asked.

`target_session_attrs=read-write` means the primary here. To the driver it also means a session that may write, and the
roles that only read (`metagate_identity`, the auditor of the ledger) have none on any host.
"""

from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlsplit

import asyncpg

CONNECT_FAILURES: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
"""What opening a connection may raise, if the URL is sound."""

_READ_WRITE: Final = "target_session_attrs=read-write"
_PRIMARY: Final = "target_session_attrs=primary"


class HostConnector:
    """Opens connections to the first host that qualifies; the one that qualified last is asked first.

    `seconds`: for each host. `options` are those of the driver's `connect`.
    """

    def __init__(self, dsn: str, *, seconds: float, **options: Any) -> None:
        self._urls = host_urls(dsn)
        self._seconds = seconds
        self._options = options

    async def connect(self) -> asyncpg.Connection:
        """Raises one of CONNECT_FAILURES: that of the host that was asked first."""
        first_failure: Exception | None = None
        for url in tuple(self._urls):
            try:
                connection = await asyncpg.connect(url, timeout=self._seconds, **self._options)
            except CONNECT_FAILURES as error:
                first_failure = first_failure or error
            else:
                # Several connections are opened at once: another may have moved the same URL meanwhile.
                self._urls.sort(key=lambda candidate: candidate != url)
                return connection
        assert first_failure is not None, "a URL names at least one host"
        raise first_failure


async def connect(dsn: str, *, seconds: float = 10.0, **options: Any) -> asyncpg.Connection:
    """One connection, for a command; `seconds` for each host. Raises one of CONNECT_FAILURES."""
    return await HostConnector(dsn, seconds=seconds, **options).connect()


def host_urls(dsn: str) -> list[str]:
    """A URL for each host, which may stand before the path or in the parameters `host` and `port`."""
    dsn = _to_primary(dsn)
    parts = urlsplit(dsn)
    user, separator, places = parts.netloc.rpartition("@")
    if "," in places:
        return [_with_place(dsn, f"{user}{separator}{place}") for place in places.split(",")]
    return [_with_parameters(dsn, chosen) for chosen in _hosts_of(parts.query)]


def _to_primary(dsn: str) -> str:
    before, separator, query = dsn.partition("?")
    pairs = [_PRIMARY if pair == _READ_WRITE else pair for pair in query.split("&")]
    return f"{before}{separator}{'&'.join(pairs)}"


def _with_place(dsn: str, netloc: str) -> str:
    # urlunsplit would turn postgresql:///d into postgresql:/d
    return dsn.replace(f"//{urlsplit(dsn).netloc}", f"//{netloc}", 1)


def _hosts_of(query: str) -> list[dict[str, str]]:
    """What `host` and `port` become for each host that a query names; one empty entry where it names no list."""
    given = dict(parse_qsl(query))
    hosts = given.get("host", "").split(",")
    ports = given.get("port", "").split(",")
    if len(hosts) == 1:
        return [{}]
    if len(ports) == 1:
        ports *= len(hosts)
    return [{"host": host, **({"port": port} if port else {})} for host, port in zip(hosts, ports, strict=False)]


def _with_parameters(dsn: str, chosen: dict[str, str]) -> str:
    if not chosen:
        return dsn
    before, _, query = dsn.partition("?")
    kept = [pair for pair in query.split("&") if pair.partition("=")[0] not in {"host", "port"}]
    named = [f"{name}={quote(value, safe='')}" for name, value in chosen.items()]
    return f"{before}?{'&'.join((*kept, *named))}"
