"""PrincipalBinding: ties a Principal to a Profile and a Manifest, with overrides."""

import re
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from metagate_crds import reasons
from metagate_crds.models.spec import AsSet, Distinct, FreeForm, Reference, Spec, refuse

_COMPONENT: Final = re.compile(r"[A-Za-z0-9._:/@-]+\*?|\*")


def _component(text: str) -> str:
    if not _COMPONENT.fullmatch(text):
        raise refuse(reasons.INVALID_PATTERN, "must be a component key, a `prefix*`, or `*`")
    return text


Component = Annotated[
    str, Field(min_length=1, max_length=253, pattern="^([A-Za-z0-9._:/@-]+[*]?|[*])$"), AfterValidator(_component)
]


class Overrides(Spec):
    """Merge patches (RFC 7396) over sections of the packet: null removes, objects merge, anything else replaces."""

    capabilities: FreeForm | None = Field(default=None, description="Over the Profile's capabilities.")
    policy: FreeForm | None = Field(default=None, description="Over the Profile's policy.")
    services: FreeForm | None = Field(default=None, description="Over the Manifest's services.")
    memory_map: FreeForm | None = Field(default=None, description="Over the Manifest's memoryMap.")
    polling: FreeForm | None = Field(default=None, description="Over the Manifest's polling.")
    schemas: FreeForm | None = Field(default=None, description="Over the Manifest's schemas.")
    environment: FreeForm | None = Field(default=None, description="Over the Manifest's environment.")


class PrincipalBindingSpec(Spec):
    """Ties a Principal to a Profile and a Manifest. One active binding per principal: the oldest."""

    principal_ref: Reference = Field(description="Who.")
    profile_ref: Reference = Field(description="What kind of thing it is.")
    manifest_ref: Reference = Field(description="The world it wakes up in.")
    components: Annotated[list[Component], Field(max_length=512, json_schema_extra=AsSet), Distinct] = Field(
        description="Component keys it may start as: exact, `prefix*`, or `*`. An empty list permits none."
    )
    overrides: Overrides | None = Field(default=None, description="For this principal only.")
    active: bool = Field(default=True, description="Whether the binding counts.")
