"""YAML text to documents: scalars as kubectl reads them, lines kept, broken parts named, everything bounded."""

from textwrap import dedent

import pytest

from metagate_operator.sources.documents import MAX_BYTES, FileContents, read_documents

HEAD = "apiVersion: metagate.legivellum.io/v1alpha1\n"


def read(text: str) -> FileContents:
    return read_documents(dedent(text).encode(), "f.yaml")


def spec(text: str) -> object:
    """The spec of a Manifest whose spec is this text."""
    indented = "".join(f"  {line}\n" for line in dedent(text).strip().splitlines())
    contents = read_documents(f"{HEAD}kind: Manifest\nmetadata: {{name: m}}\nspec:\n{indented}".encode(), "f.yaml")
    assert contents.problems == ()
    return contents.documents[0].spec


def test_scalars_are_those_of_kubectl() -> None:
    """YAML 1.1 booleans and octals, JSON numbers; dates and sexagesimal numbers stay text."""
    assert spec("""
        a: yes
        b: Off
        c: 0644
        d: 0x1f
        e: 1_000
        f: 1e3
        g: 12:30:45
        h: 2026-11-21
        i: ~
        j: "1"
        k: 'true'
        l: !!str 5
        m: 1.
        n: y
    """) == {
        "a": True, "b": False, "c": 420, "d": 31, "e": 1000, "f": 1000.0, "g": "12:30:45", "h": "2026-11-21", "i": None,
        "j": "1", "k": "true", "l": "5", "m": 1.0, "n": "y",
    }  # fmt: skip


def test_aliases_and_merge_keys() -> None:
    """An anchor is repeated where it is named; a merged mapping never overrides what is spelled out."""
    assert spec("""
        base: &base {a: 1, b: [x]}
        copy: *base
        merged:
          <<: *base
          a: 2
    """) == {"base": {"a": 1, "b": ["x"]}, "copy": {"a": 1, "b": ["x"]}, "merged": {"a": 2, "b": ["x"]}}


def test_documents_keep_the_lines_of_everything() -> None:
    """A finding's path leads to its line, an unknown one to the line of its nearest parent."""
    contents = read(f"""\
        # a comment
        {HEAD.strip()}
        kind: Manifest
        metadata: {{name: m, namespace: team}}
        spec:
          services:
            mail:
              endpoint: x
            "odd key": 1
        ---
        {HEAD.strip()}
        kind: PrincipalBinding
        metadata:
          name: b
        spec:
          components:
          - a
          - b
    """)
    manifest, binding = contents.documents
    assert (manifest.namespace, binding.namespace) == ("team", "default")
    assert manifest.line == 2
    assert manifest.line_of("spec.services.mail.endpoint") == 8
    assert manifest.line_of("spec.services.mail.auth") == 8
    assert manifest.line_of('spec.services["odd key"]') == 9
    assert manifest.line_of("spec.nowhere[3].else") == 6
    assert binding.line == 11
    assert binding.line_of("spec.components[1]") == 18


def test_a_broken_document_does_not_hide_its_neighbours() -> None:
    """Each document is parsed for itself; the broken one is named with its line."""
    contents = read(f"""\
        {HEAD.strip()}
        kind: Profile
        metadata: {{name: one}}
        ---
        kind: [
        ---
        {HEAD.strip()}
        kind: Profile
        metadata: {{name: two}}
    """)
    assert [document.name for document in contents.documents] == ["one", "two"]
    assert [(problem.line, problem.reason) for problem in contents.problems] == [(6, "InvalidYAML")]
    assert contents.broken


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("a: 1\na: 2", 2, "twice"),
        ("a: !!python/object/apply:os.system [id]", 1, "tag"),
        ("? [a]\n: 1", 1, "key must be text"),
        ("1: x", 1, "key must be text"),
        ("a: &a [*a]", 1, "alias"),
        ("a: *b", 1, "alias"),
        ("a: .nan", 1, "JSON"),
        ("a: 1e999", 1, "too large"),
        ("a: " + "9" * 60, 1, "too long"),
        ("a:\n\t- b", 2, ""),
        ("a: 'x", 1, ""),
        ("- a", 1, "mapping"),
        ("kind: Profile", 1, "apiVersion|must be"),
        ("<<: 5\nb: 1", 1, "needs a mapping"),
    ],
)
def test_what_is_refused(text: str, line: int, says: str) -> None:
    """Whatever cannot be read safely is one problem with its line, never an exception."""
    (problem,) = read_documents(text.encode(), "f.yaml").problems
    assert problem.line in {line, line + 1}
    assert any(part in problem.message for part in says.split("|"))


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("apiVersion: metagate.legivellum.io/v1beta1\nkind: Profile\nmetadata: {name: a}", "apiVersion"),
        ("apiVersion: v1\nkind: Profile\nmetadata: {name: a}", "apiVersion"),
        (f"{HEAD}kind: Profil\nmetadata: {{name: a}}", "kind"),
        (f"{HEAD}kind: Profile", "metadata"),
        (f"{HEAD}kind: Profile\nmetadata: {{name: ../../etc}}", "metadata.name"),
        (f"{HEAD}kind: Profile\nmetadata: {{name: A}}", "metadata.name"),
        (f"{HEAD}kind: Profile\nmetadata: {{name: a, namespace: a/b}}", "metadata.namespace"),
        (f"{HEAD}kind: TokenIssuer\nmetadata: {{name: a, namespace: b}}", "metadata.namespace"),
        (f"{HEAD}kind: Profile\nmetadata: {{name: a}}\nspecs: {{}}", "specs"),
    ],
)
def test_what_is_not_an_object_of_ours(text: str, path: str) -> None:
    """A document that means to be ours and is not says which field."""
    (problem,) = read_documents(text.encode(), "f.yaml").problems
    assert (problem.path, problem.reason) == (path, "InvalidDocument")


def test_other_kinds_are_skipped() -> None:
    """A directory may hold what other tools read; empty documents are nothing."""
    contents = read("apiVersion: v1\nkind: ConfigMap\n---\n---\n# only a comment\n...\n")
    assert (contents.documents, contents.problems, contents.skipped) == ((), (), 1)


def test_bombs_are_bounded() -> None:
    """Aliases count for what they expand to, nesting and size have limits."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    (bomb,) = read("\n".join(lines)).problems
    assert "values" in bomb.message
    (deep,) = read_documents(b"a: " + b"[" * 200_000, "f").problems
    assert "deeper" in deep.message
    (large,) = read_documents(b"#" * (MAX_BYTES + 1), "f").problems
    assert "MiB" in large.message


@pytest.mark.parametrize("raw", [b"a: \x00", b"\xff\xfe\x00", b"a: \xed\xa0\x80", b"a: \x07"])
def test_bytes_that_are_no_text(raw: bytes) -> None:
    """Neither invalid UTF-8 nor control characters get through."""
    assert read_documents(raw, "f").broken


def test_the_digest_follows_the_values() -> None:
    """Order and spelling of a spec do not change its digest; a value does."""
    one, two, three = (
        read_documents(f"{HEAD}kind: Manifest\nmetadata: {{name: m}}\nspec: {text}\n".encode(), "f").documents[0]
        for text in ("{a: 1, b: yes}", "{b: true, a: 0x1}", "{a: 2, b: yes}")
    )
    assert one.spec_digest == two.spec_digest != three.spec_digest
