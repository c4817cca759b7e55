"""What the charts of all gates promise alike: values of a known shape, and pods that may no more than they need."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml
from tests.chart import test_asyncgate, test_cognigate, test_delegate, test_depotgate, test_interrogate, test_memorygate
from tests.chart.rendering import ROOT, Chart, containers
from tests.chart.test_lint import _untyped
from tests.chart.test_memorygate import everything, helm, rendered

CHARTS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "memorygate": test_memorygate.FORMS,
    "interrogate": test_interrogate.FORMS,
    "asyncgate": test_asyncgate.FORMS,
    "depotgate": test_depotgate.FORMS,
    "delegate": test_delegate.FORMS,
    "cognigate": test_cognigate.FORMS,
}
"""By chart: values that people install it with."""


def of_each() -> Iterator[Any]:
    for chart, forms in CHARTS.items():
        for form, values in forms.items():
            yield pytest.param(chart, values, id=f"{chart}-{form}")


@pytest.mark.parametrize(("name", "values"), list(of_each()))
def test_lints_strictly(chart: Chart, name: str, values: Mapping[str, Any]):
    """helm lint --strict finds nothing."""
    assert "0 chart(s) failed" in helm(chart, values, "lint", "--strict", str(ROOT / "charts" / name))


@pytest.mark.parametrize("name", CHARTS)
def test_schema_types_every_value(name: str):
    """values.schema.json has a type for every key of values.yaml, knows no other key and allows no other."""
    folder = ROOT / "charts" / name
    schema = json.loads((folder / "values.schema.json").read_text())
    untyped = _untyped(yaml.safe_load((folder / "values.yaml").read_text()), schema, schema["definitions"], "values")
    keys = (
        "values.global",
        "values.gate-lib",
        "values.enabled",
        "values.resources.limits.cpu",
        "values.migration.resources.limits.cpu",
    )
    assert set(untyped) <= {f"{key} is only in the schema" for key in keys}


@pytest.mark.parametrize(("name", "values"), list(of_each()))
def test_pods_are_restricted(chart: Chart, name: str, values: Mapping[str, Any]):
    """No root, no file system that can be written but volumes of a bounded size, no token, no service links, bounded memory."""
    pods = everything(rendered(chart, values, name, ROOT / "charts" / name))
    # DeleGate and CogniGate have nothing to migrate.
    assert len(pods) >= (1 if name in {"delegate", "cognigate"} else 2)
    for owner, _, spec in pods:
        assert spec["automountServiceAccountToken"] is False, owner
        assert spec["enableServiceLinks"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for volume in spec["volumes"]:
            assert "sizeLimit" in volume.get("emptyDir", {"sizeLimit": ""}), owner
        for container in containers(spec):
            # CogniGate is a component that boots: `metagate run` starts it.
            assert container["command"] == ["metagate" if name == "cognigate" else name]
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert "memory" in container["resources"]["limits"]
