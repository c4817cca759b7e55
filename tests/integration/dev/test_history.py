"""plan, explain, history, diff, rollback and doctor, as people use them on a running `metagate dev`."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
import yaml
from tests.databases import embedded_postgres
from tests.integration.dev.running import DeclaredFolder, Dev, binding, manifest, principal, resource
from tests.unit.cli.running import metagate

from legivellum.identity.api_keys import mint

pytestmark = pytest.mark.timeout(180)
HOSTILE = "\x1b[31mred\x1b]0;title\x07 \u202etxt.exe <img src=x onerror=alert(1)> ```"


class DevFixture:
    """A running dev, its world, and its admin at the command line."""

    def __init__(self, dev: Dev, world: DeclaredFolder, key_file: Path, dsn: str) -> None:
        self.dev, self.world, self.key_file, self.dsn = dev, world, key_file, dsn

    def cli(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return metagate(*arguments, METAGATE_URL=self.dev.url, METAGATE_API_KEY_FILE=str(self.key_file))

    def api(self, path: str, key: str = "", **params: Any) -> httpx.Response:
        return httpx.get(f"{self.dev.url}{path}", params=params, headers={"X-API-Key": key or self.world.admin.key})

    @property
    def revision(self) -> int:
        return int(httpx.get(f"{self.dev.url}/readyz").json()["revision"])

    def declare(self, name: str, text: str) -> int:
        """Write a file and wait until it is served; the revision."""
        before = self.revision
        self.world.write(name, text)
        self.dev.until(lambda: self.revision > before, 10)
        return self.revision


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevFixture]:
    folder = tmp_path_factory.mktemp("past")
    world = DeclaredFolder(folder / "resources")
    key_file = folder / "admin.key"
    key_file.write_text(world.admin.key)
    (folder / "pg").mkdir(mode=0o755)
    with embedded_postgres(folder / "pg") as server:
        dsn = server.dsn(tcp=True)
        dev = Dev(world.folder, folder / "data", "--database-url", dsn)
        try:
            yield DevFixture(dev.ready(), world, key_file, dsn)
        finally:
            if dev.process.poll() is None:
                dev.stop()


def test_explain_a_startup_after_the_world_moved_on(deployment: DevFixture) -> None:
    """Each leaf of the packet it got then, from the generations of then; the packet of now says the new ones."""
    answer = deployment.dev.bootstrap(deployment.world.key).json()
    startup = answer["startup"]["startup_id"]
    deployment.declare("manifest.yaml", manifest("north"))
    deployment.declare("bindings.yaml", binding("ada", overrides={"capabilities": {"write": True}}))
    then = deployment.api(f"/v1/admin/explain/startup/{startup}").json()
    assert then["digest"] == answer["snapshot"]["digest"]
    leaves = {leaf["path"]: leaf for leaf in then["leaves"]}
    assert leaves["/environment/region"]["value"] == "eu"
    assert (leaves["/environment/region"]["layer"], leaves["/environment/region"]["origin"]) == (
        "manifest",
        "/spec/environment/region",
    )
    assert "/capabilities/write" not in leaves
    now = deployment.api("/v1/admin/explain/principal/ada").json()
    leaves = {leaf["path"]: leaf for leaf in now["leaves"]}
    assert leaves["/environment/region"]["value"] == "north"
    assert leaves["/capabilities/write"]["layer"] == "override"
    generations = {obj["kind"]: obj["generation"] for obj in now["objects"]}
    assert generations["Manifest"] == {obj["kind"]: obj["generation"] for obj in then["objects"]}["Manifest"] + 1
    output = deployment.cli("explain", f"startup/{startup}")
    assert output.returncode == 0, output.stderr
    assert "the same to the byte" in output.stdout
    [row] = [line.split() for line in output.stdout.splitlines() if line.startswith("/environment/region")]
    assert row == ["/environment/region", '"eu"', "manifest", "Manifest", "world", "/spec/environment/region"]


def test_a_broken_update_is_explained_by_the_last_good_one(deployment: DevFixture) -> None:
    """A Manifest that is broken now: the leaf names the generation that is served (D-20)."""
    deployment.declare("manifest.yaml", manifest("good"))
    good = deployment.api("/v1/admin/explain/principal/ada").json()
    deployment.world.write("manifest.yaml", resource("Manifest", "world", {"nonsense": 1}))
    deployment.dev.until(lambda: any(not event["ready"] for event in deployment.dev.events("verdict")))
    startup = deployment.dev.bootstrap(deployment.world.key).json()["startup"]["startup_id"]
    assert deployment.api(f"/v1/admin/explain/startup/{startup}").json()["objects"] == good["objects"]
    deployment.declare("manifest.yaml", manifest("better"))


def test_what_was_planned_is_what_is_served(deployment: DevFixture, tmp_path: Path) -> None:
    """The digests that plan prints, by file and by API, are those of the packets after it was applied."""
    draft = tmp_path / "draft"
    draft.mkdir()
    new = mint()
    (draft / "all.yaml").write_text(
        "---\n".join([manifest("planned"), principal("eve", new), binding("eve", overrides={"policy": {"n": 1.5e300}})])
    )
    planned = deployment.cli("plan", draft, "-o", "json")
    assert planned.returncode == 2, planned.stderr
    document = json.loads(planned.stdout)
    digests = {
        principal["name"]: principal["digest"] for effect in document["effects"] for principal in effect["principals"]
    }
    assert digests.keys() == {"ada", "eve"}
    assert {effect["packet"] for effect in document["effects"]} == {"changed", "added"}
    resources = list(yaml.safe_load_all((draft / "all.yaml").read_text()))
    answer = httpx.post(
        f"{deployment.dev.url}/v1/admin/plan",
        json={"resources": resources},
        headers={"X-API-Key": deployment.world.admin.key},
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["effects"] == document["effects"]
    deployment.world.write("manifest.yaml", manifest("planned"))
    deployment.world.write("eve.yaml", (draft / "all.yaml").read_text().partition("---\n")[2])
    deployment.dev.until(lambda: deployment.dev.bootstrap(new).status_code == 200, 10)
    deployment.dev.until(lambda: deployment.dev.region(deployment.world.key) == "planned", 10)
    served = {"ada": deployment.dev.bootstrap(deployment.world.key).json(), "eve": deployment.dev.bootstrap(new).json()}
    assert {name: packet["snapshot"]["digest"] for name, packet in served.items()} == digests
    assert deployment.api(f"/v1/admin/explain/startup/{served['eve']['startup']['startup_id']}").status_code == 200
    again = deployment.cli("plan", draft)
    assert (again.returncode, again.stdout.strip()) == (
        0,
        "No changes: what is declared is what would be.",
    )


def test_history_diff_and_rollback(deployment: DevFixture) -> None:
    """What changed in which revision, how the objects differ, and the objects as they were, ready to be applied."""
    first = deployment.declare("manifest.yaml", manifest("first"))
    second = deployment.declare("manifest.yaml", manifest("second"))
    listed = deployment.api("/v1/admin/history", object="manifest/world").json()["items"]
    assert [item["revision"] for item in listed][:2] == [second, first]
    assert (listed[0]["how"], listed[0]["generation"]) == ("changed", listed[1]["generation"] + 1)
    assert listed[0]["before_digest"] == listed[1]["after_digest"]
    pages, cursor = [], None
    while True:
        page = deployment.api(
            "/v1/admin/history", object="principal/ada", limit=1, **({"cursor": cursor} if cursor else {})
        ).json()
        pages += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    whole = deployment.api("/v1/admin/history", object="principal/ada").json()["items"]
    assert pages == whole
    assert {item["kind"] for item in whole} == {"Principal", "PrincipalBinding"}
    assert whole[0]["packet_digest"] == deployment.dev.bootstrap(deployment.world.key).json()["snapshot"]["digest"]
    document = json.loads(deployment.cli("diff", str(first), str(second), "-o", "json").stdout)
    assert [(item["kind"], item["differences"]) for item in document] == [
        ("Manifest", [{"path": "/spec/environment/region", "before": "first", "after": "second"}])
    ]
    printed = deployment.cli("rollback", str(first))
    assert printed.returncode == 0, printed.stderr
    [back] = yaml.safe_load_all(printed.stdout)
    assert back == yaml.safe_load(resource("Manifest", "world", back["spec"], "default"))
    assert back["spec"] == yaml.safe_load(manifest("first"))["spec"]
    assert f"{second}" in deployment.cli("history").stdout
    assert deployment.cli("rollback", "999999").returncode == 1
    wrong = deployment.cli("history", "pod/x")
    assert (wrong.returncode, "KIND/NAME" in wrong.stderr) == (1, True)


def test_what_cannot_be_rebuilt_is_said_loudly(deployment: DevFixture) -> None:
    """Somebody rewrote what was declared: 409 NOT_REBUILT, exit 1 in capitals, an error in the log; never a guess."""
    startup = deployment.dev.bootstrap(deployment.world.key).json()["startup"]["startup_id"]
    _forge(deployment, "north-by-forgery")
    answer = deployment.api(f"/v1/admin/explain/startup/{startup}")
    assert (answer.status_code, answer.json()["code"]) == (409, "NOT_REBUILT")
    assert "forgery" not in answer.text
    output = deployment.cli("explain", f"startup/{startup}")
    assert output.returncode == 1
    assert "THE ANSWER CANNOT BE REBUILT" in output.stderr
    assert deployment.dev.events("not_rebuilt")


def _forge(deployment: DevFixture, region: str) -> None:
    """Change the declared Manifest behind the objects' back, as its owner."""

    async def write() -> None:
        connection = await asyncpg.connect(deployment.dsn)
        await connection.execute(
            "UPDATE metagate.declared SET spec = jsonb_set(spec, '{environment,region}', to_jsonb($1::text)) "
            "WHERE kind = 'Manifest'",
            region,
        )
        await connection.close()

    asyncio.run(write())


