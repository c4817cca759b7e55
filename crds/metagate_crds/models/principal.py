"""Principal: who is speaking."""

from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from metagate_crds import reasons
from metagate_crds.models.spec import AsSet, Distinct, Line, Reference, Spec, refuse

PrincipalType = Literal["component", "admin", "observer", "principal", "delegate", "worker", "service"]
Scope = Literal["Namespace", "Cluster"]
Right = Literal["witness"]


def instant(text: str) -> datetime:
    """An RFC 3339 time in UTC. Raises ValueError for anything else, times without a zone included."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None or "T" not in text.upper():
        raise ValueError("is not an RFC 3339 time")
    return moment.astimezone(UTC)


def _instant(text: str) -> str:
    try:
        instant(text)
    except (ValueError, OverflowError) as error:
        raise refuse(reasons.INVALID_FIELD, "must be an RFC 3339 time with a zone") from error
    return text


class ServiceAccount(Reference):
    """A service account of the Principal's own namespace."""


class Subject(Spec):
    """One way in which tokens name this principal: a service account, or a subject of another issuer."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                {
                    "rule": "has(self.serviceAccount) ? !has(self.issuer) && !has(self.subject)"
                    " : has(self.issuer) && has(self.subject)",
                    "message": "either serviceAccount, or issuer and subject",
                }
            ]
        }
    )

    service_account: ServiceAccount | None = Field(
        default=None, description="A service account of this Principal's own namespace."
    )
    issuer: Line | None = Field(default=None, description="The issuer of a TokenIssuer, compared exactly.")
    subject: Line | None = Field(default=None, description="The token's subject at that issuer, compared exactly.")

    @model_validator(mode="after")
    def _one_form(self) -> "Subject":
        spelled = (self.issuer is not None, self.subject is not None)
        if spelled != ((False, False) if self.service_account else (True, True)):
            raise refuse(reasons.INVALID_FIELD, "must have either serviceAccount, or issuer and subject")
        return self


class ApiKey(Spec):
    """The digest of an API key. The key itself is shown once, when it is made, and kept nowhere."""

    id: Annotated[str, Field(min_length=10, max_length=10, pattern="^[0-9A-Za-z]{10}$")] = Field(
        description="The public part of the key."
    )
    sha256: Annotated[str, Field(min_length=64, max_length=64, pattern="^[0-9a-f]{64}$")] = Field(
        description="The sha256 of the whole key, in hex."
    )
    expires_at: Annotated[str, Field(max_length=40), AfterValidator(_instant)] | None = Field(
        default=None,
        description="When the key stops working; never, when absent.",
        json_schema_extra={"format": "date-time"},
    )


class PrincipalSpec(Spec):
    """Who is speaking: how it is recognised, what kind of caller it is, whether it is suspended."""

    scope: Scope = Field(
        default="Namespace",
        description="Cluster is for Principals of the system namespace only: they see every tenant.",
    )
    type: PrincipalType = Field(default="component", description="What kind of caller this is.")
    suspended: bool = Field(default=False, description="Refuse this principal everywhere, at once.")
    rights: Annotated[list[Right], Field(max_length=8, json_schema_extra=AsSet), Distinct] = Field(
        default_factory=list, description="Rights beyond the type; for Principals of the system namespace only."
    )
    subjects: Annotated[list[Subject], Field(max_length=64)] = Field(
        default_factory=list, description="The token subjects that are this principal."
    )
    api_keys: Annotated[list[ApiKey], Field(max_length=32)] = Field(
        default_factory=list, description="Digests of the API keys that are this principal's. Never a key."
    )

    @model_validator(mode="after")
    def _no_twins(self) -> "PrincipalSpec":
        for name, items in (
            ("subjects", [item.model_dump_json() for item in self.subjects]),
            ("apiKeys", [item.sha256 for item in self.api_keys]),
        ):
            if len(items) != len(set[Any](items)):
                raise refuse(reasons.DUPLICATE, f"lists the same thing twice in {name}")
        return self
