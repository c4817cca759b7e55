"""The CRDs are what the models say, in the dialect that Kubernetes accepts."""

from pathlib import Path

import pytest
import yaml

from metagate_crds.crd_yaml import crd_documents, crd_files, crd_yaml
from metagate_crds.kinds import KINDS
from metagate_crds.models import SPECS

GENERATED = Path(__file__).parents[3] / "crds" / "generated"
ALLOWED = {
    "additionalProperties", "default", "description", "enum", "format", "items", "maxItems", "maxLength", "maxProperties",
    "maximum", "minItems", "minLength", "minimum", "pattern", "properties", "required", "type",
    "x-kubernetes-list-map-keys", "x-kubernetes-list-type", "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
}  # fmt: skip
BY_KIND = {document["spec"]["names"]["kind"]: document for document in crd_documents()}


def version(kind):
    (only,) = BY_KIND[kind]["spec"]["versions"]
    return only


def schema(kind):
    return version(kind)["schema"]["openAPIV3Schema"]


def nodes(node, path="spec"):
    yield path, node
    for name, part in node.get("properties", {}).items():
        yield from nodes(part, f"{path}.{name}")
    if "items" in node:
        yield from nodes(node["items"], f"{path}[]")
    if isinstance(node.get("additionalProperties"), dict):
        yield from nodes(node["additionalProperties"], f"{path}.*")


def test_the_generated_files_are_up_to_date():
    """`make crds` writes them; whoever changes a model runs it."""
    assert {path.name: path.read_text() for path in GENERATED.glob("*.yaml")} == crd_files()


def test_the_stream_is_all_files():
    """`metagate crds` prints what `kubectl apply -f -` reads."""
    assert list(yaml.safe_load_all(crd_yaml())) == crd_documents()
    assert crd_yaml() == crd_yaml()
    assert "&id" not in crd_yaml()


@pytest.mark.parametrize("kind", KINDS)
def test_schemas_are_structural(kind):
    """Every node has a type or may be anything, nothing alternates or refers, and objects with fields list no others."""
    for path, node in nodes(schema(kind)):
        assert set(node) <= ALLOWED, path
        if "type" not in node:
            assert node["x-kubernetes-preserve-unknown-fields"], path
            continue
        assert node["type"] in {"object", "array", "string", "integer", "boolean"}, path
        assert not ("properties" in node and "additionalProperties" in node), path
        if node["type"] == "array":
            assert node["maxItems"], path
            assert "items" in node, path
        if node["type"] == "object" and path.startswith("spec.spec"):
            free = node.get("x-kubernetes-preserve-unknown-fields", False)
            assert free != bool(node.get("properties") or node.get("additionalProperties")), path


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_of_a_spec_is_described_and_bounded(kind):
    """`kubectl explain` has something to say, and CEL's cost has a limit."""
    spec = schema(kind)["properties"]["spec"]
    assert set(spec["properties"]) == {field.alias for field in SPECS[kind].model_fields.values()}
    for path, node in nodes(spec):
        if not path.endswith(("[]", ".*")):
            assert node.get("description"), path
        if node.get("type") == "string" and "enum" not in node:
            assert node.get("maxLength"), path
        if "additionalProperties" in node:
            assert node.get("maxProperties"), path


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_reads_well_in_kubectl(kind):
    """Names, columns, status, categories."""
    names, served_version = BY_KIND[kind]["spec"]["names"], version(kind)
    assert names["categories"] == ["metagate"]
    assert names["shortNames"]
    assert BY_KIND[kind]["spec"]["scope"] == ("Cluster" if kind == "TokenIssuer" else "Namespaced")
    columns = [column["name"] for column in served_version["additionalPrinterColumns"]]
    assert columns[:2] == ["Ready", "Status"]
    assert "Age" in columns
    assert served_version["subresources"] == {"status": {}}
    status = schema(kind)["properties"]["status"]
    assert status["default"] == {"observedGeneration": -1}
    assert {"observedGeneration", "conditions", "snapshot"} <= set(status["properties"])


def test_references_are_selectable():
    """`kubectl get pb --field-selector spec.manifestRef.name=prod`."""
    paths = [item["jsonPath"] for item in version("PrincipalBinding")["selectableFields"]]
    assert paths == [".spec.principalRef.name", ".spec.profileRef.name", ".spec.manifestRef.name"]


def test_short_names_are_distinct_and_bindings_are_not_the_core_groups():
    """`kubectl get bindings` would ask the core group (D-55)."""
    short = [name for kind in KINDS.values() for name in kind.short]
    assert len(short) == len(set(short))
    assert BY_KIND["PrincipalBinding"]["spec"]["names"]["plural"] == "principalbindings"
    assert "pb" in BY_KIND["PrincipalBinding"]["spec"]["names"]["shortNames"]


def test_free_form_leaves_are_the_contracts():
    """Nothing else may hold what nobody checked."""
    free = {
        path.removeprefix("spec.spec.")
        for kind in KINDS
        for path, node in nodes(schema(kind))
        if node.get("x-kubernetes-preserve-unknown-fields")
    }
    assert free == {
        "capabilities",
        "policy",
        "environment",
        "memoryMap",
        "services.*.metadata",
        "jwks.inline.keys[]",
        "capabilities[].inputSchema",
        "capabilities[].tool.definition.inputSchema",
        "capabilities[].tool.definition.outputSchema",
        "capabilities[].tool.definition.annotations",
        "parameters",
        "steps[].job.inputs[].value",
        "steps[].job.output.schema",
        "steps[].job.settings",
        "steps[].plan.parameters",
        *(
            f"overrides.{name}"
            for name in ("capabilities", "policy", "services", "memoryMap", "polling", "schemas", "environment")
        ),
    }
