"""The SQL of the store: named blocks in `sql/*.sql`, each with a one-line description.

    -- name: publish.take_epoch
    -- Fence every older writer.
    UPDATE …

Nothing is built from strings; a test prepares every block against the schema.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

_BLOCK = re.compile(
    r"^-- name: (?P<name>[a-z_.]+)\n-- (?P<says>[^\n]+)\n(?P<sql>.*?)(?=^-- name: |\Z)", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Query:
    name: str
    says: str
    sql: str


def parse(text: str) -> dict[str, Query]:
    queries = {
        match["name"]: Query(match["name"], match["says"], match["sql"].strip().removesuffix(";"))
        for match in _BLOCK.finditer(text)
    }
    if len(queries) != text.count("-- name: "):
        raise ValueError("a block without description, or a name used twice")
    return queries


@cache
def every() -> Mapping[str, Query]:
    """All blocks of all files, by name."""
    everything: dict[str, Query] = {}
    for entry in sorted((files(__package__) / "sql").iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".sql"):
            everything |= parse(entry.read_text(encoding="utf-8"))
    return everything


def sql(name: str) -> str:
    return every()[name].sql
