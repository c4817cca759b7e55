"""Keeps the public keys of issuers: what lets the API verify tokens while everything else is away.

For each TokenIssuer with source `Cluster` or `URL` its key set is fetched now and then, and what the policy (`jwks`)
makes of it is stored. `Inline` keys are declared, and published like everything declared. A fetch that fails changes
nothing but the condition `KeysFresh`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import Final, Protocol

import structlog
from prometheus_client import Gauge

from legivellum.base.backoff import Backoff
from metagate_crds import reasons
from metagate_crds.verdict import Condition
from metagate_operator.issuers import jwks
from metagate_operator.issuers.key_fetcher import SECONDS, KeyFetcher, KeysUnavailable
from metagate_store.errors import StaleBase, StoreUnavailable
from metagate_store.rows import IssuerKeyRow, IssuerRow

_log = structlog.stdlib.get_logger("metagate.issuers")

STALE: Final = Gauge("metagate_issuers_stale", "TokenIssuers whose keys could not be fetched the last time")
OLDEST: Final = Gauge(
    "metagate_issuer_keys_age_seconds", "Since the keys of some TokenIssuer were fetched; the longest"
)
CLUSTER_KEYS: Final = "/openid/v1/jwks"
"""Where an API server publishes its keys; reading it needs `get` on this non-resource URL and nothing more."""


class KeyStore(Protocol):
    """What `metagate_store.publisher.Publisher` offers for keys."""

    async def issuers(self) -> Sequence[IssuerRow]: ...
    async def issuer_keys(self, issuer: str) -> Sequence[IssuerKeyRow]: ...
    async def keep_issuer_keys(self, keys: Sequence[IssuerKeyRow], gone: Sequence[tuple[str, str]] = ()) -> None: ...


@dataclass(frozen=True, slots=True)
class RefreshIntervals:
    """Seconds. `look`: how often new issuers are looked for; `retry`: after a failure, doubled up to the interval."""

    cluster: float = 15.0
    url: float = 60.0
    look: float = 2.0
    retry: float = 2.0


@dataclass(slots=True)
class _Schedule:
    row: IssuerRow
    fetched: float
    """When, by our clock; a new issuer counts from when it was first seen."""
    due: float = 0.0
    failures: int = 0


class KeyRefresher:
    """One task in the writer's process. `cluster` fetches from the API server with the operator's own token.

    `freshness` holds the condition `KeysFresh` of each issuer by the TokenIssuer's name; `on_change` is called with a
    name when its condition became another one, so that status can be written again.
    """

    def __init__(
        self,
        *,
        store: KeyStore,
        web: KeyFetcher,
        cluster: KeyFetcher | None = None,
        pace: RefreshIntervals | None = None,
        on_change: Callable[[str], None] = lambda _name: None,
        clock: Callable[[], float] = monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._store, self._web, self._cluster = store, web, cluster
        self._pace = pace or RefreshIntervals()
        self._on_change = on_change
        self._clock, self._now, self._jitter = clock, now, jitter
        self._schedules: dict[str, _Schedule] = {}
        self._freshness: dict[str, Condition] = {}
        self._wake = asyncio.Event()

    @property
    def freshness(self) -> Mapping[str, Condition]:
        return self._freshness

    def wake(self) -> None:
        """Look for new issuers at once: something was published."""
        self._wake.set()

    async def run(self) -> None:
        """Refresh for ever; ends only with its task."""
        while True:
            self._wake.clear()
            try:
                await self.refresh_due()
            except (StoreUnavailable, StaleBase) as error:
                _log.warning("issuers.store_unavailable", error=type(error).__name__)
            try:
                async with asyncio.timeout(self._pace.look):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def refresh_due(self) -> None:
        """Fetch what is due, all at once; returns when each was stored or failed."""
        rows = {row.issuer: row for row in await self._store.issuers() if row.source != "Inline"}
        for issuer in self._schedules.keys() - rows.keys():
            self._freshness.pop(self._schedules.pop(issuer).row.name, None)
        for issuer, row in rows.items():
            known = self._schedules.get(issuer)
            if known is None or known.row != row:
                self._schedules[issuer] = _Schedule(row, self._clock())
        due = [schedule for schedule in self._schedules.values() if schedule.due <= self._clock()]
        outcomes = await asyncio.gather(*(self._refresh(schedule) for schedule in due), return_exceptions=True)
        self._measure()
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    def _measure(self) -> None:
        STALE.set(sum(schedule.failures > 0 for schedule in self._schedules.values()))
        OLDEST.set(max((self._clock() - schedule.fetched for schedule in self._schedules.values()), default=0.0))

    async def _refresh(self, schedule: _Schedule) -> None:
        row = schedule.row
        interval = self._pace.cluster if row.source == "Cluster" else self._pace.url
        try:
            key_set = jwks.parse_key_set(await self._fetch(row), row.algorithms)
        except (KeysUnavailable, jwks.InvalidKeySet) as error:
            schedule.failures += 1
            wait = Backoff(self._pace.retry, interval, spread=0.0).after(schedule.failures)
            self._tell(row, _stale(str(error)))
        else:
            known = await self._store.issuer_keys(row.issuer)
            kept = jwks.merge_keys(row.issuer, known, key_set.keys, self._now())
            await self._store.keep_issuer_keys(kept.rows, kept.gone)
            schedule.failures, wait, schedule.fetched = 0, interval, self._clock()
            self._tell(row, _fresh(key_set))
            for key in kept.rows:
                if key.retired_at is not None:
                    _log.info("issuer.key_retired", issuer=row.name, kid=key.kid)
        schedule.due = self._clock() + wait * (1 - 0.1 * self._jitter())

    async def _fetch(self, row: IssuerRow) -> bytes:
        if row.source == "Cluster":
            if self._cluster is None:
                raise KeysUnavailable("there is no cluster to ask: use source URL or Inline")
            try:
                async with asyncio.timeout(SECONDS):
                    return await self._cluster(CLUSTER_KEYS)
            except TimeoutError as error:
                raise KeysUnavailable(f"the API server did not answer within {SECONDS:g} s") from error
        if row.url is None:
            raise KeysUnavailable("it has no url")
        return await self._web(row.url)

    def _tell(self, row: IssuerRow, condition: Condition) -> None:
        if self._freshness.get(row.name) == condition:
            return
        self._freshness[row.name] = condition
        log = _log.info if condition.status == "True" else _log.warning
        log("issuer.keys", issuer=row.name, reason=condition.reason, message=condition.message)
        self._on_change(row.name)


def _fresh(key_set: jwks.ParsedKeySet) -> Condition:
    skipped = f"; not used: {key_set.skipped}" if key_set.skipped else ""
    known = "1 key" if len(key_set.keys) == 1 else f"{len(key_set.keys)} keys"
    return Condition(reasons.KEYS_FRESH, "True", reasons.KEYS_FETCHED, f"{known} published{skipped}")


def _stale(why: str) -> Condition:
    return Condition(reasons.KEYS_FRESH, "False", reasons.KEYS_STALE, f"{why}; keys known before stay in use")
