"""`legivellum comply`: whether what happened kept to the rules, from receipts and from what gates show.

It changes nothing, unless `--probe` is given: then it also tries what must be refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Final
from xml.etree import ElementTree as ET

import typer

from metagate_cli.api_client import ApiError, CaFile, connect
from metagate_cli.compliance.findings import ComplianceFinding, FindingCode
from metagate_cli.compliance_reading import ComplianceCheck, ComplianceReport
from metagate_cli.credentials import seconds
from metagate_cli.gate_addresses import MetaGateUrl, MyKeyFile, MyTokenFile, Packet, TenantGates, confirm
from metagate_cli.output import NO_LIMIT, OutputFormat, safe_text, structured, table
from metagate_cli.terminal import FAILURE, UNABLE, USAGE, Stop, print_note
from metagate_cli.usage import Since, Tenant, moment

HEADINGS: Final = ("CODE", "TASK", "WHAT")
_PREFIX: Final = "legivellum comply"


class ReportFormat(StrEnum):
    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    JUNIT = "junit"


Root = Annotated[str | None, typer.Option(metavar="TASK", help="Only the tree in which this task hangs.")]
Unattended = Annotated[
    str, typer.Option(metavar="TIME", help="How long an obligation may be open with nobody, like 3d or 12h.")
]
Probe = Annotated[bool, typer.Option("--probe", help="Also try what must be refused: on a machine or tenant for it.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask before trying.")]
ReportOption = Annotated[ReportFormat, typer.Option("--output", "-o", help="junit is for CI; json, yaml for programs.")]


def comply(
    root: Root = None,
    since: Since = None,
    unattended: Unattended = "3d",
    probe: Probe = False,
    yes: Yes = False,
    url: MetaGateUrl = None,
    key_file: MyKeyFile = None,
    token_file: MyTokenFile = None,
    ca_file: CaFile = None,
    packet: Packet = None,
    tenant: Tenant = None,
    output: ReportOption = ReportFormat.TABLE,
) -> None:
    """Check that what happened kept to the rules: receipts, and what gates show.

    Exit code 1 when something did not, 3 when it could not be looked at.
    """
    if root is not None and since is not None:
        raise Stop("of what? Give --root or --since, not both", code=USAGE)
    begin = None if since is None else moment(since)
    gates = TenantGates(url, key_file, token_file, ca_file, packet)
    try:
        metagate = None if url is None else connect(url, key_file, token_file, ca_file, None)
        check = ComplianceCheck(gates, metagate, tenant, _unattended(unattended))
        report = check.check_since(begin) if root is None else check.check_root(root)
        if probe:
            _require_agreement(yes=yes)
            check.run_probes()
    except ApiError as error:
        raise Stop(safe_text(error), code=UNABLE) from error
    if root is not None and not report.receipts:
        raise Stop(f"{safe_text(root)}: there is no receipt of it", code=UNABLE)
    show_report(report, output)
    if report.findings:
        raise typer.Exit(FAILURE)


def _require_agreement(*, yes: bool) -> None:
    question = "Send requests that must be refused? What a gate takes by mistake stays in the ledger of this tenant."
    if not confirm(question, yes=yes):
        raise Stop("nothing was tried", code=UNABLE)


def _unattended(text: str) -> timedelta:
    return timedelta(seconds=seconds(text))


def show_report(report: ComplianceReport, output: ReportFormat) -> None:
    if output is ReportFormat.JUNIT:
        print(junit(report))
        return
    if output in {ReportFormat.JSON, ReportFormat.YAML}:
        print(structured(report.document(), OutputFormat(output)))
        return
    if report.findings:
        rows = [[finding.code, safe_text(finding.task_id), safe_text(finding.detail)] for finding in report.findings]
        print(table(HEADINGS, rows, NO_LIMIT if output is ReportFormat.WIDE else None))
    counts = ((len(report.findings), "finding"), (report.receipts, "receipt"), (report.roots, "tree"))
    print("{} in {} of {}".format(*(f"{count:,} {name}{'' if count == 1 else 's'}" for count, name in counts)))
    if report.probes:
        print(f"{report.probes} requests that must be refused were tried")
    for gate in report.not_asked:
        print_note(f"not asked: {gate}, of which no address is known")


def junit(report: ComplianceReport) -> str:
    """A test case for each rule; those that something broke have failed."""
    by_code = {code: [item for item in report.findings if item.code is code] for code in FindingCode}
    failures = sum(map(bool, by_code.values()))
    suite = ET.Element("testsuite", name=_PREFIX, tests=str(len(by_code)), failures=str(failures))
    for code, findings in by_code.items():
        case = ET.SubElement(suite, "testcase", classname=_PREFIX, name=str(code))
        if findings:
            _add_failure(case, findings)
    return ET.tostring(suite, encoding="unicode", xml_declaration=True)


def _add_failure(case: ET.Element, findings: Sequence[ComplianceFinding]) -> None:
    lines = [safe_text(f"{finding.task_id} {finding.detail}") for finding in findings]
    failure = ET.SubElement(case, "failure", message=lines[0], type=findings[0].invariant)
    failure.text = "\n".join(lines)
