"""What `kubectl explain` prints can be understood by somebody who has read nothing else."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from metagate_crds.crd_yaml import crd_documents
from metagate_crds.kinds import KINDS

REFERENCE = re.compile(r"\b(?:D|INV|EXT)-\d+|\bRFC \d+ §|\b00\d:\d+|SPEC|DESIGN|COMMON")
FRAGMENTS = {"free form", "for people", "per root", "what for", "where it is", "names or globs", "the keys themselves"}
# Words of a metaphor, or of a house that a stranger does not know.
RETIRED = re.compile(r"\b(?:door|wakes up|fuel|who is speaking|believed)\b", re.IGNORECASE)


def descriptions(node: Any, path: str) -> Iterator[tuple[str, str | None]]:
    """Each part of a schema with its description; items of a list need none where they are plain text."""
    if not path.endswith(("apiVersion", "kind", "metadata")):
        described = node.get("description")
        if described is not None or not path.endswith(("[]", "*")):
            yield path, described
    for name, part in node.get("properties", {}).items():
        yield from descriptions(part, f"{path}.{name}")
    for name, part in (("[]", node.get("items")), (".*", node.get("additionalProperties"))):
        if isinstance(part, dict):
            yield from descriptions(part, f"{path}{name}")


def everything() -> dict[str, str | None]:
    described: dict[str, str | None] = {}
    for document in crd_documents():
        version = document["spec"]["versions"][0]
        kind = document["spec"]["names"]["kind"]
        described |= dict(descriptions(version["schema"]["openAPIV3Schema"], kind))
        described |= {
            f"{kind} column {item['name']}": item["description"] for item in version["additionalPrinterColumns"]
        }
    return described


DESCRIPTIONS = everything()


def test_every_part_of_every_kind_is_looked_at():
    """As many as there are fields, and each kind among them."""
    assert len(DESCRIPTIONS) > 200
    assert {path.split(".")[0].split(" ")[0] for path in DESCRIPTIONS} == set(KINDS)


@pytest.mark.parametrize("path", DESCRIPTIONS)
def test_a_description_is_a_sentence_for_a_stranger(path):
    """It exists, begins with a capital, ends with a full stop, is no fragment, and refers to no list of decisions."""
    text = DESCRIPTIONS[path]
    assert text, "no description"
    assert text.endswith("."), text
    assert text[0].isupper(), text
    assert len(text) >= 20, text
    assert len(re.findall(r"[.!?](?= [A-Z]|$)", text)) <= 3, "two sentences and an example at most"
    assert text.rstrip(".").lower() not in FRAGMENTS
    assert not REFERENCE.search(text), text
    assert not RETIRED.search(text), text


def test_examples_in_descriptions_are_valid():
    """A duration or a key that is given as an example is one."""
    durations = re.compile(r"(?:[0-9]{1,9}(?:ms|s|m|h))+")
    described = 0
    for path, text in DESCRIPTIONS.items():
        if text and "as a duration" in text:
            examples = text.split("Example")[1].split(":")[1].rstrip(".").split(",")
            assert all(durations.fullmatch(example.strip()) for example in examples), path
            described += 1
    assert described >= 3
