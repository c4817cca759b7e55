"""What each chart renders for each set of values, as one digest per object: `python -m tests.chart.golden` writes golden.json anew.

The digests show that a change of the templates' form changed nothing else. Whoever changes what is rendered on purpose writes
them anew in the same commit. Custom resource definitions are compared with the generated ones elsewhere; passwords are new at
each rendering.
"""

import hashlib
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from tests.chart.rendering import MATRIX, NAMESPACE, RELEASE, ROOT, Chart, Object, find_helm, plain
from tests.chart.test_asyncgate import FORMS as ASYNCGATE_FORMS
from tests.chart.test_cognigate import FORMS as COGNIGATE_FORMS
from tests.chart.test_delegate import FORMS as DELEGATE_FORMS
from tests.chart.test_depotgate import FORMS as DEPOTGATE_FORMS
from tests.chart.test_interrogate import FORMS as INTERROGATE_FORMS
from tests.chart.test_legivellum import FORMS as LEGIVELLUM_FORMS
from tests.chart.test_memorygate import FORMS

FILE = Path(__file__).with_name("golden.json")
VALUES: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "metagate": MATRIX,
    "memorygate": FORMS,
    "asyncgate": ASYNCGATE_FORMS,
    "depotgate": DEPOTGATE_FORMS,
    "delegate": DELEGATE_FORMS,
    "cognigate": COGNIGATE_FORMS,
    "interrogate": INTERROGATE_FORMS,
    "legivellum": {form: LEGIVELLUM_FORMS[form] for form in ("standard", "small")},
}


def _digest(rendered: Object) -> str:
    if rendered["kind"] == "Secret":
        rendered = {**rendered, "data": sorted(rendered.get("data", {}))}
    if rendered["kind"] == "Principal" and "apiKeys" in rendered["spec"]:  # digests of keys, which are new as well
        rendered = {**rendered, "spec": {**rendered["spec"], "apiKeys": len(rendered["spec"]["apiKeys"])}}
    return hashlib.sha256(json.dumps(rendered, sort_keys=True).encode()).hexdigest()[:16]


def rendered(chart: Chart, folder: Path, values: Mapping[str, Any]) -> dict[str, str]:
    """Digests by kind, namespace and name."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(plain(values), file)
        file.flush()
        text = chart.run("template", RELEASE, str(folder), "-n", NAMESPACE, "-f", file.name)
    objects = [document for document in yaml.load_all(text, yaml.CSafeLoader) if document]
    return {
        f"{made['kind']}/{made['metadata'].get('namespace', '')}/{made['metadata']['name']}": _digest(made)
        for made in sorted(objects, key=lambda made: (made["kind"], made["metadata"]["name"]))
    }


def all_digests(chart: Chart, charts: Path) -> dict[str, dict[str, dict[str, str]]]:
    return {
        name: {form: rendered(chart, charts / name, values) for form, values in forms.items()}
        for name, forms in VALUES.items()
    }


if __name__ == "__main__":
    helm = find_helm()
    assert helm is not None, "this needs helm: make cluster-build"
    FILE.write_text(
        json.dumps(all_digests(Chart(helm), Path(sys.argv[1]) if sys.argv[1:] else ROOT / "charts"), indent=1) + "\n"
    )
