"""`metagate dev`: a PlanTemplate in a file is served and shown, never in a packet; a broken one keeps the last good."""

from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from tests.integration.dev.running import DeclaredFolder, Dev, principal, resource

from legivellum.identity.api_keys import mint

pytestmark = pytest.mark.timeout(120)

ROOT = Path(__file__).resolve().parents[3]
REVIEW = yaml.safe_load((ROOT / "examples/demo/template.yaml").read_text())


def test_the_example_is_that_of_the_page() -> None:
    """People copy either."""
    page = (ROOT / "docs/kinds/plantemplate.md").read_text()
    shown = yaml.safe_load(page.split("```yaml\n")[1].split("```")[0])
    assert shown["metadata"].pop("namespace") == "team-a"
    assert shown == REVIEW


def test_a_plan_template_in_a_file(tmp_path: Path) -> None:
    """Not served before who it names is there; then in the admin view, the history and a plan, and in no packet."""
    world = DeclaredFolder(tmp_path / "resources")
    world.write("review.yaml", yaml.safe_dump(REVIEW))
    dev = Dev(world.folder, tmp_path / "data")
    try:
        dev.ready()
        with httpx.Client(base_url=dev.url, headers={"X-API-Key": world.admin.key}, timeout=10) as admin:

            def view() -> dict[str, Any]:
                answer = admin.get("/v1/admin/plan-templates/review")
                return dict(answer.json()) if answer.status_code == 200 else {}

            dev.until(lambda: any(line["name"] == "review" for line in dev.events("verdict") if not line["ready"]), 20)
            assert view() == {}
            world.write("people/on-call.yaml", principal("operator-on-call", mint(), type="principal"))
            dev.until(lambda: view() != {}, 20)
            first = view()
            assert first["spec"]["capability"] == "review"
            assert [item["key"] for item in admin.get("/v1/admin/plan-templates").json()["items"]] == ["review"]
            change = admin.get("/v1/admin/history", params={"object": "plan-template/review"}).json()["items"][-1]
            assert (change["kind"], change["how"]) == ("PlanTemplate", "added")
            changed = {**REVIEW, "spec": {**REVIEW["spec"], "deadlineSeconds": 60}}
            plan = admin.post("/v1/admin/plan", json={"resources": [changed]}).json()
            assert plan["others"] == [{"kind": "PlanTemplate", "namespace": "default", "name": "review"}]
            assert "document.summarise" not in dev.bootstrap(world.key).text
            broken = {**REVIEW["spec"], "deadlineSeconds": 0}
            read, merge = broken["steps"]
            broken["steps"] = [{**read, "authority": {}}, merge]
            world.write("review.yaml", resource("PlanTemplate", "review", broken))
            dev.until(lambda: view()["content_hash"] != first["content_hash"], 20)
            held = view()["spec"]
            assert held["deadlineSeconds"] == 3600
            assert [step["authority"] for step in held["steps"]] == [{}, merge["authority"]]
            written = admin.post("/v1/admin/plan-templates", json=changed)
            assert written.status_code == 200, written.text
            dev.until(lambda: view()["spec"]["deadlineSeconds"] == 60, 20)
            bad = {**REVIEW, "spec": {**REVIEW["spec"], "steps": [{**read, "dependsOn": ["merge"]}, merge]}}
            refused = admin.post("/v1/admin/plan-templates", json=bad)
            assert (refused.status_code, refused.json()["code"]) == (422, "INVALID_RESOURCE")
            assert "waits for itself" in refused.json()["detail"]
            assert admin.delete("/v1/admin/plan-templates/review").status_code == 204
            dev.until(lambda: view() == {}, 20)
    finally:
        assert dev.stop() == 0
