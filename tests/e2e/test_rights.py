"""What each service account of the release can do, asked of the API server and compared with the documentation."""

import re

import pytest
from tests.e2e.kubernetes import ROOT, NodeCluster
from tests.e2e.release import NAMESPACE, InstalledRelease, account

DOCUMENT = ROOT / "docs" / "install.md"
Right = tuple[str, str, str]
"""(verb, resource or URL, name)"""


def can(cluster: NodeCluster, name: str) -> set[Right]:
    output = cluster.kubectl(
        "auth", "can-i", "--list", "--as", f"system:serviceaccount:{NAMESPACE}:{name}", "-n", NAMESPACE
    )
    result: set[Right] = set()
    for line in output.splitlines()[1:]:
        match = re.fullmatch(r"(\S*)\s+\[([^\]]*)\]\s+\[([^\]]*)\]\s+\[([^\]]*)\]\s*", line)
        assert match, line
        resource, urls, names, verbs = match.groups()
        for verb in verbs.split():
            for what in [resource] if resource else urls.split():
                result |= {(verb, what, part) for part in names.split() or [""]}
    return result


def documented() -> dict[str, set[Right]]:
    """The table between the markers of docs/install.md: account, verbs, what, name."""
    text = DOCUMENT.read_text().split("<!-- rights -->")[1].split("<!-- /rights -->")[0]
    result: dict[str, set[Right]] = {}
    for line in text.splitlines():
        cells = [cell.strip().replace("`", "") for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]
        if len(cells) != 4 or cells[0] in {"Account", "---"}:
            continue
        granted = result.setdefault(cells[0], set())
        if cells[1] != "nothing":
            granted |= {(verb, what, cells[3]) for verb in cells[1].split(", ") for what in cells[2].split(", ")}
    return result


@pytest.mark.invariant("INV-030")
def test_each_account_can_do_what_is_documented(release: InstalledRelease):
    """`kubectl auth can-i --list` of every account, less what everybody can, is the table in docs/install.md."""
    release.cluster.apply(account("nobody-in-particular", NAMESPACE))
    principals = can(release.cluster, "nobody-in-particular")
    assert ("create", "selfsubjectreviews.authentication.k8s.io", "") in principals
    wanted = documented()
    assert set(wanted) == {"metagate-operator", "metagate-admission", "metagate-api", "metagate-database"}
    for name, rights in wanted.items():
        assert can(release.cluster, name) - principals == rights, name


def test_tokens_are_where_they_are_needed_only(release: InstalledRelease):
    """Pods that never call the API server hold no credential for it."""
    for workload, there in (
        ("deployment/metagate-operator", True),
        ("deployment/metagate-api", False),
        ("statefulset/metagate-database", False),
    ):
        look = "import os; print(os.path.exists('/var/run/secrets/kubernetes.io/serviceaccount/token'))"
        output = release.cluster.kubectl("-n", NAMESPACE, "exec", workload, "--", "python3", "-c", look)
        assert output.strip() == str(there), workload
