"""The trusted issuers and their keys, in memory.

Filled from what the operator has published, change by change. A key belongs to one issuer and is never looked for
anywhere else: an unknown key id is a refusal, not a reason to fetch anything (INV-024).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from legivellum.identity.caller import Changes
from legivellum.identity.public_keys import ALGORITHMS, PublicKey, UnusableKeyError, public_key


@dataclass(frozen=True, slots=True, eq=False)
class Issuer:
    """A trusted issuer and the bounds of its tokens. `cluster`: its tokens are service accounts' (D-44)."""

    issuer: str
    audiences: frozenset[str]
    algorithms: frozenset[str]
    longest_life: int
    cluster: bool


class IssuerRing:
    """Issuers by their exact name, keys by issuer and key id. Objects are replaced when they change, never altered:
    who remembers one can see by identity that it still stands.
    """

    def __init__(self) -> None:
        self._issuers: dict[str, Issuer] = {}
        self._keys: dict[tuple[str, str], PublicKey] = {}
        self._imported: dict[tuple[str, str], tuple[Mapping[str, Any], str | None]] = {}
        self._unusable: dict[tuple[str, str], str] = {}

    @property
    def issuers(self) -> tuple[str, ...]:
        """Names of the issuers, sorted: what the discovery document says."""
        return tuple(sorted(self._issuers))

    @property
    def unusable(self) -> dict[tuple[str, str], str]:
        """Published keys that were not imported, by (issuer, key id), with the reason."""
        return dict(self._unusable)

    def apply(self, changes: Changes) -> None:
        """Take over what was published: removals, then additions and changes."""
        if changes.full:
            self._issuers.clear()
            self._keys.clear()
            self._imported.clear()
            self._unusable.clear()
        for name in changes.gone_issuers:
            self._issuers.pop(name, None)
        for at in changes.gone_issuer_keys:
            self._forget((at[0], at[1]))
        for row in changes.issuers:
            self._issuers[row.issuer] = Issuer(
                issuer=row.issuer,
                audiences=frozenset(row.audiences),
                algorithms=frozenset(row.algorithms) & ALGORITHMS.keys(),
                longest_life=row.max_token_lifetime_seconds,
                cluster=row.source == "Cluster",
            )
        for key in changes.issuer_keys:
            at = (key.issuer, key.kid)
            if self._imported.get(at) == (key.jwk, key.alg):
                continue  # seen again, not changed: what was verified with it stays verified
            self._forget(at)
            try:
                self._keys[at] = public_key(key.jwk, key.alg)
                self._imported[at] = (key.jwk, key.alg)
            except UnusableKeyError as error:
                self._unusable[at] = str(error)

    def issuer(self, name: str) -> Issuer | None:
        return self._issuers.get(name)

    def key(self, issuer: str, kid: str) -> PublicKey | None:
        """The key of this issuer; None once the issuer is no longer trusted."""
        return self._keys.get((issuer, kid)) if issuer in self._issuers else None

    def _forget(self, at: tuple[str, str]) -> None:
        self._keys.pop(at, None)
        self._imported.pop(at, None)
        self._unusable.pop(at, None)
