"""checkov finds nothing that is not justified here.

It pins a hundred packages of its own, so it is not among the locked dependencies: put one into PATH (`pipx install checkov`).
"""

import json
import shutil
import subprocess

import pytest
import yaml
from tests.chart.rendering import ENVIRONMENT, ROOT, Chart

JUSTIFIED = {
    "CKV_K8S_11": "CPU limits only throttle; CPU is requested, memory is limited",
    "CKV_K8S_15": "the pull policy is a value; tags of releases do not move",
    "CKV_K8S_35": "libpq's variables; a file would need a reader in every process, and both are the same Secret",
    "CKV_K8S_38": "operator, admission and the CRD hook call the API server; nobody else has a token",
    "CKV_K8S_43": "image.digest is a value; the chart cannot know the digest of an image that you build",
    "CKV_K8S_155": "admission renews its own CA in its own webhook configuration, by name; not with mounted certificates",
    "CKV_DOCKER_2": "the kubelet probes; an image of four roles has no one health check",
    "CKV_DOCKER_7": "stages name earlier stages",
}


def failed(checkov: str, framework: str, file: str) -> set[str]:
    done = subprocess.run(
        [checkov, "-f", file, "--framework", framework, "--output", "json", "--quiet", "--compact"],
        check=False,
        capture_output=True,
        text=True,
        env=dict(ENVIRONMENT),
    )
    document = json.loads(done.stdout)
    assert document["summary"]["passed"] > 100
    assert document["summary"]["parsing_errors"] == 0
    return {check["check_id"] for check in document["results"]["failed_checks"]}


def test_every_finding_is_justified(chart: Chart, tmp_path):
    """Over the rendered defaults and the Dockerfile: no finding without a reason above, no reason without a finding."""
    checkov = shutil.which("checkov")
    if checkov is None:
        pytest.skip("NOT RUN: checkov is not in PATH")
    rendered = tmp_path / "chart.yaml"
    rendered.write_text(yaml.safe_dump_all(chart.render({"tests": {"enabled": False}})))
    result = failed(checkov, "kubernetes", str(rendered)) | failed(checkov, "dockerfile", str(ROOT / "Dockerfile"))
    assert result == set(JUSTIFIED)
