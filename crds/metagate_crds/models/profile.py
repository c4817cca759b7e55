"""Profile: what kind of thing it is."""

import re
from typing import Annotated, ClassVar, Final, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from metagate_crds import reasons
from metagate_crds.models.spec import FreeForm, Spec, Word, by_key, refuse

_ENV: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FILE: Final = re.compile(r"/[^\x00-\x20\x7f]+")


class StartupLimits(Spec):
    """How long a component may take to start."""

    sla_seconds: Annotated[int, Field(ge=1, le=86_400)] | None = Field(
        default=None,
        description="Seconds that a component may take from bootstrap to READY before its start counts as overdue."
        " When absent, the default of the installation applies (120 unless it was changed).",
    )


class SecretRef(Spec):
    """The place where a component finds a secret in its pod. It never holds the secret itself."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                {
                    "rule": "self.kind != 'Env' || self.ref.matches('^[A-Za-z_][A-Za-z0-9_]*$')",
                    "message": "ref must be the name of an environment variable",
                },
                {"rule": "self.kind != 'File' || self.ref.startsWith('/')", "message": "ref must be an absolute path"},
            ]
        }
    )

    name: Word = Field(
        description="The name under which code and Manifests refer to this secret. Example: memory-token."
    )
    kind: Literal["Env", "File"] = Field(
        default="Env", description="Where the secret is: Env is an environment variable, File is a mounted file."
    )
    ref: Annotated[str, Field(min_length=1, max_length=512)] = Field(
        description="The name of the environment variable, or the absolute path of the file."
        " Examples: MEMORY_TOKEN, /run/secrets/memory."
    )
    required: bool = Field(
        default=True,
        description="Whether the component refuses to start without this secret. When false, it starts anyway.",
    )

    @model_validator(mode="after")
    def _names_a_place(self) -> "SecretRef":
        if self.kind == "Env" and not _ENV.fullmatch(self.ref):
            raise refuse(reasons.INVALID_FIELD, "must have the name of an environment variable as ref")
        # `..` would let a Profile point outside of the mount that whoever reviews it sees.
        if self.kind == "File" and (not _FILE.fullmatch(self.ref) or ".." in self.ref.split("/")):
            raise refuse(reasons.INVALID_FIELD, "must have the absolute path of a file as ref")
        return self


class ProfileSpec(Spec):
    """What kind of component this is: what it may do, how fast it starts, and which secrets it needs."""

    capabilities: FreeForm = Field(
        default_factory=dict,
        description="What components of this Profile may do, in any form; passed unchanged. Example: {search: true}.",
    )
    policy: FreeForm = Field(
        default_factory=dict,
        description="Rules that components keep by themselves, in any form; they get them as they are."
        " Example: {retries: 3}.",
    )
    startup: StartupLimits = Field(
        default_factory=StartupLimits, description="How long a component of this Profile may take to start."
    )
    secret_refs: Annotated[list[SecretRef], Field(max_length=128, json_schema_extra=by_key("name"))] = Field(
        default_factory=list,
        description="The secrets that components of this Profile need, each by the place where they find it.",
    )

    @field_validator("secret_refs")
    @classmethod
    def _distinct_names(cls, refs: list[SecretRef]) -> list[SecretRef]:
        if len({ref.name for ref in refs}) != len(refs):
            raise refuse(reasons.DUPLICATE, "has the same name twice")
        return refs
