"""The CRDs, generated from the models. `crds/generated` holds what this prints; a test fails when they drift."""

from typing import Any, Final

import yaml

from metagate_crds import kinds
from metagate_crds.kinds import GROUP, KINDS, VERSION, ResourceKind
from metagate_crds.models import SPECS
from metagate_crds.models.problemata import LONGEST_LABEL, RESERVED_NAME
from metagate_crds.models.spec import LABEL
from metagate_crds.structural_schema import structural_schema

_NAME: Final = {"type": "string", "maxLength": 316}
_TIME: Final = {"type": "string", "format": "date-time"}
_GENERATION: Final = {"type": "integer", "format": "int64"}


def _column(name: str, path: str, about: str, *, kind: str = "string", wide: bool = False) -> dict[str, Any]:
    column: dict[str, Any] = {"name": name, "type": kind, "jsonPath": path, "description": about}
    return {**column, "priority": 1} if wide else column


_USES: Final = _column("Uses", ".status.uses", "How many Bindings refer to the object.", kind="integer")
_OWN_COLUMNS: Final[dict[str, list[dict[str, Any]]]] = {
    kinds.TOKEN_ISSUER.name: [
        _column("Issuer", ".spec.issuer", "The iss claim of its tokens."),
        _column("Source", ".spec.jwks.source", "Where its public keys come from."),
        _column(
            "Keys", '.status.conditions[?(@.type=="KeysFresh")].status', "Whether its public keys are fresh.", wide=True
        ),
    ],
    kinds.PRINCIPAL.name: [
        _column("Type", ".spec.type", "What kind of caller it is."),
        _column("Suspended", ".spec.suspended", "Whether the principal is refused everywhere.", kind="boolean"),
        _USES,
    ],
    kinds.PROFILE.name: [
        _column("SLA", ".spec.startup.slaSeconds", "Seconds from bootstrap to READY.", kind="integer"),
        _USES,
    ],
    kinds.MANIFEST.name: [
        _column("Deployment", ".spec.deploymentKey", "The deployment that it describes."),
        _column("Version", ".spec.version", "The version that people gave it.", kind="integer"),
        _USES,
    ],
    kinds.PRINCIPAL_BINDING.name: [
        _column("Principal", ".spec.principalRef.name", "The Principal that gets the packet."),
        _column("Profile", ".spec.profileRef.name", "The Profile that it gives the principal."),
        _column("Manifest", ".spec.manifestRef.name", "The Manifest that it gives the principal."),
        _column("Active", ".spec.active", "Whether the Binding is served.", kind="boolean", wide=True),
    ],
    kinds.POLICY_PROFILE.name: [
        _column("Depth", ".spec.limits.maxSpawnDepth", "The greatest depth of a tree of requests.", kind="integer"),
    ],
    kinds.PROBLEMATA.name: [
        _column("Version", ".spec.version", "The version that its gateways announce."),
        _column("Policy", ".spec.gateway.policyProfileRef.name", "The PolicyProfile that admits its requests."),
        _column("Surface", ".spec.gateway.surfaceId", "The surface of that PolicyProfile."),
        _column("Tools", ".spec.exposeTools", "Whether agents see its tools by name.", kind="boolean", wide=True),
    ],
    kinds.PLAN_TEMPLATE.name: [
        _column("Capability", ".spec.capability", "The name by which callers ask for the plan."),
        _column("Dispatch", ".spec.dispatch", "Whether plans are handed out at once, or held for approval."),
        _column("Approver", ".spec.approver", "The Principal that approves held plans.", wide=True),
    ],
}
# What the schema of a spec cannot say: rules about the object's own name.
_OBJECT_RULES: Final = {
    kinds.PROBLEMATA.name: [
        {
            "rule": f"self.metadata.name != '{RESERVED_NAME}' && self.metadata.name.matches('{LABEL}')"
            f" && size(self.metadata.name) <= {LONGEST_LABEL}",
            "message": f"the name must be a DNS label and not {RESERVED_NAME}",
        }
    ]
}
# Admission asks for the Bindings of one Principal with a field selector instead of listing all.
_SELECTABLE: Final = {
    kinds.PRINCIPAL_BINDING.name: [f".spec.{ref}.name" for ref in ("principalRef", "profileRef", "manifestRef")]
}
_COUNTED: Final = frozenset({kinds.PRINCIPAL.name, kinds.PROFILE.name, kinds.MANIFEST.name})


