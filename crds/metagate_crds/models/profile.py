"""Profile: what kind of thing it is."""

import re
from typing import Annotated, ClassVar, Final, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from metagate_crds import reasons
from metagate_crds.models.spec import FreeForm, Spec, Word, by_key, refuse

_ENV: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FILE: Final = re.compile(r"/[^\x00-\x20\x7f]+")


class Startup(Spec):
    """What is expected of a component's start."""

    sla_seconds: Annotated[int, Field(ge=1, le=86_400)] | None = Field(
        default=None,
        description="Seconds from bootstrap to READY; the installation's default when absent.",
    )


class SecretRef(Spec):
    """Where the component finds a secret. There is no field for a value, and there will be none."""

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

    name: Word = Field(description="What services and code call this secret.")
    kind: Literal["Env", "File"] = Field(
        default="Env", description="Env: an environment variable. File: a mounted file."
    )
    ref: Annotated[str, Field(min_length=1, max_length=512)] = Field(
        description="The name of the environment variable, or the absolute path of the file."
    )
    required: bool = Field(default=True, description="Whether the component cannot start without it.")

    @model_validator(mode="after")
    def _names_a_place(self) -> "SecretRef":
        if self.kind == "Env" and not _ENV.fullmatch(self.ref):
            raise refuse(reasons.INVALID_FIELD, "must have the name of an environment variable as ref")
        if self.kind == "File" and (not _FILE.fullmatch(self.ref) or ".." in self.ref.split("/")):
            raise refuse(reasons.INVALID_FIELD, "must have the absolute path of a file as ref")
        return self


class ProfileSpec(Spec):
    """What kind of thing it is: capabilities, policy, what is expected of its start, which secrets it needs."""

    capabilities: FreeForm = Field(default_factory=dict, description="Free form; goes into the packet as it is.")
    policy: FreeForm = Field(default_factory=dict, description="Free form; goes into the packet as it is.")
    startup: Startup = Field(default_factory=Startup, description="What is expected of a start.")
    secret_refs: Annotated[list[SecretRef], Field(max_length=128, json_schema_extra=by_key("name"))] = Field(
        default_factory=list, description="The secrets it needs, by reference only."
    )

    @field_validator("secret_refs")
    @classmethod
    def _distinct_names(cls, refs: list[SecretRef]) -> list[SecretRef]:
        if len({ref.name for ref in refs}) != len(refs):
            raise refuse(reasons.DUPLICATE, "has the same name twice")
        return refs
