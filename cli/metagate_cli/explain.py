"""`metagate explain`: why a packet says what it says, value by value."""

from __future__ import annotations

from typing import Annotated, Any, Final
from uuid import UUID

import typer

from metagate_cli.api_client import ApiError, CaFile, KeyFile, Tenant, TokenFile, Url, connect, segment, stop_for
from metagate_cli.output import NO_LIMIT, OutputFormat, OutputOption, json_line, safe_text, structured, table
from metagate_cli.terminal import FAILURE, Stop, colored, progress

_VALUE_LIMIT: Final = 60
_DIGEST_LENGTH: Final = 12


def explain(
    what: Annotated[str, typer.Argument(metavar="principal/NAME|startup/ID", help="Whose packet.")],
    url: Url = None,
    key_file: KeyFile = None,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    tenant: Tenant = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Say for every value of a packet which layer gave it, which object, and who applied that.

    A startup's packet is made again from its revision and compared to the byte. Exit 1 when that cannot be done.
    """
    kind, _, name = what.partition("/")
    if kind not in {"principal", "startup"} or not name:
        raise Stop("explain what? principal/NAME or startup/ID", code=FAILURE)
    if kind == "startup":
        try:
            UUID(name)
        except ValueError as error:
            raise Stop("startup/ID: the id is a UUID", code=FAILURE) from error
    api = connect(url, key_file, token_file, ca_file, tenant)
    try:
        with progress("asking"):
            answer = api.get(f"/v1/admin/explain/{kind}/{segment(name)}")
    except ApiError as error:
        if error.code == "NOT_REBUILT":
            raise Stop(f"THE ANSWER CANNOT BE REBUILT: {safe_text(error)}", code=FAILURE) from error
        raise stop_for(error, what, f"`metagate {kind}s` lists them") from error
    print(structured(answer, output) if output.structured else explanation(answer, wide=output is OutputFormat.WIDE))


def explanation(answer: dict[str, Any], *, wide: bool = False) -> str:
    """For people: what was served, the objects it was made of, and each value with its origin."""
    objects = {item["layer"]: item for item in answer["objects"]}
    layers = {"override": objects["binding"], **objects}
    digest = answer["digest"] if wide else answer["digest"][:_DIGEST_LENGTH]
    lines = [f"principal {safe_text(answer['principal_key'])}, revision {answer['revision']}, packet {digest}"]
    if answer["startup_id"] is not None:
        startup_line = (
            f"startup {answer['startup_id']} of {safe_text(answer['component_key'])}, opened {answer['opened_at']}"
        )
        lines = [startup_line, *lines, colored("made again from its revision: the same to the byte", "green")]
    headings = ["LAYER", "OBJECT", "GENERATION", "SINCE REVISION", "APPLIED BY", *(["UID"] if wide else [])]
    rows = [
        [
            item["layer"],
            f"{item['kind']} {safe_text(item['namespace'])}/{safe_text(item['name'])}",
            str(item["generation"]),
            str(item["revision"]),
            safe_text(item["manager"] or "-"),
            *([item["uid"]] if wide else []),
        ]
        for item in answer["objects"]
    ]
    leaves = [_leaf(leaf, layers[leaf["layer"]], wide=wide) for leaf in answer["leaves"]]
    width = NO_LIMIT if wide else None
    values = table(["PATH", "VALUE", "LAYER", "FROM"], leaves, width)
    return "\n".join([*lines, "", table(headings, rows, width), "", values])


def _leaf(leaf: dict[str, Any], source: dict[str, Any], *, wide: bool) -> list[str]:
    default = " (default)" if leaf["default"] else ""
    origin = f"{source['kind']} {safe_text(source['name'])} {safe_text(leaf['origin'])}{default}"
    return [
        safe_text(leaf["path"]),
        json_line(leaf["value"], None if wide else _VALUE_LIMIT),
        leaf["layer"],
        origin,
    ]