def test_admins_of_this_tenant_only(deployment: DevFixture) -> None:
    """Anonymous 401, a component 403, another tenant's id 403: on each of the endpoints, and nothing of it is told."""
    other = "00000000-0000-4000-8000-000000000000"
    startup = deployment.dev.bootstrap(deployment.world.key).json()["startup"]["startup_id"]
    for path in (
        "/v1/admin/explain/principal/ada",
        f"/v1/admin/explain/startup/{startup}",
        "/v1/admin/history",
        "/v1/admin/history/objects",
    ):
        assert httpx.get(f"{deployment.dev.url}{path}").status_code == 401
        assert deployment.api(path, key=deployment.world.key.key).json()["code"] == "ROLE_REQUIRED"
        assert deployment.api(path, tenant=other).json()["code"] == "TENANT_MISMATCH"
    assert deployment.api(f"/v1/admin/explain/startup/{other}").json()["code"] == "SESSION_NOT_FOUND"
    assert deployment.api("/v1/admin/explain/principal/nobody").status_code == 404


@pytest.mark.invariant("EXT-10")
def test_digests_of_keys_are_shown_only_when_asked_for(deployment: DevFixture) -> None:
    """A list of what is declared shows no material of API keys; who wants to apply a Principal again asks for it."""

    def keys(**query: str) -> list[dict[str, Any]]:
        items = deployment.api("/v1/admin/history/objects", **query).json()["items"]
        return [key for item in items if item["kind"] == "Principal" for key in item["spec"].get("apiKeys", [])]

    assert {name for key in keys() for name in key} <= {"id", "expiresAt"}
    assert deployment.world.key.id in {key["id"] for key in keys()}
    assert deployment.world.key.sha256 in {key["sha256"] for key in keys(key_digests="true")}
    assert deployment.world.key.sha256 not in deployment.api("/v1/admin/history/objects").text


