"""How help looks: the commands in groups, and an example at the end, which a test reads as the shell would."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from typer.core import TyperCommand, TyperGroup

EXAMPLES: Final[Mapping[str, str]] = {
    "": "metagate quickstart",
    "admission": "metagate admission --system-namespace metagate-system --tls-certificate tls.crt --tls-key tls.key",
    "admission configuration": "metagate admission configuration --failure-policy Ignore | kubectl apply -f -",
    "compile": "metagate compile resources/ --principal indexer --component indexer_main",
    "completion": "source <(metagate completion bash)",
    "crds": "metagate crds | kubectl apply --server-side -f -",
    "crds apply": "metagate crds apply --kubeconfig ~/.kube/config",
    "demo": "metagate demo --once",
    "dev": "metagate dev --resources resources/ --data-dir data/",
    "diff": "metagate diff 41 42 --url http://127.0.0.1:8000 --key-file admin.key",
    "doctor": "metagate doctor --url http://127.0.0.1:8000 --key-file admin.key --resources resources/",
    "explain": "metagate explain principal/indexer --url http://127.0.0.1:8000 --key-file admin.key",
    "history": "metagate history manifest/prod --url http://127.0.0.1:8000 --key-file admin.key",
    "keys": "metagate keys create indexer --expires 90d --key-file indexer.key",
    "keys create": "metagate keys create ada --type admin --key-file ada.key | kubectl apply -f -",
    "keys verify": "metagate keys verify indexer.key",
    "migrate": "metagate migrate --wait --timeout 60",
    "operator": "metagate operator --namespace team-a --issuers issuers/",
    "operator rbac": "metagate operator rbac | kubectl apply -f -",
    "plan": "metagate plan resources/ --url http://127.0.0.1:8000 --key-file admin.key",
    "principals": "metagate principals --url http://127.0.0.1:8000 --key-file admin.key",
    "quickstart": "metagate quickstart --once",
    "rollback": "metagate rollback 41 --url http://127.0.0.1:8000 --key-file admin.key | kubectl apply -f -",
    "serve": "metagate serve --workers 2 --port 8000 --metrics-port 9090",
    "startups": "metagate startups --status overdue --url http://127.0.0.1:8000 --key-file admin.key",
    "token": "metagate token create indexer --expires 1h",
    "token create": "metagate token create indexer --expires 1h",
    "validate": "metagate validate resources/ --output json",
    "version": "metagate version",
}


ACROSS_GATES_EXAMPLES: Final[Mapping[str, str]] = {
    "": "legivellum status --watch",
    "abandon": "legivellum abandon 01M8H6CMWB5SGPYD6E5RZJQXBM --key-file me.key --yes",
    "comply": "legivellum comply --root 01M8H6CMWB5SGPYD6E5RZJQXBM --key-file me.key",
    "demo": "legivellum demo --url http://127.0.0.1:8000 --key-file me.key",
    "done": "legivellum done 01M8H6CMWB5SGPYD6E5RZJQXBM --url http://127.0.0.1:8000 --key-file me.key",
    "explain": "legivellum explain 01M8H6CMWB5SGPYD6E5RZJQXBM --fold --key-file me.key",
    "plan": "legivellum plan check draft.yaml --url http://127.0.0.1:8000 --key-file me.key",
    "plan check": "legivellum plan check draft.yaml --url http://127.0.0.1:8000 --key-file me.key",
    "plan send": "legivellum plan send draft.yaml --url http://127.0.0.1:8000 --key-file me.key",
    "status": "legivellum status --url http://127.0.0.1:8000 --key-file me.key",
    "usage": "legivellum usage --since 7d --url http://127.0.0.1:8000 --key-file me.key",
}
_EXAMPLES_OF: Final = {"metagate": EXAMPLES, "legivellum": ACROSS_GATES_EXAMPLES}
"""By the name of the program."""

SECTIONS: Final[Mapping[str, Sequence[str]]] = {
    "On one machine": ("quickstart", "demo", "dev"),
    "Declared files": ("validate", "compile", "plan", "crds"),
    "A running MetaGate": ("principals", "startups", "explain", "history", "diff", "rollback", "doctor"),
    "Credentials": ("keys", "token"),
    "In production": ("migrate", "serve", "operator", "admission"),
    "In a pod": ("bootstrap", "ready", "failed", "run"),
    "This command": ("completion", "version"),
}
"""The commands of `metagate`, in the order in which somebody meets them."""


class _WithExample:
    """The example stands on a line of its own, to be copied: never wrapped."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        names: list[str] = []
        at = ctx
        while at.parent is not None:
            names.insert(0, at.info_name)
            at = at.parent
        example = _EXAMPLES_OF.get(at.info_name, {}).get(" ".join(names))
        if example is not None:
            with formatter.section("Example"):
                formatter.write(f"{'':>{formatter.current_indent}}{example}\n")


class Command(_WithExample, TyperCommand):
    """A command that shows its example."""


class Group(_WithExample, TyperGroup):
    """A group of commands that shows one too."""


class RootGroup(Group):
    """All commands of `metagate`, in sections."""

    def format_commands(self, _ctx: Any, formatter: Any) -> None:
        width = max(map(len, self.commands))
        for title, names in SECTIONS.items():
            with formatter.section(title):
                for name in names:
                    about = self.commands[name].get_short_help_str(formatter.width)
                    formatter.write(f"{'':>{formatter.current_indent}}{name:{width}}  {about}\n")
