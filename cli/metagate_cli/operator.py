"""`metagate operator`: the writer of a cluster, and the rights it needs."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from metagate_cli.help import Command, Group
from metagate_cli.terminal import Stop

app = typer.Typer(
    cls=Group,
    rich_markup_mode=None,
    help="Turn custom resources into snapshots, and tell in their status what became of them.",
)

Kubeconfig = Annotated[
    Path | None, typer.Option(help="Default: the pod's service account, else KUBECONFIG.", envvar="METAGATE_KUBECONFIG")
]
Home = Annotated[
    str,
    typer.Option("--system-namespace", help="The operator's own namespace.", envvar="METAGATE_SYSTEM_NAMESPACE"),
]
Namespaces = Annotated[
    list[str] | None, typer.Option("--namespace", help="Watch only this namespace; repeatable. Default: all of them.")
]
Selector = Annotated[
    str,
    typer.Option(
        help="Only namespaces with these labels, like cell=a,env=prod: one cell of several in a cluster.",
        envvar="METAGATE_NAMESPACE_SELECTOR",
    ),
]
Issuers = Annotated[
    Path | None,
    typer.Option(
        help="Read TokenIssuers from the files of this directory instead of the cluster.", envvar="METAGATE_ISSUERS"
    ),
]


@app.callback(invoke_without_command=True)
def operator(
    context: typer.Context,
    database_url: Annotated[
        str, typer.Option(help="The publisher's database.", envvar=["METAGATE_DATABASE_URL", "DATABASE_URL"])
    ] = "",
    kubeconfig: Kubeconfig = None,
    system_namespace: Home = "metagate-system",
    namespace: Namespaces = None,
    namespace_selector: Selector = "",
    issuers: Issuers = None,
    identity: Annotated[
        str, typer.Option(help="This replica, in the Lease.", envvar=["METAGATE_POD_NAME", "HOSTNAME"])
    ] = "",
    lease: Annotated[
        bool, typer.Option(help="Wait for the Lease, so that one of several replicas writes.", envvar="METAGATE_LEASE")
    ] = True,
    host: Annotated[
        str, typer.Option(help="Where the probes and metrics listen.", envvar="METAGATE_METRICS_HOST")
    ] = "0.0.0.0",  # noqa: S104
    port: Annotated[int, typer.Option(help="0 takes a free one.", envvar="METAGATE_METRICS_PORT")] = 9090,
    default_sla_seconds: Annotated[
        int, typer.Option(envvar=["METAGATE_DEFAULT_STARTUP_SLA_SECONDS", "DEFAULT_STARTUP_SLA_SECONDS"])
    ] = 120,
    issuer_ca_file: Annotated[
        Path | None, typer.Option(help="Whom key sets by URL may be signed by.", envvar="METAGATE_ISSUER_CA_FILE")
    ] = None,
    issuer_networks: Annotated[
        str,
        typer.Option(
            help="Networks key sets are fetched from although loopback or link-local.",
            envvar="METAGATE_ISSUER_NETWORKS",
        ),
    ] = "",
) -> None:
    """Watch, compile, publish, report; until a signal."""
    if context.invoked_subcommand is not None:
        return
    import uuid
    from dataclasses import replace
    from datetime import timedelta

    from legivellum.base import logging_setup
    from legivellum.postgres.dsn import address
    from metagate_cli.compile_options import compile_settings
    from metagate_operator.cluster.kubernetes_client import KubernetesError
    from metagate_operator.cluster.leader_election import LeadershipLost
    from metagate_operator.cluster.preflight import NotReady
    from metagate_operator.cluster.process import OperatorOptions, run
    from metagate_operator.settings import LedgerSettings, OperatorSettings, WriterSettings

    if not database_url:
        raise Stop("no database: set METAGATE_DATABASE_URL")
    if namespace and namespace_selector:
        raise Stop("--namespace and --namespace-selector: one of them")
    dsn = address(database_url, "METAGATE_DATABASE_URL")
    settings, ledger = OperatorSettings(), LedgerSettings()
    options = OperatorOptions(
        dsn=dsn,
        identity=f"{identity or 'metagate-operator'}_{uuid.uuid4().hex[:8]}",
        kubeconfig=None if kubeconfig is None else str(kubeconfig),
        namespace=system_namespace,
        namespaces=tuple(namespace or ()),
        selector=_labels(namespace_selector),
        issuers=issuers,
        lease=lease,
        host=host,
        port=port,
        mirror=ledger.ledger_url is not None,
        retention=timedelta(hours=settings.receipt_retention_hours),
        issuer_ca=issuer_ca_file,
        issuer_networks=issuer_networks,
        ledger=ledger.access,
        compile=replace(
            compile_settings(system_namespace, settings, place="cluster"), default_sla_seconds=default_sla_seconds
        ),
        writer=WriterSettings(),
    )
    logging_setup.configure(settings)
    try:
        run(options)
    except (NotReady, LeadershipLost, KubernetesError) as error:
        raise Stop(str(error)) from error


_LABEL = re.compile(
    r"(?P<name>(?:[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9](?:[-\w.]{0,61}[A-Za-z0-9])?)"
    r"=(?P<value>(?:[A-Za-z0-9](?:[-\w.]{0,61}[A-Za-z0-9])?)?)",
    re.ASCII,
)


def _labels(selector: str) -> dict[str, str]:
    """`matchLabels`, as a selector of equalities writes them."""
    matches = [_LABEL.fullmatch(part.strip()) for part in selector.split(",") if part.strip()]
    if not all(matches):
        raise Stop("--namespace-selector: labels and their values, like cell=a,env=prod")
    return {match["name"]: match["value"] for match in matches if match}


@app.command(cls=Command)
def rbac(
    system_namespace: Home = "metagate-system",
    namespace: Namespaces = None,
    issuers: Issuers = None,
    admission: Annotated[bool, typer.Option(help="Those of the admission webhook too.")] = True,
) -> None:
    """Print the service accounts and the roles they need, and nothing more than that."""
    from metagate_operator.cluster.rbac import ADMISSION, OPERATOR, admission_rights, manifests, operator_rights

    rights = operator_rights(namespace or (), cluster_issuers=issuers is None)
    documents = manifests(OPERATOR, rights, namespace=system_namespace, namespaces=namespace or ())
    if admission:
        documents += manifests(ADMISSION, admission_rights(), namespace=system_namespace)
    print_documents(documents)


def print_documents(documents: list[dict[str, Any]]) -> None:
    import yaml

    sys.stdout.write(yaml.safe_dump_all(documents, sort_keys=False))
