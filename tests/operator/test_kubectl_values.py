"""A scalar in a file means what `kubectl apply -f` makes of it: kubectl itself is asked."""

import json
from typing import Any

import pytest
from tests.cluster.control_plane import Cluster
from tests.unit.operator.sources.scalars import SCALARS

from metagate_operator.sources.documents import read_documents

HEAD = "apiVersion: metagate.legivellum.io/v1alpha1\nkind: Manifest\nmetadata: {name: m}\nspec:\n"


@pytest.fixture(scope="module")
def of_kubectl(cluster: Cluster) -> dict[str, Any]:
    """The values of all scalars as an API server stores them, in the order of the table."""
    text = HEAD + "".join(f"  k{place}: {scalar}\n" for place, scalar in enumerate(SCALARS))
    done = cluster.kubectl.run("patch", "--local", "-f", "-", "--type=merge", "-p", "{}", "-o", "json", stdin=text)
    spec = json.loads(done.stdout)["spec"]
    return {scalar: spec[f"k{place}"] for place, scalar in enumerate(SCALARS)}


def test_scalars_are_those_of_kubectl(of_kubectl: dict[str, Any]) -> None:
    """Each of the table, and the table itself: kubectl writes floats by their shortest digits, so they are compared as
    floats.
    """
    ours = read_documents(
        (HEAD + "".join(f"  k{place}: {scalar}\n" for place, scalar in enumerate(SCALARS))).encode(), "f"
    )
    spec = ours.documents[0].spec
    result = {scalar: spec[f"k{place}"] for place, scalar in enumerate(SCALARS)}
    assert result == SCALARS
    assert result == {
        scalar: float(value) if isinstance(SCALARS[scalar], float) else value for scalar, value in of_kubectl.items()
    }
    assert {scalar: type(value) for scalar, value in result.items() if not isinstance(value, float)} == {
        scalar: type(value) for scalar, value in of_kubectl.items() if not isinstance(SCALARS[scalar], float)
    }
