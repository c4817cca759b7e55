"""The bill of materials names what is installed, and the build takes what it needs and nothing else."""

import json
import re
import subprocess
import sys
import tomllib

from tests.chart.rendering import ROOT


def bill(*arguments: str) -> dict:
    done = subprocess.run(
        [sys.executable, str(ROOT / "deploy" / "sbom.py"), *arguments], check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout)


def test_bill_of_materials_names_every_locked_dependency_we_ask_for():
    """CycloneDX with a purl, the locked version and a licence for each requirement of the extras the image installs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requests = {
        re.split(r"[\[><=~!; ]", requirement)[0].lower()
        for extra in ("api", "operator", "interrogate", "depotgate", "delegate", "cogni", "embedded")
        for requirement in project["optional-dependencies"][extra]
    } - {"metagate"}
    locked = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    result = bill()
    assert (result["bomFormat"], result["specVersion"]) == ("CycloneDX", "1.6")
    components = {component["name"]: component for component in result["components"]}
    assert requests <= set(components)
    for name, item in components.items():
        assert item["version"] == locked[name], name
        assert item["purl"] == f"pkg:pypi/{name}@{item['version']}"
        assert item["licenses"][0].get("expression") != "unknown", name
    assert not {"pytest", "mypy", "ruff"} & set(components), "what only developers need is not in the image"


def test_the_same_content_gives_the_same_bill():
    """Serial numbers follow the content, so that two builds of one commit can be compared."""
    assert bill() == bill()
    assert bill("--extra", "api")["serialNumber"] != bill()["serialNumber"]


def test_the_image_runs_as_nobody_in_particular():
    """The Dockerfile ends as an unprivileged uid without a shell in its entry point, and stops on SIGTERM."""
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert "USER 65532:65532" in lines
    assert 'ENTRYPOINT ["metagate"]' in lines
    assert "STOPSIGNAL SIGTERM" in lines
    assert lines.index("USER 65532:65532") < lines.index("FROM runtime")
    assert not [line for line in lines[lines.index("USER 65532:65532") :] if line.startswith(("USER 0", "USER root"))]


def test_the_build_context_is_a_list_of_what_is_allowed():
    """.dockerignore refuses everything first; every path that the Dockerfile copies from the context is let in by name."""
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    for line in (ROOT / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert any(source.startswith(item) for item in allowed), source
