"""The declared world, held in memory and indexed by who depends on whom.

`put` and `remove` answer with the closure: the keys whose compiled answer may have changed. Three relations make it:
a Binding refers to its Principal, Profile and Manifest (both ways: they count their users); objects that hold the same
token (a subject, an API key's digest, the place of a principal's active binding, an issuer) decide about it between
them; and Principals rest on the issuers that their subjects name.

Objects are examined when they are put, once per version. An invalid one is indexed by its last good version, which
compiling brings along (`rely_on`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from metagate_crds.declared import CompileSettings, Declared, LastGood, Namespace, ObjectKey
from metagate_crds.facts import Facts
from metagate_crds.held import CLUSTER, Held, Token, fall_back, held, trust_tokens
from metagate_crds.kinds import MANIFEST, PROFILE, TOKEN_ISSUER
from metagate_crds.trust import Trust

__all__ = ["CompileSettings", "Declared", "LastGood", "Namespace", "ObjectKey", "World"]

_NOBODY: frozenset[ObjectKey] = frozenset()


class World:
    """Mutable by `put` and `remove` only; compiling fills memos and changes no answer."""

    def __init__(
        self,
        settings: CompileSettings,
        namespaces: Iterable[Namespace] = (),
        objects: Iterable[Declared] = (),
        *,
        beside: World | None = None,
    ) -> None:
        """`beside` has the same settings: objects that both have are not examined a second time."""
        self.settings = settings
        self.namespaces: dict[str, Namespace] = {}
        self.objects: dict[ObjectKey, Declared] = {}
        self._held: dict[ObjectKey, Held] = {}
        self._invalid: set[ObjectKey] = set()
        self._issuers: set[ObjectKey] = set()
        self._in_namespace: dict[str, set[ObjectKey]] = {}
        self._users: dict[ObjectKey, set[ObjectKey]] = {}
        self._needed: dict[ObjectKey, set[ObjectKey]] = {}
        self._holders: dict[Token, set[ObjectKey]] = {}
        self._resting: dict[Token, set[ObjectKey]] = {}
        self._trust: Trust | None = None
        self.merges: dict[tuple[str, str, str], tuple[Facts, Facts, Any]] = {}
        for namespace in namespaces:
            self.namespaces[namespace.name] = namespace
        for declared in objects:
            self._put(declared, None if beside is None else beside.held(declared.key))

    def put(self, declared: Declared) -> frozenset[ObjectKey]:
        """Add or replace one object; the keys affected, its own included. Nothing new: no keys."""
        before = self._held.get(declared.key)
        if before is not None and before.declared == declared:
            return _NOBODY
        affected = self._closure(before) if before else set()
        return frozenset(affected | self._closure(self._put(declared)))

    def remove(self, key: ObjectKey) -> frozenset[ObjectKey]:
        """Forget one object; the keys affected, its own included."""
        before = self._held.get(key)
        if before is None:
            return _NOBODY
        affected = self._closure(before)
        self._forget(before)
        return frozenset(affected)

    def put_namespace(self, namespace: Namespace) -> frozenset[ObjectKey]:
        """Add or replace one namespace; its objects are affected, and those that compete with them."""
        if self.namespaces.get(namespace.name) == namespace:
            return _NOBODY
        self.namespaces[namespace.name] = namespace
        return self._inside(namespace.name)

    def remove_namespace(self, name: str) -> frozenset[ObjectKey]:
        """Forget one namespace. Its objects stay until they are removed, and belong to no tenant meanwhile."""
        if self.namespaces.pop(name, None) is None:
            return _NOBODY
        return self._inside(name)

    # What compiling asks

    def held(self, key: ObjectKey) -> Held | None:
        return self._held.get(key)

    def keys(self) -> Iterator[ObjectKey]:
        return iter(self._held)

    def holders(self, token: Token) -> Iterator[Held]:
        """The objects that hold this token."""
        return (self._held[key] for key in self._holders.get(token, ()))

    def uses(self, key: ObjectKey) -> int:
        """How many Bindings refer to this object."""
        return len(self._users.get(key, ()))

    def tenant(self, namespace: str) -> str | None:
        found = self.namespaces.get(namespace)
        return found.uid if found else None

    @property
    def trust(self) -> Trust:
        """Which TokenIssuer has which issuer; the same object until an issuer changes."""
        if self._trust is None:
            self._trust = Trust.among((self._held[key] for key in self._issuers), self.settings)
        return self._trust

    def rely_on(self, last_good: LastGood) -> None:
        """Index every invalid object by its last good version."""
        for key in self._invalid:
            found = self._held[key]
            good = last_good.get(found.declared.uid)
            if good is not found.good and good != found.good:
                self._unindex(found)
                fall_back(found, good, self.settings)
                self._index(found)

    def also_needs(self, found: Held, refs: Iterable[ObjectKey]) -> None:
        """Remember that a Binding is served with an earlier version, which refers elsewhere."""
        found.also = frozenset(refs)
        for ref in found.also:
            self._needed.setdefault(ref, set()).add(found.declared.key)

    # Inside

    def _put(self, declared: Declared, elsewhere: Held | None = None) -> Held:
        before = self._held.get(declared.key)
        found = held(declared, self.settings, elsewhere)
        if before is not None:
            if found.facts is None and before.declared.uid == declared.uid:
                # Most likely the last good one; `rely_on` corrects it.
                good, known = (before.declared, before.facts) if before.facts else (before.good, before.good_facts)
                fall_back(found, good, self.settings, known)
            self._forget(before)
        self._held[declared.key] = found
        self.objects[declared.key] = declared
        self._in_namespace.setdefault(declared.key.namespace, set()).add(declared.key)
        if found.facts is None:
            self._invalid.add(declared.key)
        if declared.key.kind == TOKEN_ISSUER.name:
            self._issuers.add(declared.key)
        self._index(found)
        return found

    def _forget(self, found: Held) -> None:
        key = found.declared.key
        self._unindex(found)
        del self._held[key], self.objects[key]
        self._invalid.discard(key)
        self._issuers.discard(key)
        if key.kind in {PROFILE.name, MANIFEST.name}:
            self._forget_merges(key)
        _drop(self._in_namespace, key.namespace, key)

    def _forget_merges(self, key: ObjectKey) -> None:
        position = 1 if key.kind == PROFILE.name else 2
        stale = [pair for pair in self.merges if pair[0] == key.namespace and pair[position] == key.name]
        for pair in stale:
            del self.merges[pair]

    def _index(self, found: Held) -> None:
        key = found.declared.key
        for ref in found.refs:
            self._users.setdefault(ref, set()).add(key)
        for token in found.tokens:
            self._holders.setdefault(token, set()).add(key)
        for token in trust_tokens(found):
            self._resting.setdefault(token, set()).add(key)
        if key.kind == TOKEN_ISSUER.name:
            self._trust = None

    def _unindex(self, found: Held) -> None:
        key = found.declared.key
        for ref in found.refs:
            _drop(self._users, ref, key)
        for ref in found.also:
            _drop(self._needed, ref, key)
        for token in found.tokens:
            _drop(self._holders, token, key)
        for token in trust_tokens(found):
            _drop(self._resting, token, key)
        if key.kind == TOKEN_ISSUER.name:
            self._trust = None

    def _inside(self, namespace: str) -> frozenset[ObjectKey]:
        affected: set[ObjectKey] = set()
        for key in self._in_namespace.get(namespace, ()):
            affected |= self._closure(self._held[key])
        return frozenset(affected)

    def _closure(self, found: Held) -> set[ObjectKey]:
        key = found.declared.key
        affected = {key, *found.refs}
        affected |= self._users.get(key, _NOBODY)
        affected |= self._needed.get(key, _NOBODY)
        for token in found.tokens:
            affected |= self._holders.get(token, _NOBODY)
        if key.kind == TOKEN_ISSUER.name:
            affected |= self._trusting(found)
        return affected

    def _trusting(self, found: Held) -> set[ObjectKey]:
        """Issuers decide among each other in chains (the cluster's and its URL), so follow them to the end."""
        tokens, pending = set[Token](), set(found.tokens)
        affected: set[ObjectKey] = set()
        while pending:
            token = pending.pop()
            tokens.add(token)
            for holder in self._holders.get(token, ()):
                affected.add(holder)
                pending |= self._held[holder].tokens - tokens
            affected |= self._resting.get(token, _NOBODY)
        # The discovered issuer cannot be spelled out whoever has it.
        if CLUSTER in tokens and self.settings.cluster_issuer:
            affected |= self._resting.get(("issuer", self.settings.cluster_issuer), _NOBODY)
        return affected


def _drop(index: dict[Any, set[ObjectKey]], name: Any, key: ObjectKey) -> None:
    keys = index.get(name)
    if keys is not None:
        keys.discard(key)
        if not keys:
            del index[name]
