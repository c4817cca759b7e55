"""The chart as a document: it lints, its values are documented and typed, and what is generated has not drifted."""

import importlib.util
import json
import sys
from typing import Any

import pytest
import yaml
from tests.chart.rendering import CHART, MATRIX, ROOT, Chart, of_kind, plain


def test_lints_strictly(chart: Chart, tmp_path):
    """helm lint --strict finds nothing in any combination of values."""
    for name, values in MATRIX.items():
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump(plain(values)))
        completed = chart.run("lint", "--strict", str(CHART), "-f", str(file))
        assert "0 chart(s) failed" in completed


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("metagate", 100),
        ("memorygate", 40),
        ("interrogate", 40),
        ("asyncgate", 40),
        ("depotgate", 50),
        ("delegate", 50),
        ("cognigate", 50),
        ("legivellum", 50),
    ],
)
def test_readme_shows_the_values(name: str, most: int):
    """The table in each README.md is what charts/readme.py writes from values.yaml, and says something about each value."""
    spec = importlib.util.spec_from_file_location("chart_readme", ROOT / "charts" / "readme.py")
    assert spec is not None
    assert spec.loader is not None
    readme = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = readme
    spec.loader.exec_module(readme)
    folder = CHART.parent / name
    assert (folder / "README.md").read_text() == readme.written(folder), "run charts/readme.py"
    rows = readme.rows((folder / "values.yaml").read_text())
    assert len(rows) > most
    assert [row.path for row in rows if not row.says] == []


def _untyped(values: Any, schema: dict[str, Any], definitions: dict[str, Any], path: str) -> list[str]:
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rsplit("/", 1)[1]]
    if not isinstance(values, dict) or "properties" not in schema:
        return [] if "type" in schema or "enum" in schema else [path]
    wrong = [f"{path} accepts unknown keys"] if schema.get("additionalProperties") is not False else []
    wrong += [f"{path}.{key} is only in the schema" for key in schema["properties"] if key not in values and values]
    for key, value in values.items():
        if key not in schema["properties"]:
            wrong.append(f"{path}.{key} is not in the schema")
        else:
            wrong += _untyped(value, schema["properties"][key], definitions, f"{path}.{key}")
    return wrong


def test_schema_types_every_value():
    """values.schema.json has a type for every key of values.yaml, knows no other key and allows no other."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    untyped = _untyped(yaml.safe_load((CHART / "values.yaml").read_text()), schema, schema["definitions"], "values")
    allowed = {
        "values.global is only in the schema",  # Helm's own, and what it hands to the library chart
        "values.gate-lib is only in the schema",
        "values.enabled is only in the schema",  # a condition of the chart legivellum
        "values.operator.resources.limits.cpu is only in the schema",
    }
    assert set(untyped) - allowed == set()


def test_crds_are_the_generated_ones():
    """crds/ of the chart holds exactly what `make crds` generates."""
    generated = ROOT / "crds" / "generated"
    assert {path.name: path.read_text() for path in sorted((CHART / "crds").iterdir())} == {
        path.name: path.read_text() for path in sorted(generated.glob("*.yaml"))
    }


@pytest.mark.parametrize("name", MATRIX)
def test_names_and_labels(chart: Chart, name: str):
    """Every object carries the recommended labels, a name that fits, and lies in the release's namespace or in none."""
    cluster_wide = {
        "ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "TokenIssuer", "ValidatingWebhookConfiguration",
    }  # fmt: skip
    watched = set(MATRIX[name].get("operator", {}).get("namespaces", ()))
    names = set()
    for item in chart.render(MATRIX[name]):
        metadata = item["metadata"]
        if item["kind"] == "CustomResourceDefinition":
            continue
        identity = (item["kind"], metadata.get("namespace"), metadata["name"])
        assert identity not in names
        names.add(identity)
        assert len(metadata["name"]) <= (253 if item["kind"] in cluster_wide else 63)
        if item["kind"] in cluster_wide:
            assert "namespace" not in metadata
        else:
            assert metadata["namespace"] in {"metagate-system", *watched}, identity
        labels = metadata["labels"]
        assert {
            "app.kubernetes.io/name",
            "app.kubernetes.io/instance",
            "app.kubernetes.io/component",
            "helm.sh/chart",
        } <= set(labels)
        if "commonLabels" in MATRIX[name]:
            assert labels["team"] == "platform"


def test_selectors_find_their_own_pods_only(chart: Chart):
    """Each Service and PodDisruptionBudget selects the pods of one workload."""
    objects = chart.render(MATRIX["defaults"])
    workloads = {
        name: item["spec"]["template"]["metadata"]["labels"]
        for kind in ("Deployment", "StatefulSet")
        for name, item in of_kind(objects, kind).items()
    }
    selectors = [value["spec"]["selector"] for value in of_kind(objects, "Service").values()]
    selectors += [
        value["spec"]["selector"]["matchLabels"] for value in of_kind(objects, "PodDisruptionBudget").values()
    ]
    assert len(selectors) == 5
    for selector in selectors:
        assert len([name for name, labels in workloads.items() if selector.items() <= labels.items()]) == 1


def test_long_release_names_fit(chart: Chart):
    """The longest release name Helm accepts still gives names that Kubernetes accepts."""
    objects = chart.render({"nameOverride": "n" * 40})
    assert max(len(obj["metadata"]["name"]) for obj in objects if "namespace" in obj["metadata"]) <= 63
