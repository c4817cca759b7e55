"""TokenIssuer: whose tokens are believed (D-14, D-44)."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from metagate_crds import reasons
from metagate_crds.models.spec import LABEL, AsSet, Distinct, Duration, FreeForm, Line, Spec, refuse, seconds
from metagate_crds.rules.patterns import subject_pattern_problem
from metagate_crds.rules.public_jwk import jwk_problem

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
NamespaceName = Annotated[str, Field(min_length=1, max_length=63, pattern=f"^([*]|{LABEL[1:-1]})$")]


def _usual_algorithms() -> list[Algorithm]:
    return ["RS256", "ES256"]


def _key_set(keys: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for index, key in enumerate(keys):
        trouble = jwk_problem(key)
        if trouble:
            raise refuse(reasons.INVALID_JWK, f"key {index} {trouble}")
    if len({key["kid"] for key in keys}) != len(keys):
        raise refuse(reasons.DUPLICATE, "has the same kid twice")
    return keys


class KeySet(Spec):
    """Public keys as JWKs."""

    keys: Annotated[list[FreeForm], Field(min_length=1, max_length=32), AfterValidator(_key_set)] = Field(
        description="Public JWKs with a kid each; RSA of at least 2048 bits, EC, or Ed25519."
    )


class KeySource(Spec):
    """Where the public keys come from."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                {"rule": "has(self.url) == (self.source == 'URL')", "message": "url belongs to source URL"},
                {"rule": "has(self.inline) == (self.source == 'Inline')", "message": "inline belongs to source Inline"},
            ]
        }
    )

    source: Literal["Cluster", "URL", "Inline"] = Field(
        description="Cluster: this cluster's own keys. URL: fetched over https. Inline: given here."
    )
    url: Annotated[str, Field(max_length=2048, pattern="^https://[^\\s/@?#]+(/[^\\s#]*)?$")] | None = Field(
        default=None, description="A JWKS document, https only."
    )
    inline: KeySet | None = Field(default=None, description="The keys themselves.")

    @model_validator(mode="after")
    def _one_source(self) -> "KeySource":
        if (self.url is not None) != (self.source == "URL"):
            raise refuse(reasons.INVALID_FIELD, "must have url with source URL, and only then")
        if (self.inline is not None) != (self.source == "Inline"):
            raise refuse(reasons.INVALID_FIELD, "must have inline with source Inline, and only then")
        return self


class TokenIssuerSpec(Spec):
    """Whose tokens are believed, and which namespaces may claim its subjects."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                {
                    "rule": "has(self.issuer) || self.jwks.source == 'Cluster'",
                    "message": "issuer may be left out with source Cluster only",
                },
                {
                    "rule": "self.jwks.source == 'Cluster' || has(self.subjectPattern) || !has(self.namespaces)"
                    " || (size(self.namespaces) < 2 && !('*' in self.namespaces))",
                    "message": "subjectPattern is mandatory where several namespaces are admitted",
                },
            ]
        }
    )

    issuer: Line | None = Field(
        default=None, description="The iss claim, compared exactly. Discovered with source Cluster when absent."
    )
    audiences: Annotated[list[Line], Field(min_length=1, max_length=16, json_schema_extra=AsSet), Distinct] = Field(
        description="A token must be for one of these."
    )
    algorithms: Annotated[list[Algorithm], Field(min_length=1, max_length=10, json_schema_extra=AsSet), Distinct] = (
        Field(default_factory=_usual_algorithms, description="Signature algorithms; asymmetric only.")
    )
    jwks: KeySource = Field(description="Where its public keys come from.")
    max_token_lifetime: Duration = Field(default="1h", description="Tokens that live longer are refused.")
    namespaces: Annotated[list[NamespaceName], Field(max_length=512, json_schema_extra=AsSet), Distinct] | None = Field(
        default=None,
        description="Whose Principals may name its subjects; `*` any. None by default; any, with source Cluster.",
    )
    subject_pattern: Line | None = Field(
        default=None,
        description="A glob for subjects in which {namespace} stands for the Principal's namespace.",
    )

    @model_validator(mode="after")
    def _sound(self) -> "TokenIssuerSpec":
        outside = self.jwks.source != "Cluster"
        if outside and self.issuer is None:
            raise refuse(reasons.MISSING_FIELD, "must have an issuer unless its source is Cluster")
        several = outside and self.namespaces is not None and (len(self.namespaces) > 1 or "*" in self.namespaces)
        if several and self.subject_pattern is None:
            raise refuse(reasons.INVALID_PATTERN, "must have a subjectPattern where several namespaces are admitted")
        if self.subject_pattern is not None:
            trouble = subject_pattern_problem(self.subject_pattern, several=several)
            if trouble:
                raise refuse(reasons.INVALID_PATTERN, f"subjectPattern {trouble}")
        if seconds(self.max_token_lifetime) < 1:
            raise refuse(reasons.INVALID_FIELD, "maxTokenLifetime must be at least one second")
        return self
