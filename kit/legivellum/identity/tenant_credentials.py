"""Which tenants a gate acts for (DG-02): a directory with one file for each namespace, named like it, which holds the
credential of a Principal of that tenant.

A file is read again when it changes, so that keys rotate without a restart. What it holds is verified like the
credential of any caller before it is used: a key of another tenant, or of a Principal of another type, opens nothing
under this namespace's name.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

import structlog

from legivellum.http.problem_codes import ProblemCode
from legivellum.http.problems import RequestRefused, refuse
from legivellum.identity.caller import AuthFailure, Caller

Introspect = Callable[[bytes], Awaitable[Caller | AuthFailure]]
"""Whose credential this is (`Authenticator.introspect`): its token is made for the gates that are called with it."""

_NAMESPACE: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z")
_API_KEY: Final = b"mgk_"
_LONGEST: Final = 16_384


@dataclass(frozen=True, slots=True)
class ServedTenant:
    """A tenant with a good credential: `principal_key` names its Principal, `headers` are what it is sent in."""

    uid: UUID
    namespace: str
    principal_key: str
    headers: Mapping[str, str]

    def __repr__(self) -> str:
        # The headers hold the credential; whatever prints a tenant must not print them.
        return f"ServedTenant({self.namespace!r}, {self.uid}, {self.principal_key!r})"


@dataclass(frozen=True, slots=True)
class _CredentialFile:
    """What was read of a file, and how the file looked then."""

    version: tuple[int, int, int]
    credential: bytes


class TenantCredentials:
    """`introspect` is the gate's own: it knows every tenant's principals. `principal_type`: whose credentials are good;
    `not_served`: the gate's code of the refusal, the same whatever the reason; `gate`: whose log says the reason.
    """

    def __init__(
        self,
        directory: Path | None,
        introspect: Introspect,
        *,
        principal_type: str,
        not_served: ProblemCode,
        gate: str,
        api_key_header: str,
    ) -> None:
        self._directory = directory
        self._introspect = introspect
        self._principal_type = principal_type
        self._not_served = not_served
        self._log = structlog.get_logger(f"{gate}.credentials")
        self._api_key_header = api_key_header
        self._files: dict[str, _CredentialFile] = {}
        self._logged: dict[str, str] = {}

    async def of(self, namespace: str) -> ServedTenant:
        """Raises RequestRefused where the tenant is not served; Unavailable where identity is not known."""
        credential = self._read(namespace) if _NAMESPACE.match(namespace) else None
        if credential is None:
            raise self._refusal()
        caller = await self._introspect(credential)
        problem = self._problem(caller, namespace)
        self._report(namespace, problem)
        if problem is not None or isinstance(caller, AuthFailure):
            raise self._refusal()
        return ServedTenant(caller.tenant, namespace, caller.principal_key, self._headers(credential))

    async def by_uid(self, tenant: UUID) -> ServedTenant:
        """The served tenant of this uid. Raises RequestRefused, Unavailable."""
        for served in await self.all():
            if served.uid == tenant:
                return served
        raise self._refusal()

    async def all(self) -> list[ServedTenant]:
        """Every tenant that is served now; files that cannot be used are left out. Raises Unavailable."""
        served = []
        for namespace in self.namespaces():
            try:
                served.append(await self.of(namespace))
            except RequestRefused:
                continue
            await asyncio.sleep(0)
        return served

    def namespaces(self) -> list[str]:
        """The files of the directory that have the name of a namespace: `..data` of a mounted Secret has none."""
        try:
            names = [] if self._directory is None else os.listdir(self._directory)  # noqa: PTH208 - names are enough
        except OSError as error:
            self._log.error("credentials_unreadable", error=type(error).__qualname__)
            return []
        return sorted(name for name in names if _NAMESPACE.match(name))

    def _read(self, namespace: str) -> bytes | None:
        """The credential of the file, read again when it changed. A mounted Secret is swapped through a link."""
        if self._directory is None:
            return None
        path = self._directory / namespace
        try:
            status = path.stat()
            version = (status.st_ino, status.st_size, status.st_mtime_ns)
            known = self._files.get(namespace)
            if known is None or known.version != version:
                with path.open("rb") as file:
                    known = _CredentialFile(version, file.read(_LONGEST + 1).strip())
                self._files[namespace] = known
        except OSError as error:
            self._files.pop(namespace, None)
            if not isinstance(error, FileNotFoundError):
                self._report(namespace, f"the file cannot be read: {type(error).__qualname__}")
            return None
        if not known.credential or len(known.credential) > _LONGEST or not known.credential.isascii():
            self._report(namespace, "the file holds no credential on one line")
            return None
        return known.credential

    def _headers(self, credential: bytes) -> Mapping[str, str]:
        text = credential.decode("ascii")
        if credential.startswith(_API_KEY):
            return {self._api_key_header: text}
        return {"Authorization": f"Bearer {text}"}

    def _report(self, namespace: str, problem: str | None) -> None:
        """Say once why a namespace is not served, and once that it is again."""
        if problem is None and self._logged.pop(namespace, None) is not None:
            self._log.info("credential_accepted", namespace=namespace)
        elif problem is not None and self._logged.get(namespace) != problem:
            self._logged[namespace] = problem
            self._log.warning("credential_refused", namespace=namespace, reason=problem)

    def _problem(self, caller: Caller | AuthFailure, namespace: str) -> str | None:
        if isinstance(caller, AuthFailure):
            return f"the credential is refused: {caller.reason.value}"
        if caller.namespace != namespace:
            return "the credential belongs to a Principal of another namespace"
        if caller.type != self._principal_type:
            return f"the credential belongs to a Principal that is no {self._principal_type}"
        return "the Principal is suspended" if caller.suspended else None

    def _refusal(self) -> RequestRefused:
        return refuse(self._not_served, f"This gate has no good credential of a {self._principal_type} of this tenant.")
