"""YAML text to documents: scalars as kubectl reads them, lines kept, broken parts named, everything bounded."""

from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
        nn: y
    """) == {
        "a": True, "b": False, "c": 420, "d": 31, "e": 1000, "f": 1000, "g": "12:30:45", "h": "2026-11-21", "i": None,
        "j": "1", "k": "true", "l": "5", "m": 1, "nn": True,
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
    assert manifest.line_of("spec.services.mail.auth") == 7
    assert manifest.line_of('spec.services["odd key"]') == 9
    assert manifest.line_of("spec.nowhere[3].else") == 5
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
        ("y: x", 1, "key must be text"),
        ("a: &a [*a]", 1, "alias"),
        ("a: *b", 1, "alias"),
        ("a: .nan", 1, "JSON"),
        ("a: !!int 0x_", 1, "tagged !!int"),
        ("a: !!bool 1", 1, "tagged !!bool"),
        ("a:\n\t- b", 2, ""),
        ("a: 'x", 1, ""),
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
    item, two, three = (
        read_documents(f"{HEAD}kind: Manifest\nmetadata: {{name: m}}\nspec: {text}\n".encode(), "f").documents[0]
        for text in ("{a: 1, b: yes}", "{b: true, a: 0x1}", "{a: 2, b: yes}")
    )
    assert item.spec_digest == two.spec_digest != three.spec_digest


def test_a_finding_has_the_line_of_its_key() -> None:
    """Not the line of its value's first child, which stands below the key."""
    (document,) = read(f"""\
        {HEAD.strip()}
        kind: Manifest
        metadata:
          name: m
        spec:
          # why
          services:

            mail:
              auth:
                - a: 1
                  b:
                    - 2
          environment: {{
            a: 1 }}
    """).documents
    lines = {"spec": 5, "spec.services": 7, "spec.services.mail": 9, "spec.services.mail.auth": 10}
    lines |= {
        "spec.services.mail.auth[0]": 11,
        "spec.services.mail.auth[0].b": 12,
        "spec.services.mail.auth[0].b[0]": 13,
    }
    lines |= {"spec.environment": 14, "spec.environment.a": 15, "metadata": 3, "metadata.name": 4}
    assert {path: document.line_of(path) for path in lines} == lines


def test_a_list_is_its_items() -> None:
    """What `kubectl get -o yaml` prints: a List, also the list of a kind, also a list in a list; lines are the items'."""
    contents = read(f"""\
        apiVersion: v1
        kind: List
        metadata: {{resourceVersion: ""}}
        items:
        - {HEAD.strip()}
          kind: Profile
          metadata: {{name: one, uid: x, resourceVersion: "5"}}
          spec:
            capabilities: {{a: 1}}
          status: {{observedGeneration: 1}}
        - apiVersion: v1
          kind: ConfigMap
        - {HEAD.strip()}
          kind: ManifestList
          items:
          - {HEAD.strip()}
            kind: Manifest
            metadata: {{name: two}}
            spec:
              version: 1
    """)
    assert [(document.kind, document.name, document.line, document.item) for document in contents.documents] == [
        ("Profile", "one", 5, "items[0]"),
        ("Manifest", "two", 16, "items[2].items[0]"),
    ]
    profile, manifest = contents.documents
    assert profile.line_of("spec.capabilities") == 9
    assert manifest.line_of("spec.version") == 20
    assert (contents.problems, contents.notes, contents.skipped) == ((), (), 1)
    assert read("apiVersion: v1\nkind: List\nitems: []") == FileContents()


def test_a_broken_item_does_not_hide_its_neighbours() -> None:
    """An item is judged like a document of its own, and its finding says which item it is."""
    contents = read(f"""\
        apiVersion: v1
        kind: List
        items:
        - {HEAD.strip()}
          kind: Profil
          metadata: {{name: one}}
        - just text
        - {HEAD.strip()}
          kind: Profile
          metadata: {{name: two}}
    """)
    assert [document.name for document in contents.documents] == ["two"]
    assert [(problem.path, problem.line) for problem in contents.problems] == [("items[0].kind", 5)]
    assert [(note.path, note.line) for note in contents.notes] == [("items[1]", 7)]
    (problem,) = read("apiVersion: v1\nkind: List\nitems: {a: 1}").problems
    assert (problem.path, problem.line) == ("items", 3)


@pytest.mark.parametrize("text", ["replicas: 3\nimage: x", "- a\n- b", "just text", "~", "metadata: {name: a}"])
def test_a_document_that_is_no_object_is_noted(text: str) -> None:
    """D-72: without apiVersion and kind it is not ours; it is named, and nothing is broken by it."""
    contents = read_documents(text.encode(), "values.yaml")
    assert [(note.file, note.line, note.reason) for note in contents.notes] == [("values.yaml", 1, "NotAResource")]
    assert (contents.documents, contents.problems, contents.broken) == ((), (), False)


VALUES = st.text("0123456789abcdefxXoOeE_+-.:~!&*|>#'\"{}[],? \n\t", max_size=40)


@given(st.lists(VALUES, max_size=4), st.binary(max_size=20))
def test_no_text_ends_the_reader(values: list[str], tail: bytes) -> None:
    """F1: whatever stands in a file is its findings, never an exception; its neighbours are read all the same."""
    odd = "".join(f"---\n{HEAD}kind: Manifest\nmetadata: {{name: m}}\nspec: {{a: {value}}}\n" for value in values)
    good = f"{HEAD}kind: Profile\nmetadata: {{name: good}}\nspec: {{}}\n"
    contents = read_documents(f"{good}{odd}---\n".encode() + tail, "f.yaml")
    if contents.documents:
        assert contents.documents[0].name == "good"
    else:
        assert [problem.message for problem in contents.problems] == ["not UTF-8"]
