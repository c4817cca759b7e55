"""Principal: who is speaking."""

from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from metagate_crds import reasons
from metagate_crds.models.spec import AsSet, Distinct, Line, Reference, Spec, refuse
from metagate_crds.rules.findings import Finding

_KEY_ID: Final = "^[0-9A-Za-z]{10}$"
_SHA256: Final = "^[0-9a-f]{64}$"
WANTED: Final = {
    _KEY_ID: "the ten characters after mgk_ in the key, as `metagate keys create` prints it",
    _SHA256: "the SHA-256 digest of the key in 64 lower-case hexadecimal digits, as `metagate keys create` prints it",
}

# The ledger takes these for "nobody": it refuses a receipt whose principal has such a name, so its owner could neither
# be admitted nor hold a task (docs/memorygate/receipts.md).
_PLACEHOLDER_NAMES: Final = frozenset({"na", "none", "null", "tbd"})

PrincipalType = Literal["component", "admin", "observer", "principal", "delegate", "worker", "service"]
Scope = Literal["Namespace", "Cluster"]
Right = Literal["witness"]


def instant(text: str) -> datetime:
    """An RFC 3339 time in UTC. Raises ValueError for anything else, times without a zone included."""
    # fromisoformat takes dates and times without a zone, which would mean another instant on another machine.
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


class ServiceAccountRef(Reference):
    """Names a Kubernetes service account of the Principal's own namespace."""


class Subject(Spec):
    """A token subject that is this principal: a service account, or a subject at another issuer."""

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

    service_account: ServiceAccountRef | None = Field(
        default=None,
        description="A Kubernetes service account of this namespace, whose tokens are this principal's."
        " Use it alone, or issuer and subject.",
    )
    issuer: Line | None = Field(
        default=None,
        description="The iss claim of the tokens, compared exactly. Its TokenIssuer must admit this namespace.",
    )
    subject: Line | None = Field(
        default=None, description="The sub claim of the tokens, compared exactly. Example: indexer@example.com."
    )

    @model_validator(mode="after")
    def _one_form(self) -> "Subject":
        spelled = (self.issuer is not None, self.subject is not None)
        if spelled != ((False, False) if self.service_account else (True, True)):
            raise refuse(reasons.INVALID_FIELD, "must have either serviceAccount, or issuer and subject")
        return self


class ApiKey(Spec):
    """The digest of an API key. `metagate keys create` makes a key and prints this entry; never write the key here."""

    id: Annotated[str, Field(min_length=10, max_length=10, pattern=_KEY_ID)] = Field(
        description="The public part of the key: the ten characters after mgk_. It names the key in logs and lists."
    )
    sha256: Annotated[str, Field(min_length=64, max_length=64, pattern=_SHA256)] = Field(
        description="The SHA-256 digest of the whole key, as 64 lower-case hexadecimal digits."
    )
    expires_at: Annotated[str, Field(max_length=40), AfterValidator(_instant)] | None = Field(
        default=None,
        description="When the key stops working, as an RFC 3339 time with a zone. Example: 2027-02-01T00:00:00Z.",
        json_schema_extra={"format": "date-time"},
    )


class PrincipalSpec(Spec):
    """A caller: how it is recognised, what kind of caller it is, and whether it is suspended."""

    scope: Scope = Field(
        default="Namespace",
        description="What an admin or observer may see: Namespace is its own tenant, Cluster is every tenant."
        " Cluster is refused outside of the system namespace.",
    )
    type: PrincipalType = Field(
        default="component",
        description="What kind of caller this is, and so what it may do beyond starting: admin may change things,"
        " observer may read them.",
    )
    suspended: bool = Field(
        default=False,
        description="Whether every request of this principal is refused. It takes effect at once, at every gate.",
    )
    rights: Annotated[list[Right], Field(max_length=8, json_schema_extra=AsSet), Distinct] = Field(
        default_factory=list,
        description="Rights beyond those of the type: witness may record startups as receipts of MetaGate."
        " Only Principals of the system namespace may have any.",
    )
    subjects: Annotated[list[Subject], Field(max_length=64)] = Field(
        default_factory=list,
        description="The token subjects that are this principal. A subject that an older Principal has is not served.",
    )
    api_keys: Annotated[list[ApiKey], Field(max_length=32)] = Field(
        default_factory=list,
        description="The digests of this principal's API keys, as `metagate keys create` prints them, never a key.",
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


def name_findings(name: str) -> list[Finding]:
    """What is wrong with the object's own name."""
    if name in _PLACEHOLDER_NAMES:
        message = f"must not be a placeholder ({', '.join(sorted(_PLACEHOLDER_NAMES))}): no receipt can hold it"
        return [Finding("metadata.name", reasons.NAME_REFUSED, message)]
    return []
