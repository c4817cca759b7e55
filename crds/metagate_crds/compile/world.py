"""The declared world, held in memory and indexed by who depends on whom.

`put` and `remove` answer with the closure: the keys whose compiled answer may have changed. Three relations make it:
a Binding refers to its Principal, Profile and Manifest (both ways: they count their users); objects that claim the same
unique key (a subject, an API key's digest, the place of a principal's active binding, an issuer) decide about it
between them; and Principals depend on the issuers that their subjects name.

Objects are evaluated when they are put, once per version. An invalid one is indexed by its last good version, which
compiling brings along (`apply_last_good`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from metagate_crds.compile.issuer_registry import IssuerRegistry
from metagate_crds.compile.normalized import NormalizedSpec
from metagate_crds.compile.object_state import CLUSTER_KEY, ObjectState, UniqueKey, evaluate, fall_back, issuer_keys
from metagate_crds.kinds import MANIFEST, PLAN_TEMPLATE, PROFILE, TOKEN_ISSUER
from metagate_crds.objects import CompileSettings, DeclaredObject, LastGood, Namespace, ObjectKey

_NO_KEYS: frozenset[ObjectKey] = frozenset()


class World:
    """Mutable by `put` and `remove` only; compiling fills caches and changes no answer."""

    def __init__(
        self,
        settings: CompileSettings,
        namespaces: Iterable[Namespace] = (),
        objects: Iterable[DeclaredObject] = (),
        *,
        beside: World | None = None,
    ) -> None:
        """`beside` has the same settings: objects that both have are not evaluated a second time."""
        self.settings = settings
        self.namespaces: dict[str, Namespace] = {}
        self.objects: dict[ObjectKey, DeclaredObject] = {}
        self._states: dict[ObjectKey, ObjectState] = {}
        self._invalid: set[ObjectKey] = set()
        self._issuer_objects: set[ObjectKey] = set()
        self._by_namespace: dict[str, set[ObjectKey]] = {}
        self._users: dict[ObjectKey, set[ObjectKey]] = {}
        self._dependents: dict[ObjectKey, set[ObjectKey]] = {}
        self._claimants: dict[UniqueKey, set[ObjectKey]] = {}
        self._issuer_dependents: dict[UniqueKey, set[ObjectKey]] = {}
        self._issuers: IssuerRegistry | None = None
        self.key_owners: Mapping[str, str] = {}
        """sha256 of an API key → the tenant that declared it first, as the database remembers it (D-70)."""
        self.cached_packets: dict[tuple[str, str, str], tuple[NormalizedSpec, NormalizedSpec, Any]] = {}
        self.cached_served_templates: dict[ObjectKey, bool] = {}
        """Whether a PlanTemplate is served, as long as nothing changes."""
        for namespace in namespaces:
            self.namespaces[namespace.name] = namespace
        for declared in objects:
            self._put(declared, None if beside is None else beside.state(declared.key))

    def put(self, declared: DeclaredObject) -> frozenset[ObjectKey]:
        """Add or replace one object; the keys affected, its own included. Nothing new: no keys."""
        before = self._states.get(declared.key)
        if before is not None and before.declared == declared:
            return _NO_KEYS
        affected = self._closure(before) if before else set()
        return frozenset(affected | self._closure(self._put(declared)))

    def remove(self, key: ObjectKey) -> frozenset[ObjectKey]:
        """Forget one object; the keys affected, its own included."""
        before = self._states.get(key)
        if before is None:
            return _NO_KEYS
        affected = self._closure(before)
        self._forget(before)
        return frozenset(affected)

    def put_namespace(self, namespace: Namespace) -> frozenset[ObjectKey]:
        """Add or replace one namespace; its objects are affected, and those that compete with them."""
        if self.namespaces.get(namespace.name) == namespace:
            return _NO_KEYS
        self.namespaces[namespace.name] = namespace
        return self._namespace_closure(namespace.name)

    def remove_namespace(self, name: str) -> frozenset[ObjectKey]:
        """Forget one namespace. Its objects stay until they are removed, and belong to no tenant meanwhile."""
        if self.namespaces.pop(name, None) is None:
            return _NO_KEYS
        return self._namespace_closure(name)

    # What compiling asks

    def state(self, key: ObjectKey) -> ObjectState | None:
        return self._states.get(key)

    def keys(self) -> Iterator[ObjectKey]:
        return iter(self._states)

    def claimants(self, unique_key: UniqueKey) -> Iterator[ObjectState]:
        """The objects that claim this unique key."""
        return (self._states[key] for key in self._claimants.get(unique_key, ()))

    def uses(self, key: ObjectKey) -> int:
        """How many Bindings refer to this object."""
        return len(self._users.get(key, ()))

    def tenant(self, namespace: str) -> str | None:
        known = self.namespaces.get(namespace)
        return known.uid if known else None

    @property
    def issuers(self) -> IssuerRegistry:
        """Which TokenIssuer has which issuer; the same object until an issuer changes."""
        if self._issuers is None:
            self._issuers = IssuerRegistry.build((self._states[key] for key in self._issuer_objects), self.settings)
        return self._issuers

    def apply_last_good(self, last_good: LastGood) -> None:
        """Index every invalid object by its last good version."""
        for key in self._invalid:
            state = self._states[key]
            good = last_good.get(state.declared.uid)
            if good is not state.last_good and good != state.last_good:
                self._unindex(state)
                fall_back(state, good, self.settings)
                self._index(state)

    def add_dependency(self, state: ObjectState, refs: Iterable[ObjectKey]) -> None:
        """Remember that compiling this object looked at others: an earlier version of a Binding refers to them, or a
        PolicyProfile names them without being a user of theirs.
        """
        key, refs = state.declared.key, frozenset(refs)
        for ref in state.dependency_refs - refs:
            _drop(self._dependents, ref, key)
        state.dependency_refs = refs
        for ref in state.dependency_refs:
            self._dependents.setdefault(ref, set()).add(key)

    # Indexes

    def _put(self, declared: DeclaredObject, known: ObjectState | None = None) -> ObjectState:
        key = declared.key
        before = self._states.get(key)
        state = evaluate(declared, self.settings, known)
        if before is not None:
            if state.normalized is None and before.declared.uid == declared.uid:
                # Most likely the version before was the last good one; `apply_last_good` corrects a wrong guess.
                if before.normalized is not None:
                    fall_back(state, before.declared, self.settings, before.normalized)
                else:
                    fall_back(state, before.last_good, self.settings, before.last_good_normalized)
            self._forget(before)
        self._states[key] = state
        self.objects[key] = declared
        self._by_namespace.setdefault(key.namespace, set()).add(key)
        if state.normalized is None:
            self._invalid.add(key)
        if key.kind == TOKEN_ISSUER.name:
            self._issuer_objects.add(key)
        self._index(state)
        return state

    def _forget(self, state: ObjectState) -> None:
        key = state.declared.key
        self._unindex(state)
        del self._states[key], self.objects[key]
        self._invalid.discard(key)
        self._issuer_objects.discard(key)
        if key.kind in {PROFILE.name, MANIFEST.name}:
            self._forget_packets(key)
        _drop(self._by_namespace, key.namespace, key)

    def _forget_packets(self, key: ObjectKey) -> None:
        position = 1 if key.kind == PROFILE.name else 2
        stale = [names for names in self.cached_packets if names[0] == key.namespace and names[position] == key.name]
        for names in stale:
            del self.cached_packets[names]

    def _index(self, state: ObjectState) -> None:
        key = state.declared.key
        self.cached_served_templates.clear()
        for ref in state.refs:
            self._users.setdefault(ref, set()).add(key)
        for unique_key in state.unique_keys:
            self._claimants.setdefault(unique_key, set()).add(key)
        for unique_key in issuer_keys(state):
            self._issuer_dependents.setdefault(unique_key, set()).add(key)
        if key.kind == TOKEN_ISSUER.name:
            self._issuers = None

    def _unindex(self, state: ObjectState) -> None:
        key = state.declared.key
        self.cached_served_templates.clear()
        for ref in state.refs:
            _drop(self._users, ref, key)
        for ref in state.dependency_refs:
            _drop(self._dependents, ref, key)
        for unique_key in state.unique_keys:
            _drop(self._claimants, unique_key, key)
        for unique_key in issuer_keys(state):
            _drop(self._issuer_dependents, unique_key, key)
        if key.kind == TOKEN_ISSUER.name:
            self._issuers = None

    # Closures

    def _namespace_closure(self, namespace: str) -> frozenset[ObjectKey]:
        affected: set[ObjectKey] = set()
        for key in self._by_namespace.get(namespace, ()):
            affected |= self._closure(self._states[key])
        return frozenset(affected)

    def _closure(self, state: ObjectState) -> set[ObjectKey]:
        key = state.declared.key
        affected = {key, *state.refs}
        affected |= self._users.get(key, _NO_KEYS)
        affected |= self._dependents.get(key, _NO_KEYS)
        for unique_key in state.unique_keys:
            affected |= self._claimants.get(unique_key, _NO_KEYS)
        # A template is served while those that it includes are: whoever includes one of these is affected, too.
        for template in [ref for ref in affected if ref.kind == PLAN_TEMPLATE.name]:
            affected |= self._dependents.get(template, _NO_KEYS)
        if key.kind == TOKEN_ISSUER.name:
            affected |= self._issuer_closure(state)
        return affected

    def _issuer_closure(self, state: ObjectState) -> set[ObjectKey]:
        """Issuers decide among each other in chains (the cluster's and its URL), so follow them to the end."""
        visited, pending = set[UniqueKey](), set(state.unique_keys)
        affected: set[ObjectKey] = set()
        while pending:
            unique_key = pending.pop()
            visited.add(unique_key)
            for claimant in self._claimants.get(unique_key, ()):
                affected.add(claimant)
                pending |= self._states[claimant].unique_keys - visited
            affected |= self._issuer_dependents.get(unique_key, _NO_KEYS)
        # A Principal may not spell out the discovered issuer, whoever has it: that answer depends on the cluster's too.
        if CLUSTER_KEY in visited and self.settings.cluster_issuer:
            affected |= self._issuer_dependents.get(("issuer", self.settings.cluster_issuer), _NO_KEYS)
        return affected


def _drop(index: dict[Any, set[ObjectKey]], name: Any, key: ObjectKey) -> None:
    keys = index.get(name)
    if keys is not None:
        keys.discard(key)
        if not keys:
            del index[name]  # an empty set per name that ever existed would be a leak
