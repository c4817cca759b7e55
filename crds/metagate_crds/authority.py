"""What work may do beyond itself, as tasks and leases carry it; what is absent is denied. Pure.

Authority only shrinks: a task's stays within a ceiling, a spawned one's within that of the lease it comes from.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

_Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,252}$")]
_Glob = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9*?][A-Za-z0-9*?._/-]{0,252}$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Spawn(_Part):
    """How many tasks it may spawn."""

    max: int = Field(ge=0, le=200)


class Cognition(_Part):
    """What it may spend on models."""

    models: list[_Word] = Field(default_factory=list, max_length=8)
    calls: int | None = Field(None, ge=1, le=1_000)
    tokens: int | None = Field(None, ge=1, le=10_000_000)
    seconds: int | None = Field(None, ge=1, le=7_200)


class Authority(_Part):
    """The names are those of the wire."""

    spawn: Spawn | None = None
    invokeCognigate: bool = False  # noqa: N815 - as on the wire
    exposeTools: list[_Glob] = Field(default_factory=list, max_length=64)  # noqa: N815
    writeBeyondReceipts: bool = False  # noqa: N815
    maxDepth: int | None = Field(None, ge=0, le=1024)  # noqa: N815
    asyncgates: list[_Word] = Field(default_factory=list, max_length=8)
    sinks: list[_Word] = Field(default_factory=list, max_length=8)
    cognition: Cognition | None = None


NOTHING: Final = Authority()
"""The authority of a task that carries none, and of a namespace without a ceiling."""


def parse_authority(value: Any) -> Authority | tuple[str, ...]:
    """The authority, or a sentence for everything that is wrong with it."""
    try:
        return Authority.model_validate(value)
    except ValidationError as error:
        return tuple(
            f"{'.'.join(map(str, item['loc'])) or 'authority'} {item['msg'][:1].lower()}{item['msg'][1:]}"
            for item in error.errors(include_url=False, include_input=False)
        )


def exceeded(wanted: Authority, ceiling: Authority) -> str | None:
    """The first member that goes beyond the ceiling; None: it is within it."""
    for name, within in (
        ("spawn", _number(_spawns(wanted), _spawns(ceiling))),
        ("invokeCognigate", ceiling.invokeCognigate or not wanted.invokeCognigate),
        ("exposeTools", all(_covered(glob, ceiling.exposeTools) for glob in wanted.exposeTools)),
        ("writeBeyondReceipts", ceiling.writeBeyondReceipts or not wanted.writeBeyondReceipts),
        ("maxDepth", _number(wanted.maxDepth, ceiling.maxDepth)),
        ("asyncgates", set(wanted.asyncgates) <= set(ceiling.asyncgates)),
        ("sinks", set(wanted.sinks) <= set(ceiling.sinks)),
        ("cognition", wanted.cognition is None or _spends(wanted.cognition, ceiling.cognition)),
    ):
        if not within:
            return name
    return None


def _spawns(authority: Authority) -> int | None:
    return None if authority.spawn is None else authority.spawn.max


def _number(wanted: int | None, most: int | None) -> bool:
    """Absent is denied, so a number needs one that is as large; zero asks for nothing."""
    return not wanted or (most is not None and wanted <= most)


def _spends(wanted: Cognition, ceiling: Cognition | None) -> bool:
    if ceiling is None:
        return False
    return set(wanted.models) <= set(ceiling.models) and all(
        _number(getattr(wanted, name), getattr(ceiling, name)) for name in ("calls", "tokens", "seconds")
    )


def _covered(glob: str, ceilings: Sequence[str]) -> bool:
    """Whether everything that the glob matches is matched by one of the ceilings.

    Only a ceiling that matches the glob's own text covers it: a `?` of a ceiling does not stand for a `*`, which
    matches more than one character.
    """
    return any(
        glob == ceiling or (("*" not in glob or "?" not in ceiling) and fnmatchcase(glob, ceiling))
        for ceiling in ceilings
    )
