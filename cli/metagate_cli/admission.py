"""`metagate admission`: the validating webhook, and the configuration that calls it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metagate_cli.help import Command, Group
from metagate_cli.terminal import Stop

app = typer.Typer(
    cls=Group,
    rich_markup_mode=None,
    help="Refuse invalid resources when they are applied, by the rules of the compiler.",
)


@app.callback(invoke_without_command=True)
def admission(
    context: typer.Context,
    kubeconfig: Annotated[Path | None, typer.Option(envvar="METAGATE_KUBECONFIG")] = None,
    system_namespace: Annotated[
        str, typer.Option(envvar="METAGATE_SYSTEM_NAMESPACE", help="The webhook's own namespace.")
    ] = "metagate-system",
    host: Annotated[str, typer.Option(envvar="METAGATE_ADMISSION_HOST")] = "0.0.0.0",  # noqa: S104
    port: Annotated[int, typer.Option(envvar="METAGATE_ADMISSION_PORT")] = 9443,
    tls_certificate: Annotated[
        Path | None,
        typer.Option(help="A mounted certificate; reloaded when it changes.", envvar="METAGATE_TLS_CERTIFICATE"),
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(envvar="METAGATE_TLS_KEY")] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(help="A name the API server calls; default: the Service's.", envvar="METAGATE_ADMISSION_NAMES"),
    ] = None,
    secret: Annotated[
        str, typer.Option(help="Keeps the self-made certificate.", envvar="METAGATE_ADMISSION_SECRET")
    ] = "metagate-admission-tls",  # noqa: S107 - its name
    webhook: Annotated[
        str, typer.Option(help="Whose caBundle is kept; empty: nobody's.", envvar="METAGATE_ADMISSION_WEBHOOK")
    ] = "metagate",
    check_seconds: Annotated[float, typer.Option(envvar="METAGATE_ADMISSION_CHECK_SECONDS")] = 30.0,
    warnings: Annotated[
        bool,
        typer.Option(
            help="Look up references, and warn of those that do not resolve.", envvar="METAGATE_ADMISSION_WARNINGS"
        ),
    ] = True,
) -> None:
    """Serve the webhook; until a signal."""
    if context.invoked_subcommand is not None:
        return
    from legivellum.base import logging_setup
    from metagate_cli.compile_options import compile_settings
    from metagate_operator.cluster.admission.process import AdmissionOptions, run
    from metagate_operator.cluster.kubernetes_client import KubernetesError
    from metagate_operator.settings import OperatorSettings

    if (tls_certificate is None) != (tls_key is None):
        raise Stop("--tls-certificate and --tls-key go together", code=2)
    settings = OperatorSettings()
    options = AdmissionOptions(
        kubeconfig=None if kubeconfig is None else str(kubeconfig),
        namespace=system_namespace,
        host=host,
        port=port,
        certificate=tls_certificate,
        key=tls_key,
        names=tuple(
            name
            or (
                f"metagate-admission.{system_namespace}.svc",
                f"metagate-admission.{system_namespace}.svc.cluster.local",
            )
        ),
        secret=secret,
        webhook=webhook or None,
        check_seconds=check_seconds,
        warnings=warnings,
        compile=compile_settings(system_namespace, settings, place="cluster"),
    )
    logging_setup.configure(settings)
    try:
        run(options)
    except KubernetesError as error:
        raise Stop(str(error)) from error


@app.command(cls=Command)
def configuration(
    system_namespace: Annotated[str, typer.Option(envvar="METAGATE_SYSTEM_NAMESPACE")] = "metagate-system",
    service: Annotated[str, typer.Option(help="The Service to call.")] = "metagate-admission",
    port: Annotated[int, typer.Option()] = 443,
    url: Annotated[str, typer.Option(help="Call this instead of a Service.")] = "",
    failure_policy: Annotated[str, typer.Option(help="Fail or Ignore, while no replica answers.")] = "Fail",
    name: Annotated[str, typer.Option()] = "metagate",
    ca_file: Annotated[
        Path | None, typer.Option(help="The bundle of a mounted certificate; the self-made one adds itself.")
    ] = None,
) -> None:
    """Print the ValidatingWebhookConfiguration."""
    from metagate_cli.operator import print_documents
    from metagate_operator.cluster.admission.webhook import webhook_configuration

    print_documents(
        [
            webhook_configuration(
                name=name,
                failure_policy=failure_policy,
                service=None if url else (system_namespace, service, port),
                url=url or None,
                ca_bundle=None if ca_file is None else ca_file.read_bytes(),
            )
        ]
    )
