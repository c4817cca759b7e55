"""TokenIssuer: whose tokens are believed (D-14, D-44)."""

from collections.abc import Collection
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from legivellum.base.public_jwk import ALGORITHMS, parse_jwk_set
from metagate_crds import reasons
from metagate_crds.models.spec import LABEL, AsSet, Distinct, Duration, FreeForm, Line, Spec, refuse, seconds
from metagate_crds.rules.patterns import subject_pattern_problem

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
NamespaceName = Annotated[str, Field(min_length=1, max_length=63, pattern=f"^([*]|{LABEL[1:-1]})$")]


def _usual_algorithms() -> list[Algorithm]:
    return ["RS256", "ES256"]


def _has_usable_key(keys: list[dict[str, Any]], algorithms: Collection[str] = ALGORITHMS) -> list[dict[str, Any]]:
    """Keys of no use are skipped and named in status (D-73). Refused are private ones, which must not be declared
    anywhere, and a set without one usable key.
    """
    parsed = parse_jwk_set(keys, algorithms)
    private = [skipped for skipped in parsed.skipped if skipped.private]
    if private or not parsed.keys:
        problems = "; ".join(f"key {skipped.index} {skipped.problem}" for skipped in (private or parsed.skipped)[:3])
        raise refuse(reasons.INVALID_JWK, problems if private else f"has no usable key: {problems}")
    return keys


class KeySet(Spec):
    """A set of public keys in the form of a JWKS document."""

    keys: Annotated[list[FreeForm], Field(min_length=1, max_length=32), AfterValidator(_has_usable_key)] = Field(
        description="Public JWKs with a kid each: RSA of 2048 to 8192 bits, EC or Ed25519. Keys of no use are skipped"
        " and named in status; private ones are refused."
    )


class KeySource(Spec):
    """Where the public keys of an issuer come from."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                {"rule": "has(self.url) == (self.source == 'URL')", "message": "url belongs to source URL"},
                {"rule": "has(self.inline) == (self.source == 'Inline')", "message": "inline belongs to source Inline"},
            ]
        }
    )

    source: Literal["Cluster", "URL", "Inline"] = Field(
        description="Where the keys come from: Cluster reads those of this Kubernetes cluster, URL fetches them"
        " over https, Inline takes those below."
    )
    url: Annotated[str, Field(max_length=2048, pattern="^https://[^\\s/@?#]+(/[^\\s#]*)?$")] | None = Field(
        default=None,
        description="The address of the JWKS document, https only, with source URL."
        " Example: https://idp.example.com/.well-known/jwks.json.",
    )
    inline: KeySet | None = Field(
        default=None, description="The public keys, with source Inline. A change takes effect when it is applied."
    )

    @model_validator(mode="after")
    def _one_source(self) -> "KeySource":
        if (self.url is not None) != (self.source == "URL"):
            raise refuse(reasons.INVALID_FIELD, "must have url with source URL, and only then")
        if (self.inline is not None) != (self.source == "Inline"):
            raise refuse(reasons.INVALID_FIELD, "must have inline with source Inline, and only then")
        return self


class TokenIssuerSpec(Spec):
    """An issuer whose tokens are accepted, and which namespaces may claim its subjects."""

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
        default=None,
        description="The iss claim of its tokens, compared exactly. With source Cluster it is discovered when absent.",
    )
    audiences: Annotated[list[Line], Field(min_length=1, max_length=16, json_schema_extra=AsSet), Distinct] = Field(
        description="The aud claims that are accepted: a token must name one of these. Example: metagate."
    )
    algorithms: Annotated[list[Algorithm], Field(min_length=1, max_length=10, json_schema_extra=AsSet), Distinct] = (
        Field(
            default_factory=_usual_algorithms,
            description="The algorithms that its tokens may be signed with. Keys that fit none of them are not used.",
        )
    )
    jwks: KeySource = Field(description="Where the public keys of this issuer come from.")
    max_token_lifetime: Duration = Field(
        default="1h",
        description="The longest time between issue and expiry of a token, as a duration; longer tokens are refused."
        " Examples: 10m, 1h.",
    )
    namespaces: Annotated[list[NamespaceName], Field(max_length=512, json_schema_extra=AsSet), Distinct] | None = Field(
        default=None,
        description="The namespaces whose Principals may claim subjects of this issuer; * is any."
        " When absent, none may; with source Cluster, all may.",
    )
    subject_pattern: Line | None = Field(
        default=None,
        description="Which subjects a namespace may claim: * is any text, {namespace} is the Principal's namespace."
        " Example: *@{namespace}.example.com.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "TokenIssuerSpec":
        outside = self.jwks.source != "Cluster"
        if outside and self.issuer is None:
            raise refuse(reasons.MISSING_FIELD, "must have an issuer unless its source is Cluster")
        several = outside and self.namespaces is not None and (len(self.namespaces) > 1 or "*" in self.namespaces)
        if several and self.subject_pattern is None:
            raise refuse(reasons.INVALID_PATTERN, "must have a subjectPattern where several namespaces are admitted")
        if self.subject_pattern is not None:
            problem = subject_pattern_problem(self.subject_pattern, several=several)
            if problem:
                raise refuse(reasons.INVALID_PATTERN, f"subjectPattern {problem}")
        if self.jwks.inline is not None:
            _has_usable_key(self.jwks.inline.keys, self.algorithms)
        if seconds(self.max_token_lifetime) < 1:
            raise refuse(reasons.INVALID_FIELD, "maxTokenLifetime must be at least one second")
        return self