def crd_documents() -> list[dict[str, Any]]:
    """One CustomResourceDefinition per kind, in the order of `KINDS`."""
    return [_definition(kind) for kind in KINDS.values()]


def crd_yaml() -> str:
    """All CRDs as one stream, ready for `kubectl apply -f -`."""
    # each document begins with its separator, so that the output can be joined with others
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


def _definition(kind: ResourceKind) -> dict[str, Any]:
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


def _version(kind: ResourceKind) -> dict[str, Any]:
    version: dict[str, Any] = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": _columns(kind),
    }
    if kind.name in _SELECTABLE:
        version["selectableFields"] = [{"jsonPath": path} for path in _SELECTABLE[kind.name]]
    spec = structural_schema(SPECS[kind.name])
    version["schema"] = {
        "openAPIV3Schema": {
            "description": spec["description"],
            "type": "object",
            "required": ["spec"],
            "properties": {
                "apiVersion": {"type": "string"},
                "kind": {"type": "string"},
                "metadata": {"type": "object"},
                "spec": spec,
                "status": _status(kind),
            },
        }
    }
    if kind.name in _OBJECT_RULES:
        version["schema"]["openAPIV3Schema"]["x-kubernetes-validations"] = _OBJECT_RULES[kind.name]
    return version


def _columns(kind: ResourceKind) -> list[dict[str, Any]]:
    ready = '.status.conditions[?(@.type=="Ready")]'
    return [
        _column("Ready", f"{ready}.status", "Whether what is declared is what is served."),
        _column("Status", f"{ready}.reason", "Why the object is ready or not."),
        *_OWN_COLUMNS[kind.name],
        _column("Age", ".metadata.creationTimestamp", "How long ago it was created.", kind="date"),
        _column("Message", f"{ready}.message", "What is wrong, and what to do about it.", wide=True),
    ]


def _status(kind: ResourceKind) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "observedGeneration": {
            **_GENERATION,
            "default": -1,
            "description": "The generation that the conditions are about; -1 until the operator evaluated the object.",
        },
        "conditions": {
            "description": "What the operator found, by type. Ready sums up the others: what is declared is served.",
            "type": "array",
            "maxItems": 16,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
            "items": _condition(),
        },
        "snapshot": {
            "description": "Which version of this object is served.",
            "type": "object",
            "properties": {
                "digest": {
                    "type": "string",
                    "maxLength": 64,
                    "description": "The SHA-256 digest of a Binding's packet, in hexadecimal.",
                },
                "generation": {**_GENERATION, "description": "The generation of the object that is served now."},
                "revision": {**_GENERATION, "description": "The revision of the snapshot that began to serve it."},
            },
        },
    }
    if kind.name in _COUNTED:
        uses = {"type": "integer", "format": "int32", "description": "How many Bindings refer to this object."}
        properties["uses"] = uses
    return {
        "description": "What the operator reports about the object. It is written by the operator only.",
        "type": "object",
        "default": {"observedGeneration": -1},
        "properties": properties,
    }


def _condition() -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["type", "status", "lastTransitionTime", "reason", "message"],
        "properties": {
            "type": {**_NAME, "description": "What the condition is about. Examples: Ready, Accepted, ResolvedRefs."},
            "status": {
                "type": "string",
                "enum": ["True", "False", "Unknown"],
                "description": "Whether the condition holds.",
            },
            "observedGeneration": {
                **_GENERATION,
                "default": -1,
                "description": "The generation that the condition is about.",
            },
            "lastTransitionTime": {**_TIME, "description": "When the condition got its present status."},
            "reason": {
                "type": "string",
                "minLength": 1,
                "maxLength": 1024,
                "description": "Why the condition has this status, as one word for programs. Example: ProfileNotFound.",
            },
            "message": {
                "type": "string",
                "maxLength": 32768,
                "description": "Why the condition has this status, for people. It never holds a declared value.",
            },
        },
    }
