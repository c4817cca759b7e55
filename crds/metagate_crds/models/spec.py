"""What all declared models share, and the field types that more than one kind uses."""

import re
from typing import Annotated, Any, ClassVar, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from metagate_crds import reasons

_DURATION_PATTERN: Final = "^([0-9]{1,9}(ms|s|m|h))+$"
_DURATION: Final = re.compile(r"(?:[0-9]{1,9}(?:ms|s|m|h))+")
_DURATION_PART: Final = re.compile(r"([0-9]{1,9})(ms|s|m|h)")
_LONGEST_DURATION: Final = 32
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


def _duration(value: Any) -> Any:
    try:
        length = milliseconds(value) if isinstance(value, str) and len(value) <= _LONGEST_DURATION else 0
    except ValueError:
        length = 0
    if not length:
        raise refuse(reasons.INVALID_FIELD, "must be a duration as text, like 250ms, 5s, 1m30s or 1h")
    if length > _LARGEST_DURATION:
        raise refuse(reasons.INVALID_FIELD, "must be a duration between 1ms and 366 days")
    return value


def text_like(pattern: str, longest: int, wanted: str) -> BeforeValidator:
    """Refuses other values with one message that says what is wanted, with an example.

    It runs before the constraints of the field, which would quote a regular expression.
    """
    compiled = re.compile(pattern)

    def check(value: Any) -> Any:
        if not isinstance(value, str) or not 1 <= len(value) <= longest or not compiled.fullmatch(value):
            raise refuse(reasons.INVALID_FIELD, f"must be {wanted}")
        return value

    return BeforeValidator(check)


def _distinct(items: list[Any]) -> list[Any]:
    if len(items) != len(set(items)):
        raise refuse(reasons.DUPLICATE, "lists the same thing twice")
    return items


FreeForm = Annotated[dict[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})]
"""An object whose content is the declarer's own; what `SpecScanner` finds is refused inside, too."""

Distinct = AfterValidator(_distinct)
AsSet: JsonDict = {"x-kubernetes-list-type": "set"}
"""A list that Kubernetes too keeps free of twins, and that several owners may each add to."""


def by_key(name: str) -> JsonDict:
    """A list whose items are known by one field, to Kubernetes too."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [name]}


DNS_NAME = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
LABEL = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"

_WORD: Final = "^[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$"
_ENDPOINT: Final = "^[^\\s\\x00-\\x1f\\x7f]+$"
_LINE: Final = "^[^\\x00-\\x1f\\x7f]*[^\\x00-\\x20\\x7f][^\\x00-\\x1f\\x7f]*$"

ObjectName = Annotated[
    str,
    Field(min_length=1, max_length=253, pattern=DNS_NAME),
    text_like(DNS_NAME, 253, "the name of an object: lower-case letters, digits, - and ., like memory-indexer"),
]
Word = Annotated[
    str,
    Field(min_length=1, max_length=63, pattern=_WORD),
    text_like(_WORD, 63, "one word of at most 63 letters, digits, _, . and -, like memory-token"),
]
Duration = Annotated[
    str, Field(min_length=2, max_length=_LONGEST_DURATION, pattern=_DURATION_PATTERN), BeforeValidator(_duration)
]
Endpoint = Annotated[
    str,
    Field(min_length=1, max_length=2048, pattern=_ENDPOINT),
    text_like(_ENDPOINT, 2048, "an address as text without white space, like http://memory:8001"),
]
Line = Annotated[
    str,
    Field(min_length=1, max_length=512, pattern=_LINE),
    text_like(_LINE, 512, "one line of text, not blank, of at most 512 characters"),
]
"""One line of text, not blank."""


class Reference(Spec):
    """Names an object of the same namespace."""

    name: ObjectName = Field(
        description="The name of an object in this namespace. References to other namespaces do not exist."
    )
