"""The declared world, held in memory and indexed by who depends on whom.

`put` and `remove` answer with the closure: the keys whose compiled answer may have changed.
"""

from collections.abc import Iterable, Mapping

from metagate_crds.declared import CompileSettings, Declared, LastGood, Namespace, ObjectKey

__all__ = ["CompileSettings", "Declared", "LastGood", "Namespace", "ObjectKey", "World"]


class World:
    def __init__(
        self, settings: CompileSettings, namespaces: Iterable[Namespace] = (), objects: Iterable[Declared] = ()
    ) -> None:
        self.settings = settings
        self._namespaces: dict[str, Namespace] = {}
        self._objects: dict[ObjectKey, Declared] = {}
        for namespace in namespaces:
            self.put_namespace(namespace)
        for declared in objects:
            self.put(declared)

    @property
    def objects(self) -> Mapping[ObjectKey, Declared]:
        return self._objects

    @property
    def namespaces(self) -> Mapping[str, Namespace]:
        return self._namespaces

    def put(self, declared: Declared) -> frozenset[ObjectKey]:
        """Add or replace one object; the keys affected, its own included."""
        self._objects[declared.key] = declared
        return frozenset(self._objects)

    def remove(self, key: ObjectKey) -> frozenset[ObjectKey]:
        """Forget one object; the keys affected, its own included."""
        self._objects.pop(key, None)
        return frozenset((*self._objects, key))

    def put_namespace(self, namespace: Namespace) -> frozenset[ObjectKey]:
        self._namespaces[namespace.name] = namespace
        return frozenset(self._objects)

    def remove_namespace(self, name: str) -> frozenset[ObjectKey]:
        self._namespaces.pop(name, None)
        return frozenset(self._objects)
