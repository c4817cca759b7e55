"""PrincipalBinding: ties a Principal to a Profile and a Manifest, with overrides."""

import re
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from metagate_crds import reasons
from metagate_crds.models.spec import AsSet, Distinct, FreeForm, Reference, Spec, refuse

# Wider than a component_key (D-65): a Binding that was valid before stays valid, and an entry that permits nobody is a
# warning (`compile.bindings`).
_COMPONENT: Final = "([A-Za-z0-9._:/@-]+[*]?|[*])"


def _component(text: str) -> str:
    if not re.fullmatch(_COMPONENT, text):
        raise refuse(
            reasons.INVALID_PATTERN,
            "must be a component key (letters, digits and . _ : - with a letter or digit at both ends),"
            " the beginning of one with * behind it, or *",
        )
    return text


Component = Annotated[str, Field(min_length=1, max_length=253, pattern=f"^{_COMPONENT}$"), AfterValidator(_component)]


class Overrides(Spec):
    """JSON merge patches (RFC 7396) for one principal: a null removes, objects merge, anything else replaces."""

    capabilities: FreeForm | None = Field(
        default=None,
        description="Merged over spec.capabilities of the Profile; a null removes the member it stands for.",
    )
    policy: FreeForm | None = Field(
        default=None, description="Merged over spec.policy of the Profile; a null removes the member it stands for."
    )
    services: FreeForm | None = Field(
        default=None,
        description="Merged over spec.services of the Manifest, and checked again: a new service needs an endpoint.",
    )
    memory_map: FreeForm | None = Field(
        default=None, description="Merged over spec.memoryMap of the Manifest; a null removes the member it stands for."
    )
    polling: FreeForm | None = Field(
        default=None,
        description="Merged over spec.polling of the Manifest, and checked again: a new entry needs an endpoint.",
    )
    schemas: FreeForm | None = Field(
        default=None,
        description="Merged over spec.schemas of the Manifest, and checked again: a new entry needs a ref.",
    )
    environment: FreeForm | None = Field(
        default=None,
        description="Merged over spec.environment of the Manifest; a null removes the member it stands for.",
    )


class PrincipalBindingSpec(Spec):
    """Joins a Principal, a Profile and a Manifest: what the principal gets when it starts."""

    principal_ref: Reference = Field(description="The Principal that this Binding gives a packet to.")
    profile_ref: Reference = Field(
        description="The Profile that says what the principal may do and which secrets it needs."
    )
    manifest_ref: Reference = Field(description="The Manifest that describes the world in which the principal starts.")
    components: Annotated[list[Component], Field(max_length=512, json_schema_extra=AsSet), Distinct] = Field(
        description="The component keys under which the principal may start: exact keys, beginnings like indexer_*,"
        " or * for any. An empty list permits none."
    )
    overrides: Overrides | None = Field(
        default=None,
        description="Changes to Profile and Manifest for this principal only, as JSON merge patches per section.",
    )
    active: bool = Field(
        default=True,
        description="Whether this Binding is served. Of several active Bindings of one Principal the oldest is served.",
    )
