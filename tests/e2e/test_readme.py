"""README's path on a cluster, line by line as it stands there, on a cluster that has never seen MetaGate."""

from collections.abc import Callable

from tests.docs.typed import BLOCK, ROOT, commands
from tests.e2e.kubernetes import NodeCluster, eventually, volume
from tests.e2e.release import IMAGE, NAME, NAMESPACE

BRINGING = ["make image", f"kind load docker-image {IMAGE} {IMAGE}-embedded"]
"""How images come to the nodes: prerequisites and the recipe of the test cluster did the same, under the same names."""


def lines() -> list[str]:
    section = (ROOT / "README.md").read_text().partition("## Five minutes on a cluster\n")[2].partition("\n## ")[0]
    [block] = BLOCK.findall(section)
    return commands(block)


def forget(cluster: NodeCluster) -> None:
    """Whatever other chapters left behind, down to the kinds."""
    cluster.helm("uninstall", NAME, "-n", NAMESPACE, "--ignore-not-found", "--wait", "--timeout", "3m")
    cluster.kubectl("delete", "namespace", NAMESPACE, "agents", "--ignore-not-found", "--timeout=120s")
    kinds = [name for name in cluster.kubectl("get", "crds", "-o", "name").split() if "metagate.legivellum.io" in name]
    if kinds:
        cluster.kubectl("delete", *kinds, "--timeout=60s")
    volume(cluster, "readme")


def test_every_line_of_the_path_works(cluster: NodeCluster, say: Callable[[str], None]) -> None:
    """After the two that bring the images, each is run by a shell in the root of the checkout, and ends with 0."""
    typed = lines()
    assert typed[: len(BRINGING)] == BRINGING
    forget(cluster)

    def run(line: str) -> str:
        return cluster.run("sh", "-ec", f"cd '{ROOT}' && {line}")

    for line in typed[len(BRINGING) : -1]:
        run(line)
    # Rolled out means started; its first words may take the interpreter a moment.
    eventually(lambda: "woke up as archivist" in run(typed[-1]), within=30)
    say(f"README's path on a cluster: {len(typed)} lines")
