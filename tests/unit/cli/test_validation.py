"""`metagate validate` and `metagate compile`: what would happen, said with file, line and path."""

import json
from pathlib import Path
from textwrap import dedent

import pytest
from tests.unit.cli.running import metagate

HEAD = "apiVersion: metagate.legivellum.io/v1alpha1"


def test_the_examples_are_valid() -> None:
    """Every declared example passes, and says how much that was."""
    done = metagate("validate", "examples")
    assert (done.returncode, done.stdout) == (0, "")
    assert "valid" in done.stderr


@pytest.mark.invariant("INV-031")
def test_a_forbidden_key_deep_down(tmp_path: Path) -> None:
    """Three levels down inside a list: exit 1, and one line naming file, line and path, without the value."""
    path = tmp_path / "manifest.yaml"
    path.write_text(
        dedent(f"""\
        {HEAD}
        kind: Manifest
        metadata: {{name: world}}
        spec:
          environment:
            stages:
            - name: one
              hooks:
              - before:
                  Work-Items: supersecretvalue
        """)
    )
    done = metagate("validate", path)
    assert done.returncode == 1
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"{path}:10 spec.environment.stages[0].hooks[0].before.Work-Items: ForbiddenKey: ")
    assert "supersecretvalue" not in done.stdout + done.stderr


def test_findings_as_json(tmp_path: Path) -> None:
    """`-o json` has the same findings with their parts apart."""
    (tmp_path / "a.yaml").write_text(
        f"{HEAD}\nkind: Profile\nmetadata: {{name: p}}\nspec: {{startup: {{slaSeconds: 0}}}}\n"
    )
    (tmp_path / "b.yaml").write_text("kind: [\n")
    done = metagate("validate", tmp_path, "-o", "json")
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert document["valid"] is False
    assert document["objects"] == 1
    assert [(Path(finding["file"]).name, finding["line"], finding["path"]) for finding in document["findings"]] == [
        ("a.yaml", 4, "spec.startup.slaSeconds"),
        ("b.yaml", 2, ""),
    ]


def test_a_conflict_has_no_winner_offline(tmp_path: Path) -> None:
    """Two active bindings of one principal: both are named, since nobody knows which is older (D-53)."""
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(
            dedent(f"""\
            {HEAD}
            kind: PrincipalBinding
            metadata: {{name: {name}}}
            spec: {{principalRef: {{name: ada}}, profileRef: {{name: w}}, manifestRef: {{name: m}}, components: ["*"]}}
            ---
            {HEAD}
            kind: {"Principal" if name == "one" else "Profile"}
            metadata: {{name: {"ada" if name == "one" else "w"}}}
            spec: {{}}
            """)
        )
    done = metagate("validate", tmp_path)
    assert done.returncode == 1
    assert [line.split(" ", 1)[1].split(": ")[1] for line in done.stdout.splitlines()] == ["BindingConflict"] * 2


