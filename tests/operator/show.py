"""Writes docs/status.md: what kubectl shows, on a real API server. `python -m tests.operator.show`."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import yaml
from tests.cluster.control_plane import ROOT, Cluster, eventually, start, stop
from tests.databases import Server
from tests.operator.conftest import prepare
from tests.operator.machinery import Admission, Operator, Tenancy

PAGE = ROOT / "docs/status.md"
NAMESPACE = "search"


class Shown:
    """Runs commands and keeps what they print."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.parts: list[str] = []

    def text(self, text: str) -> None:
        self.parts.append(text.strip() + "\n")

    def run(self, command: str, *, stdin: Any = None, only: str | None = None) -> None:
        done = self.cluster.kubectl.run(*command.split(), stdin=stdin, check=False)
        printed = (done.stdout + done.stderr).rstrip()
        if only is not None:
            printed = "\n".join(re.findall(only, printed, re.MULTILINE | re.DOTALL))
        shown = command.replace(" -f -", " -f change.yaml") if stdin is not None else command
        self.parts.append(f"```console\n$ kubectl {shown}\n```\n```text\n{printed}\n```\n")

    def page(self) -> str:
        return "\n".join(self.parts)


def fill(shown: Shown, tenancy: Tenancy) -> None:
    quickstart = [
        document
        for file in sorted((ROOT / "examples/quickstart").rglob("*.yaml"))
        for document in yaml.safe_load_all(file.read_text())
    ]
    kubectl = shown.cluster.kubectl
    shown.text(
        "# What kubectl shows\n\nEverything on this page was printed by a real API server with the operator and the admission webhook beside it, for\n"
        "[examples/quickstart](../examples/quickstart/README.md) in a namespace `search`. What the words mean is in [reasons.md](reasons.md);\n"
        "how it works in [operator.md](operator.md). `python -m tests.operator.show` writes this page."
    )
    shown.text("## Declared, and served")
    kubectl.run("config", "set-context", "--current", f"--namespace={NAMESPACE}")
    kubectl.run("apply", "--recursive", "-f", "examples/quickstart")
    for kind in ("principalbindings", "principals", "profiles", "manifests", "policyprofiles"):
        kubectl.run("wait", "--for=condition=Ready", "--timeout=30s", "--all", kind)
    shown.run("wait --for=condition=Ready --timeout=30s pb/indexer manifest/search")
    shown.run("get -A metagate")
    shown.run("get pb -o wide")
    shown.run("get pb --field-selector spec.profileRef.name=writer")
    shown.run("describe pb indexer")
    shown.text(
        "The revision and digest are those of the snapshot that the API serves: the same digest stands in the Welcome Packet."
    )
    shown.text("## An update that is not valid")
    shown.text("The webhook refuses it, with every finding and its path, and without a value:")
    [manifest] = [item for item in quickstart if item["kind"] == "Manifest"]
    manifest["spec"]["environment"]["deploy"] = {"image": "nginx"}
    manifest["spec"]["services"]["documents"]["metadata"]["password"] = "hunter2-hunter2"
    shown.run("apply -f -", stdin=manifest)
    shown.text("Without the webhook it is stored, and the operator says the same. What was served before stays served:")
    kubectl.run("delete", "validatingwebhookconfiguration", "metagate")
    kubectl.run("apply", "-f", "-", stdin=manifest)
    kubectl.run("wait", "--for=condition=Accepted=False", "--timeout=20s", "manifest/search")
    shown.run("get manifest,pb")
    shown.run("get manifest search -o yaml", only=r"^status:.*")
    eventually(lambda: len(kubectl.get("events")["items"]) >= 2)
    shown.run("get events --field-selector involvedObject.name=search --sort-by=.metadata.creationTimestamp")
    shown.text("## What does not exist yet")
    shown.text(
        "A reference that does not resolve is never a refusal: things may be applied in any order. It is a warning, and a condition until it does:"
    )


def tell_the_rest(shown: Shown, tenancy: Tenancy) -> None:
    kubectl = shown.cluster.kubectl
    binding = tenancy.binding("archivist")
    binding["metadata"]["namespace"] = NAMESPACE
    binding["spec"].update(profileRef={"name": "writer"}, manifestRef={"name": "search"})
    shown.run("apply -f -", stdin=binding)
    kubectl.run("wait", "--for=condition=Ready=False", "--timeout=20s", "pb/archivist")
    shown.run("get pb archivist")
    shown.text("## Two Bindings of one Principal")
    second = tenancy.binding("indexer-again", principal="indexer")
    second["metadata"]["namespace"] = NAMESPACE
    second["spec"].update(profileRef={"name": "writer"}, manifestRef={"name": "search"})
    shown.run("apply -f -", stdin=second)
    kubectl.run("wait", "--for=condition=Conflicted", "--timeout=20s", "pb/indexer-again")
    shown.run("get pb")
    shown.text("## What can be declared")
    shown.run("explain profile.spec.startup")
    shown.run("explain principalbinding.spec")
    shown.run("api-resources --api-group=metagate.legivellum.io")


async def main() -> None:
    environment = dict(os.environ)  # noqa: TID251 - which cluster and database to use
    directory = Path(tempfile.mkdtemp(prefix="metagate-show-"))
    server = Server.start()
    cluster = start(directory, environment=environment)
    try:
        prepare(cluster)
        await server.make_template()
        database = await server.make()
        cluster.kubectl.run("create", "namespace", NAMESPACE)
        tenancy = Tenancy(cluster, database, NAMESPACE)
        shown = Shown(cluster)
        with Operator.running(tenancy):
            with Admission.running(cluster):
                await asyncio.to_thread(fill, shown, tenancy)
            with Admission.running(cluster):
                await asyncio.to_thread(tell_the_rest, shown, tenancy)
        PAGE.write_text(shown.page())
    finally:
        stop(directory, environment)
        shutil.rmtree(directory, ignore_errors=True)
        server.stop()


if __name__ == "__main__":
    asyncio.run(main())
