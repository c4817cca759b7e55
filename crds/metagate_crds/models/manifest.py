"""Manifest: the world that a component wakes up in."""

from typing import Annotated

from pydantic import Field

from metagate_crds.models.spec import Duration, Endpoint, FreeForm, Line, Spec, Word


class Auth(Spec):
    """What a service expects of its callers. The secret is named, never held."""

    scheme: Word = Field(description="How callers authenticate: none, bearer, basic, mtls, …")
    secret_ref: Word | None = Field(default=None, description="A name of Profile.spec.secretRefs.")


class Service(Spec):
    """One service of this world."""

    type: Word | None = Field(default=None, description="What the service is, for lookup by type.")
    endpoint: Endpoint = Field(description="Where it is.")
    auth: Auth | None = Field(default=None, description="What it expects of its callers.")
    metadata: FreeForm | None = Field(default=None, description="Free form.")


class Polling(Spec):
    """A pointer to something that the component may poll. Nothing but a pointer."""

    endpoint: Endpoint = Field(description="Where to look.")
    interval: Duration | None = Field(default=None, description="How often, like 5s.")
    description: Line | None = Field(default=None, description="For people.")


class SchemaRef(Spec):
    """A pointer to a schema."""

    ref: Endpoint = Field(description="A URN or URL.")


class ManifestSpec(Spec):
    """The world it wakes up in: services, memory, where to look for more, which schemas hold."""

    deployment_key: Word = Field(default="default", description="Which deployment this describes.")
    version: Annotated[int, Field(ge=0, le=2_147_483_647)] = Field(
        default=1, description="For people; MetaGate counts generations."
    )
    environment: FreeForm = Field(default_factory=dict, description="Free form; goes into the packet as it is.")
    services: Annotated[dict[str, Service], Field(max_length=256)] = Field(
        default_factory=dict, description="The services of this world, by name."
    )
    memory_map: FreeForm = Field(default_factory=dict, description="Free form; goes into the packet as it is.")
    polling: Annotated[dict[str, Polling], Field(max_length=256)] = Field(
        default_factory=dict, description="Places to look; pointers only."
    )
    schemas: Annotated[dict[str, SchemaRef], Field(max_length=256)] = Field(
        default_factory=dict, description="The schemas that hold here, by name."
    )