def test_hostile_values_are_text(deployment: DevFixture, tmp_path: Path) -> None:
    """Escape sequences, marks that turn text around and Markdown: spelt out in every output."""
    file = tmp_path / "hostile.yaml"
    file.write_text(resource("Manifest", "world", {"environment": {HOSTILE: HOSTILE}}))
    outputs = [deployment.cli("plan", file, "-o", name).stdout for name in ("wide", "markdown", "json", "yaml")]
    deployment.declare("manifest.yaml", resource("Manifest", "world", {"environment": {"x": HOSTILE}}))
    newest = deployment.revision
    outputs.append(deployment.cli("explain", "principal/ada").stdout)
    outputs.append(deployment.cli("diff", str(newest - 1), str(newest)).stdout)
    deployment.declare("manifest.yaml", manifest("calm"))
    outputs.append(deployment.cli("rollback", str(newest)).stdout)
    for output in outputs:
        assert "red" in output
        assert not any(char in output for char in "\x1b\x07\u202e")
    markdown = outputs[1].splitlines()
    fences = [line for line in markdown if line.startswith("````")]
    assert len(fences) >= 2


def test_doctor_says_what_is_wrong(deployment: DevFixture, tmp_path: Path) -> None:
    """All well: exit 0. No server, a component's key, a broken file: exit 1, and what to do."""
    well = deployment.cli("doctor", "--resources", deployment.world.folder)
    assert well.returncode == 0, well.stdout + well.stderr
    away = metagate("doctor", "--url", "http://127.0.0.1:9", METAGATE_API_KEY_FILE=str(deployment.key_file))
    assert (away.returncode, "does not answer" in away.stdout) == (1, True)
    key = tmp_path / "ada.key"
    key.write_text(deployment.world.key.key)
    weak = metagate("doctor", "--url", deployment.dev.url, "--key-file", key)
    assert (weak.returncode, "admin is needed" in weak.stdout) == (1, True)
    broken = tmp_path / "broken.yaml"
    broken.write_text(resource("Manifest", "world", {"nonsense": 1}))
    assert metagate("doctor", "--resources", broken).returncode == 1
    for place in range(25):
        (tmp_path / f"broken-{place}.yaml").write_text("kind: [")
    many = metagate("doctor", "--resources", tmp_path).stdout
    assert re.search(r"files: \d+ findings more$", many, re.MULTILINE), many
    assert many.count("InvalidYAML") <= 20
    assert metagate("doctor").returncode == 1


