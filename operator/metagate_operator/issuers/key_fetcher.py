"""Where key sets are fetched from: the web, with the care that an address somebody declared deserves.

The operator runs inside the cluster and can reach what a tenant cannot: its node, the metadata service of the cloud.
So only https, only addresses that belong to somebody, only the host that was declared, only so much and only so long.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Final, Protocol, TypeAlias

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from metagate_operator.issuers.jwks import LARGEST_SET

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

SECONDS: Final = 10.0
_HOPS: Final = 3
_METADATA: Final = frozenset({ip_address("fd00:ec2::254"), ip_address("100.100.100.200"), ip_address("192.0.0.192")})
_TRANSLATED: Final = ip_network("64:ff9b::/96")


class KeysUnavailable(Exception):  # noqa: N818 - it names a state
    """The key set could not be fetched. The text is for status: it names no content."""


class KeyFetcher(Protocol):
    """Returns a document, at most `LARGEST_SET` bytes and one of them more. Raises `KeysUnavailable`."""

    async def __call__(self, url: str) -> bytes: ...


def parse_networks(text: str) -> tuple[Network, ...]:
    """Comma-separated networks that may be fetched from although they are loopback, link-local or metadata."""
    return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())


class HttpsKeyFetcher:
    """Fetches over https. `allow`: networks that are fetched from although they would be refused."""

    def __init__(self, *, ca_file: Path | None = None, allow: Sequence[Network] = (), seconds: float = SECONDS) -> None:
        self._allow = tuple(allow)
        self._seconds = seconds
        self._ca_file = ca_file

    async def __call__(self, url: str) -> bytes:
        try:
            async with asyncio.timeout(self._seconds):
                return await self._fetch(URL(url))
        except TimeoutError as error:
            raise KeysUnavailable(f"no complete answer within {self._seconds:g} s") from error
        except _RefusedAddressError as error:
            raise KeysUnavailable(str(error)) from error
        except aiohttp.ClientConnectorCertificateError as error:
            raise KeysUnavailable("its certificate cannot be verified; a CA bundle can be set") from error
        except ssl.SSLError as error:
            raise KeysUnavailable("the TLS connection failed") from error
        except aiohttp.ClientConnectorError as error:
            raise KeysUnavailable(_reason(error)) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise KeysUnavailable(f"the request failed ({type(error).__name__})") from error

    async def _fetch(self, url: URL) -> bytes:
        # A context of its own for each fetch: the CA file may have been renewed since the last one.
        try:
            context = ssl.create_default_context(cafile=self._ca_file)
        except OSError as error:
            raise KeysUnavailable("the CA bundle cannot be read") from error
        resolver = _CarefulResolver(self._allow)
        connector = aiohttp.TCPConnector(resolver=resolver, ssl=context, force_close=True, use_dns_cache=False)
        headers = {"Accept": "application/jwk-set+json, application/json", "Accept-Encoding": "identity"}
        async with aiohttp.ClientSession(
            connector=connector, trust_env=False, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
        ) as session:
            _check(url, self._allow)
            origin = url.origin()
            for _ in range(_HOPS):
                async with session.get(url, headers=headers, allow_redirects=False) as answer:
                    if answer.status == 200:
                        return await _bounded(answer.content)
                    if answer.status not in {301, 302, 303, 307, 308}:
                        raise KeysUnavailable(f"it answered {answer.status}")
                    url = url.join(URL(answer.headers.get("Location", "")))
                    if not url.absolute or url.origin() != origin:
                        raise KeysUnavailable("it redirects to another host, which is not followed")
            raise KeysUnavailable("it redirects too often")


class _RefusedAddressError(OSError):
    pass


class _CarefulResolver(AbstractResolver):
    """Resolves like the system, then refuses. The connection goes to the very addresses that were looked at."""

    def __init__(self, allow: Sequence[Network]) -> None:
        self._allow = allow
        self._system = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        results = await self._system.resolve(host, port, family)
        for result in results:
            _refuse(ip_address(result["host"].partition("%")[0]), self._allow)
        return results

    async def close(self) -> None:
        await self._system.close()


def _check(url: URL, allow: Sequence[Network]) -> None:
    if url.scheme != "https" or url.host is None or url.user is not None:
        raise KeysUnavailable("only https addresses without credentials are fetched")
    try:
        literal = ip_address(url.host)
    except ValueError:
        return  # a name: the resolver looks at what it stands for
    _refuse(literal, allow)


def _refuse(address: Address, allow: Sequence[Network]) -> None:
    # `in` of different versions is False, so one list serves both.
    if any(address in network for network in allow):
        return
    for candidate in _meant(address):
        local = candidate.is_loopback or candidate.is_link_local or candidate.is_unspecified or candidate.is_multicast
        if local or candidate in _METADATA:
            raise _RefusedAddressError("its address is loopback, link-local or a metadata service, which is refused")


def _meant(address: Address) -> tuple[Address, ...]:
    """The address, and the one it stands for when it is an IPv4 address in disguise."""
    if isinstance(address, IPv4Address):
        return (address,)
    inner = address.ipv4_mapped or address.sixtofour
    if inner is None and address in _TRANSLATED:
        inner = IPv4Address(int(address) & 0xFFFFFFFF)
    return (address,) if inner is None else (address, inner)


async def _bounded(content: aiohttp.StreamReader) -> bytes:
    document = bytearray()
    async for chunk in content.iter_any():
        document += chunk
        if len(document) > LARGEST_SET:
            raise KeysUnavailable(f"the key set is larger than {LARGEST_SET // 1024} KiB")
    return bytes(document)


def _reason(error: aiohttp.ClientConnectorError) -> str:
    if isinstance(error.os_error, _RefusedAddressError):
        return str(error.os_error)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name cannot be resolved"
    return "the connection was refused or failed"
