"""Manifest: the world that a component wakes up in."""

from typing import Annotated

from pydantic import Field

from metagate_crds.models.spec import Duration, Endpoint, FreeForm, Line, Spec, Word


class Auth(Spec):
    """How callers of a service authenticate. A secret is named here and never written down."""

    scheme: Word = Field(
        description="How callers authenticate, in the words of your components. Usual: none, bearer, basic, mtls."
    )
    secret_ref: Word | None = Field(
        default=None,
        description="The secret that callers present: the name of an entry in spec.secretRefs of the Profile that a"
        " Binding joins with this Manifest. Example: memory-token.",
    )


class Service(Spec):
    """A service that components may call: its address, its type, and how to authenticate."""

    type: Word | None = Field(
        default=None,
        description="What kind of service this is, so that components can find it without knowing its name."
        " Example: memorygate.",
    )
    endpoint: Endpoint = Field(
        description="Where the service is reached: a URL without white space. Example: http://memory:8001."
    )
    auth: Auth | None = Field(
        default=None, description="How callers authenticate. Callers need nothing when it is absent."
    )
    metadata: FreeForm | None = Field(
        default=None,
        description="Anything else that components should know of the service, in any form. Example: {shard: 3}.",
    )


class Polling(Spec):
    """A place that components may poll. It says where to look and never holds what is found there."""

    endpoint: Endpoint = Field(description="The URL that components poll. Example: http://memory:8001/inbox.")
    interval: Duration | None = Field(
        default=None, description="How long to wait between two polls, as a duration. Examples: 500ms, 5s, 1m30s."
    )
    description: Line | None = Field(
        default=None, description="One line that tells people what is polled there. Components ignore it."
    )


class SchemaRef(Spec):
    """A schema that data of this deployment follows, named by its identifier."""

    ref: Endpoint = Field(
        description="The identifier of the schema, a URN or URL. Example: urn:legivellum:receipt:1.1."
    )


class ManifestSpec(Spec):
    """The world in which components start: services, memory, places to poll, schemas, environment."""

    deployment_key: Word = Field(
        default="default", description="The deployment that this Manifest describes. Example: eu-production."
    )
    version: Annotated[int, Field(ge=0, le=2_147_483_647)] = Field(
        default=1,
        description="A version that people count up, shown by kubectl get. MetaGate itself compares generations.",
    )
    environment: FreeForm = Field(
        default_factory=dict,
        description="Settings of the deployment, in any form; components get them unchanged. Example: {region: eu-1}.",
    )
    services: Annotated[dict[str, Service], Field(max_length=256)] = Field(
        default_factory=dict,
        description="The services that components may call, by the name under which components look them up.",
    )
    memory_map: FreeForm = Field(
        default_factory=dict,
        description="Where components keep which memory, in any form; they get it as it is as memory_map."
        " Example: {short: ram}.",
    )
    polling: Annotated[dict[str, Polling], Field(max_length=256)] = Field(
        default_factory=dict,
        description="The places that components may poll, by name. Each entry says where, never what.",
    )
    schemas: Annotated[dict[str, SchemaRef], Field(max_length=256)] = Field(
        default_factory=dict, description="The schemas that data of this deployment follows, by name."
    )