def test_principals_and_startups_are_listed(deployment: DevFixture) -> None:
    """Who is declared and what it is bound to; who started, by status; nothing is cut without a word."""
    opened = [
        deployment.dev.bootstrap(deployment.world.key, f"part-{place}").json()["startup"]["startup_id"]
        for place in range(3)
    ]
    listed = deployment.cli("principals")
    assert re.search(r"^ada +component +ada +active$", listed.stdout, re.MULTILINE), listed.stdout + listed.stderr
    assert re.search(r"^admin +admin +- +active$", listed.stdout, re.MULTILINE)
    failed = httpx.post(
        f"{deployment.dev.url}/v1/startup/failed",
        json={"startup_id": opened[0], "error": "no \x1b[31mmodel"},
        headers={"X-API-Key": deployment.world.key.key},
    )
    assert failed.status_code == 200
    rows = deployment.cli("startups", "--status", "failed")
    assert re.search(
        rf"^{opened[0][-8:]} +part-0 +ada +FAILED +\d+s ago +no \\u001b\[31mmodel$", rows.stdout, re.MULTILINE
    )
    assert opened[0] in deployment.cli("startups", "--status", "FAILED", "-o", "wide").stdout
    assert {item["startup_id"] for item in json.loads(deployment.cli("startups", "-o", "json").stdout)} >= {*opened}
    cut = deployment.cli("startups", "--limit", "1", "--component", "part-2")
    assert (opened[2][-8:] in cut.stdout, "there are more" in cut.stderr) == (True, False)
    cut = deployment.cli("startups", "--limit", "2")
    assert (len(cut.stdout.splitlines()), "there are more: --limit" in cut.stderr) == (3, True)
    output = deployment.cli("startups", "--component", "part-9")
    assert (output.returncode, output.stdout, output.stderr) == (0, "", "none\n")


@pytest.mark.parametrize(
    ("command", "named"),
    [
        (("history", "principal/nobody"), "principal/nobody: there is none"),
        (("history", "principal/nobody", "-o", "json"), "principal/nobody: there is none"),
        (("explain", "principal/nobody"), "principal/nobody: there is none (`metagate principals` lists them)"),
        (("explain", "startup/00000000-0000-7000-8000-000000000000"), "00000000-0000-7000-8000-000000000000: there is none"),
        (("diff", "1", "999999"), "revision 999999: there is none (`metagate history` lists them)"),
        (("rollback", "999999"), "revision 999999: there is none"),
    ],
)  # fmt: skip
def test_what_does_not_exist_is_named(deployment: DevFixture, command: tuple[str, ...], named: str) -> None:
    """Exit 1, nothing on standard output, and the word that was typed."""
    done = deployment.cli(*command)
    assert (done.returncode, done.stdout) == (1, "")
    assert named in done.stderr


def test_doctor_leaves_nobody_out_in_silence(deployment: DevFixture) -> None:
    """FAILED ones are counted; of a long list the rest is counted, and -o wide names all; who only looks needs no Binding."""
    startup = deployment.dev.bootstrap(deployment.world.key, "broken").json()["startup"]["startup_id"]
    httpx.post(
        f"{deployment.dev.url}/v1/startup/failed",
        json={"startup_id": startup, "error": "no"},
        headers={"X-API-Key": deployment.world.key.key},
    ).raise_for_status()
    before = deployment.revision
    deployment.world.write("people/watcher.yaml", principal("watcher", mint(), type="observer"))
    deployment.world.write("people/gate.yaml", principal("gate", mint(), type="service"))
    names = [f"lonely-{place:02}" for place in range(13)]
    deployment.world.write("people/lonely.yaml", "---\n".join(principal(name, mint()) for name in names))
    deployment.dev.until(lambda: deployment.revision > before, 10)
    deployment.dev.until(lambda: "lonely-12" in deployment.cli("principals").stdout, 20)
    looked = deployment.cli("doctor")
    assert looked.returncode == 0, looked.stdout
    assert re.search(r"^note +startups: \d+ FAILED: .*broken", looked.stdout, re.MULTILINE), looked.stdout
    [unbound] = [line for line in looked.stdout.splitlines() if "not bound" in line]
    assert "and 3 more (-o wide names them)" in unbound
    assert "watcher" not in unbound
    assert "gate" not in unbound
    assert "lonely-12" in deployment.cli("doctor", "-o", "wide").stdout
