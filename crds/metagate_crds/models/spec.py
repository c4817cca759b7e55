"""What all declared models share, and the field types that more than one kind uses."""

import re
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Final, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, model_validator
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from metagate_crds import reasons
from metagate_crds.rules import patterns

T = TypeVar("T")

_DURATION_PATTERN: Final = "^([0-9]{1,9}(ms|s|m|h))+$"
_DURATION: Final = re.compile(r"(?:[0-9]{1,9}(?:ms|s|m|h))+")
_DURATION_PART: Final = re.compile(r"([0-9]{1,9})(ms|s|m|h)")
_LARGEST_DURATION: Final = 366 * 24 * 3_600_000
_MILLISECONDS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}


class Spec(BaseModel):
    """A closed object: unknown fields are refused, types are JSON's own (no text where a number belongs)."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        alias_generator=to_camel, extra="forbid", strict=True, frozen=True, validate_by_alias=True
    )

    @model_validator(mode="before")
    @classmethod
    def _absent(cls, spec: Any) -> Any:
        """A field that is null is a field that is absent, as it is to kubectl."""
        # Helm and kustomize write nulls for what is to be absent.
        if isinstance(spec, dict) and None in spec.values():
            return {name: value for name, value in spec.items() if value is not None}
        return spec

    def declared(self) -> dict[str, Any]:
        """The spec as JSON with defaults filled in, so that files and a cluster's objects compare equal."""
        return self.model_dump(by_alias=True, exclude_none=True)


def refuse(reason: str, message: str) -> PydanticCustomError:
    """A finding raised from inside a model. The message must not quote the value."""
    return PydanticCustomError(reason, message)


def milliseconds(duration: str) -> int:
    """The length of a duration like `5s`, `1h30m` or `250ms`. Raises ValueError for anything that is no duration."""
    if not _DURATION.fullmatch(duration):
        raise ValueError("is not a duration like 5s, 1m or 1h")
    return sum(int(count) * _MILLISECONDS[unit] for count, unit in _DURATION_PART.findall(duration))


def seconds(duration: str) -> int:
    """The length in whole seconds, rounded down."""
    return milliseconds(duration) // 1000


def _bounded(duration: str) -> str:
    if not 1 <= milliseconds(duration) <= _LARGEST_DURATION:
        raise refuse(reasons.INVALID_FIELD, "must be a duration between 1ms and 366 days")
    return duration


def _distinct(items: list[Any]) -> list[Any]:
    if len(items) != len(set(items)):
        raise refuse(reasons.DUPLICATE, "lists the same thing twice")
    return items


STORED: Final = "stored"
"""Member of the validation context: true for a spec that an earlier release accepted and serves."""


def narrowed(check: Callable[[T], None]) -> AfterValidator:
    """A rule that came after a release without it. It binds what is declared and not what is stored.

    An object that was valid before would else be nobody's from the upgrade on: its last good version would be refused
    too. The CRD's schema says the narrower bound, by `json_schema_extra`.
    """

    def checked(value: T, info: ValidationInfo) -> T:
        if not (info.context or {}).get(STORED):
            check(value)
        return value

    return AfterValidator(checked)


def _check_http_url(url: str) -> None:
    if not re.fullmatch(_HTTP_URL, url) or not _has_sound_port(url):
        raise refuse(reasons.INVALID_FIELD, f"must be {WANTED[_HTTP_URL]}")


def _has_sound_port(url: str) -> bool:
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


FreeForm = Annotated[dict[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})]
"""An object whose content is the declarer's own; what `SpecScanner` finds is refused inside, too."""

Distinct = AfterValidator(_distinct)
AsSet: JsonDict = {"x-kubernetes-list-type": "set"}
"""A list that Kubernetes too keeps free of twins, and that several owners may each add to."""


def by_key(name: str) -> JsonDict:
    """A list whose items are known by one field, to Kubernetes too."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [name]}


DNS_NAME = f"^{patterns.DNS_NAME}$"
LABEL = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"

_WORD: Final = "^[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$"
_ENDPOINT: Final = "^[^\\s\\x00-\\x1f\\x7f]+$"
# No user info, which would be a secret in a spec; no fragment, which is not sent.
_HTTP_URL: Final = "^https?://[^\\s\\x00-\\x1f\\x7f/?#@\\\\]+([/?][^\\s\\x00-\\x1f\\x7f#\\\\]*)?$"
_LINE: Final = "^[^\\x00-\\x1f\\x7f]*[^\\x00-\\x20\\x7f][^\\x00-\\x1f\\x7f]*$"
WANTED: Final = {
    DNS_NAME: "the name of an object: lower-case letters, digits, - and ., like memory-indexer",
    _WORD: "one word of at most 63 letters, digits, _, . and -, like memory-token",
    _ENDPOINT: "an address as text without white space, like http://memory:8001",
    _HTTP_URL: "an absolute http or https URL without user info and fragment, like http://delegate:8004/plans",
    _LINE: "one line of text, not blank, of at most 512 characters",
    _DURATION_PATTERN: "a duration as text, like 250ms, 5s, 1m30s or 1h",
}
"""Pattern -> what is said to somebody whose text does not match: a regular expression is no advice."""

ObjectName = Annotated[str, Field(min_length=1, max_length=253, pattern=DNS_NAME)]
Word = Annotated[str, Field(min_length=1, max_length=63, pattern=_WORD)]
Duration = Annotated[str, Field(min_length=2, max_length=32, pattern=_DURATION_PATTERN), AfterValidator(_bounded)]
Endpoint = Annotated[str, Field(min_length=1, max_length=2048, pattern=_ENDPOINT)]
HttpUrl = Annotated[
    str,
    Field(min_length=1, max_length=2048, pattern=_ENDPOINT, json_schema_extra={"pattern": _HTTP_URL}),
    narrowed(_check_http_url),
]
Line = Annotated[str, Field(min_length=1, max_length=512, pattern=_LINE)]
"""One line of text, not blank."""


class Reference(Spec):
    """Names an object of the same namespace."""

    name: ObjectName = Field(
        description="The name of an object in this namespace. References to other namespaces do not exist."
    )