def test_a_missing_reference_is_a_note(tmp_path: Path) -> None:
    """It may exist where this is applied."""
    (tmp_path / "b.yaml").write_text(
        f"{HEAD}\nkind: PrincipalBinding\nmetadata: {{name: b}}\n"
        "spec: {principalRef: {name: a}, profileRef: {name: p}, manifestRef: {name: m}, components: []}\n"
    )
    done = metagate("validate", tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert "note: " in done.stderr
    assert "NotFound" in done.stderr


def test_twice_and_nowhere(tmp_path: Path) -> None:
    """An object declared twice is a finding; a path that does not exist ends the command."""
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text(f"{HEAD}\nkind: Profile\nmetadata: {{name: p}}\nspec: {{}}\n")
    assert "DuplicateObject" in metagate("validate", tmp_path).stdout
    lost = metagate("validate", tmp_path / "nothing")
    assert lost.returncode == 1
    assert lost.stderr == f"metagate: {tmp_path / 'nothing'}: there is no such file or directory\n"


@pytest.mark.invariant("INV-010", "INV-013")
def test_compile_prints_the_packet() -> None:
    """The 17 keys; the concierge's override holds for it alone."""
    done = metagate("compile", "examples/quickstart", "--principal", "concierge", "--component", "concierge_mail")
    assert done.returncode == 0, done.stderr
    packet = json.loads(done.stdout)
    assert len(packet) == 17
    assert packet["services"]["documents"]["endpoint"] == "http://documents-replica:7700"
    other = json.loads(
        metagate("compile", "examples/quickstart", "--principal", "indexer", "--component", "indexer_1").stdout
    )
    assert other["services"]["documents"]["endpoint"] == "http://documents:7700"
    assert other["packet_etag"] != packet["packet_etag"]


@pytest.mark.parametrize(
    ("principal", "component", "says"),
    [
        ("concierge", "indexer_1", "COMPONENT_NOT_PERMITTED"),
        ("admin", "x", "NO_BINDING"),
        ("nobody", "x", "no Principal default/nobody"),
    ],
)
def test_compile_says_why_there_is_no_packet(principal: str, component: str, says: str) -> None:
    """The code the API would answer with, in one line."""
    done = metagate("compile", "examples/quickstart", "--principal", principal, "--component", component)
    assert (done.returncode, done.stdout) == (1, "")
    assert says in done.stderr


def test_files_are_found_as_dev_finds_them(tmp_path: Path) -> None:
    """F5, F6, D-72: a List in a linked folder is read; a stray file and a link that leaves are notes with file and line."""
    item = f"- {HEAD}\n  kind: Profile\n  metadata: {{name: worker}}\n  spec: {{}}\n"
    root = tmp_path / "volume"
    (root / "..1" / "team-a").mkdir(parents=True)
    (root / "..1" / "team-a" / "w.yaml").write_text(f"apiVersion: v1\nkind: List\nitems:\n{item}")
    (root / "..data").symlink_to("..1")
    (root / "team-a").symlink_to("..data/team-a")
    (root / "values.yaml").write_text("\nreplicas: 0x_\n")
    (root / "out").symlink_to(tmp_path)
    (tmp_path / "else.yaml").write_text("{}")
    (root / "else.yaml").symlink_to(tmp_path / "else.yaml")
    done = metagate("validate", root)
    assert (done.returncode, done.stdout) == (0, "")
    notes = [line.removeprefix(f"note: {root}/") for line in done.stderr.splitlines() if line.startswith("note: ")]
    assert notes == [
        "else.yaml LinkNotFollowed: a link out of the directory is not followed",
        "out LinkNotFollowed: a link out of the directory is not followed",
        "values.yaml:2 NotAResource: has neither apiVersion nor kind, and is ignored",
    ]
    assert "1 object: valid" in done.stderr


def test_a_broken_manifest_is_told_once(tmp_path: Path) -> None:
    """Where it is declared, with what was meant; not again for each Binding that refers to it."""
    path = tmp_path / "world.yaml"
    parts = [
        "kind: Profile\nmetadata: {name: p}\nspec: {}\n",
        "kind: Manifest\nmetadata: {name: m}\nspec: {enviroment: {}}\n",
    ]
    for number in range(3):
        refs = (
            f"principalRef: {{name: a{number}}}, profileRef: {{name: p}}, manifestRef: {{name: m}}, components: ['*']"
        )
        parts.append(f"kind: PrincipalBinding\nmetadata: {{name: b{number}}}\nspec: {{{refs}}}\n")
        parts.append(f"kind: Principal\nmetadata: {{name: a{number}}}\nspec: {{}}\n")
    path.write_text("---\n".join(f"{HEAD}\n{part}" for part in parts))
    done = metagate("validate", path)
    assert done.stdout.splitlines() == [
        f"{path}:9 spec.enviroment: UnknownField: is not a field of Manifest: did you mean `environment`?"
    ]
    assert "note" not in done.stderr


def test_a_secret_that_the_profile_does_not_name_is_a_note(tmp_path: Path) -> None:
    """The files stay valid: the components start, and one service will refuse them."""
    path = tmp_path / "world.yaml"
    refs = "principalRef: {name: a}, profileRef: {name: p}, manifestRef: {name: m}, components: ['*']"
    service = "{endpoint: 'http://mail:25', auth: {scheme: basic, secretRef: mail}}"
    path.write_text(
        f"{HEAD}\nkind: Profile\nmetadata: {{name: p}}\nspec: {{}}\n---\n"
        f"{HEAD}\nkind: Principal\nmetadata: {{name: a}}\nspec: {{}}\n---\n"
        f"{HEAD}\nkind: Manifest\nmetadata: {{name: m}}\nspec: {{services: {{mail: {service}}}}}\n---\n"
        f"{HEAD}\nkind: PrincipalBinding\nmetadata: {{name: b}}\nspec: {{{refs}}}\n"
    )
    done = metagate("validate", path)
    assert done.returncode == 0
    assert f"note: {path}:16 spec: SecretRefNotDeclared: spec.profileRef: spec.services.mail.auth.secretRef" in (
        done.stdout + done.stderr
    )


def test_a_policy_profile_is_judged_with_its_rules_and_references(tmp_path: Path) -> None:
    """A CEL rule that may not be evaluated is a finding with its line; what does not resolve, and a tree that nothing bounds,
    are notes.
    """
    path = tmp_path / "policy.yaml"
    head = f"{HEAD}\nkind: PolicyProfile\nmetadata: {{name: front}}\nspec:\n  limits: {{maxSpawnDepth: 3}}\n"
    path.write_text(f"{head}  invariants:\n    rules:\n    - name: a\n      cel: payload.text.matches('(a+)+$')\n")
    done = metagate("validate", path)
    assert done.returncode == 1
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"{path}:9 spec.invariants.rules[0].cel: RuleRefused: may not call `matches`")
    path.write_text(f"{head}  shadow: {{policyProfileRef: {{name: next}}}}\n")
    done = metagate("validate", path)
    assert (done.returncode, done.stdout) == (0, "")
    notes = [line for line in done.stderr.splitlines() if line.startswith("note: ")]
    assert [note.split(": ")[2] for note in notes] == ["PolicyProfileNotFound", "TreeNotBounded"]
