"""The CRDs, generated from the models. `crds/generated` holds what this prints; a test fails when they drift."""

from typing import Any, Final

import yaml

from metagate_crds import kinds
from metagate_crds.kinds import GROUP, KINDS, VERSION, Kind
from metagate_crds.models import SPECS
from metagate_crds.structural_schema import structural_schema

_NAME: Final = {"type": "string", "maxLength": 316}
_TIME: Final = {"type": "string", "format": "date-time"}
_GENERATION: Final = {"type": "integer", "format": "int64"}
_ABOUT: Final = {
    kinds.TOKEN_ISSUER.name: "Whose tokens are believed, and which namespaces may claim its subjects.",
    kinds.PRINCIPAL.name: "Who is speaking.",
    kinds.PROFILE.name: "What kind of thing it is.",
    kinds.MANIFEST.name: "The world it wakes up in.",
    kinds.PRINCIPAL_BINDING.name: "Ties a Principal to a Profile and a Manifest.",
    kinds.POLICY_PROFILE.name: "The ruleset of an admission boundary.",
}


def _column(name: str, path: str, about: str, *, kind: str = "string", wide: bool = False) -> dict[str, Any]:
    column: dict[str, Any] = {"name": name, "type": kind, "jsonPath": path, "description": about}
    return {**column, "priority": 1} if wide else column


_USES: Final = _column("Uses", ".status.uses", "How many Bindings refer to it.", kind="integer")
_OWN_COLUMNS: Final[dict[str, list[dict[str, Any]]]] = {
    kinds.TOKEN_ISSUER.name: [
        _column("Issuer", ".spec.issuer", "The iss claim."),
        _column("Source", ".spec.jwks.source", "Where its keys come from."),
        _column("Keys", '.status.conditions[?(@.type=="KeysFresh")].status', "Whether its keys are fresh.", wide=True),
    ],
    kinds.PRINCIPAL.name: [
        _column("Type", ".spec.type", "What kind of caller it is."),
        _column("Suspended", ".spec.suspended", "Whether it is refused everywhere.", kind="boolean"),
        _USES,
    ],
    kinds.PROFILE.name: [
        _column("SLA", ".spec.startup.slaSeconds", "Seconds from bootstrap to READY.", kind="integer"),
        _USES,
    ],
    kinds.MANIFEST.name: [
        _column("Deployment", ".spec.deploymentKey", "Which deployment it describes."),
        _column("Version", ".spec.version", "The version that people gave it.", kind="integer"),
        _USES,
    ],
    kinds.PRINCIPAL_BINDING.name: [
        _column("Principal", ".spec.principalRef.name", "Who."),
        _column("Profile", ".spec.profileRef.name", "What kind of thing it is."),
        _column("Manifest", ".spec.manifestRef.name", "The world it wakes up in."),
        _column("Active", ".spec.active", "Whether it counts.", kind="boolean", wide=True),
    ],
    kinds.POLICY_PROFILE.name: [
        _column("Depth", ".spec.limits.maxSpawnDepth", "The deepest spawn.", kind="integer"),
    ],
}
_SELECTABLE: Final = {
    kinds.PRINCIPAL_BINDING.name: [f".spec.{ref}.name" for ref in ("principalRef", "profileRef", "manifestRef")]
}
_COUNTED: Final = frozenset({kinds.PRINCIPAL.name, kinds.PROFILE.name, kinds.MANIFEST.name})


def crd_documents() -> list[dict[str, Any]]:
    """One CustomResourceDefinition per kind, in the order in which they are explained."""
    return [_definition(kind) for kind in KINDS.values()]


def crd_yaml() -> str:
    """All CRDs as one stream, ready for `kubectl apply -f -`."""
    return "".join(f"---\n{_text(document)}" for document in crd_documents())


def crd_files() -> dict[str, str]:
    """The text of each CRD by the name of its file."""
    return {f"{GROUP}_{document['spec']['names']['plural']}.yaml": _text(document) for document in crd_documents()}


def _text(document: dict[str, Any]) -> str:
    text: str = yaml.dump(document, Dumper=_Plain, sort_keys=False, width=120, allow_unicode=True)
    return text


class _Plain(yaml.SafeDumper):
    """Writes shared parts out instead of naming them once."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the signature is the base class's
        return True


def _definition(kind: Kind) -> dict[str, Any]:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}", "labels": {"app.kubernetes.io/part-of": "metagate"}},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": kind.plural,
                "singular": kind.singular,
                "shortNames": list(kind.short),
                "categories": ["metagate"],
            },
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "versions": [_version(kind)],
        },
    }


def _version(kind: Kind) -> dict[str, Any]:
    version: dict[str, Any] = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": _columns(kind),
    }
    if kind.name in _SELECTABLE:
        version["selectableFields"] = [{"jsonPath": path} for path in _SELECTABLE[kind.name]]
    version["schema"] = {
        "openAPIV3Schema": {
            "description": _ABOUT[kind.name],
            "type": "object",
            "required": ["spec"],
            "properties": {
                "apiVersion": {"type": "string"},
                "kind": {"type": "string"},
                "metadata": {"type": "object"},
                "spec": structural_schema(SPECS[kind.name]),
                "status": _status(kind),
            },
        }
    }
    return version


def _columns(kind: Kind) -> list[dict[str, Any]]:
    ready = '.status.conditions[?(@.type=="Ready")]'
    return [
        _column("Ready", f"{ready}.status", "Whether what is declared is what is served."),
        _column("Status", f"{ready}.reason", "Why."),
        *_OWN_COLUMNS[kind.name],
        _column("Age", ".metadata.creationTimestamp", "Since it was created.", kind="date"),
        _column("Message", f"{ready}.message", "What to do about it.", wide=True),
    ]


def _status(kind: Kind) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "observedGeneration": {
            **_GENERATION,
            "default": -1,
            "description": "The generation that the conditions speak of; -1 until it was looked at.",
        },
        "conditions": {
            "description": "Ready sums up; see the table of conditions and reasons.",
            "type": "array",
            "maxItems": 16,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
            "items": _condition(),
        },
        "snapshot": {
            "description": "What of this object is served.",
            "type": "object",
            "properties": {
                "digest": {"type": "string", "maxLength": 64, "description": "The sha256 of the packet's shared body."},
                "generation": {**_GENERATION, "description": "The generation that is served."},
                "revision": {**_GENERATION, "description": "The revision of the snapshot that brought it."},
            },
        },
    }
    if kind.name in _COUNTED:
        uses = {"type": "integer", "format": "int32", "description": "How many Bindings refer to it."}
        properties["uses"] = uses
    return {
        "description": "Written by the operator.",
        "type": "object",
        "default": {"observedGeneration": -1},
        "properties": properties,
    }


def _condition() -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["type", "status", "lastTransitionTime", "reason", "message"],
        "properties": {
            "type": {**_NAME, "description": "What the condition is about."},
            "status": {"type": "string", "enum": ["True", "False", "Unknown"], "description": "Whether it holds."},
            "observedGeneration": {**_GENERATION, "default": -1, "description": "The generation it speaks of."},
            "lastTransitionTime": {**_TIME, "description": "Since when it has this status."},
            "reason": {"type": "string", "minLength": 1, "maxLength": 1024, "description": "One documented word."},
            "message": {"type": "string", "maxLength": 32768, "description": "For people; never holds a value."},
        },
    }
