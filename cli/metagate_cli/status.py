"""`legivellum status`: asks every gate at once what waits there, with the credential of the person who asks."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from metagate_cli.api_client import (
    ApiClient,
    ApiError,
    CaFile,
    KeyFile,
    NotJson,
    Tenant,
    TokenFile,
    Url,
    connect,
    credential_headers,
)
from metagate_cli.gate_addresses import GateAddress, packet_gates, topology_gates, with_configured
from metagate_cli.listing import age
from metagate_cli.output import NO_LIMIT, OutputFormat, OutputOption, safe_text, structured, table
from metagate_cli.terminal import FAILURE, Stop, print_note

SECONDS: Final = 0.5
"""How long each gate may take, all of them at the same time."""
WIDTH: Final = 80
_PATH: Final = "/v1/interview"
_LARGEST: Final = 65_536
_MOST_NOTES: Final = 8
_LATE: Final = f"no answer within {SECONDS * 1_000:.0f} ms"
_NO_GATE: Final = "no gate answers there"

Packet = Annotated[
    Path | None, typer.Option("--packet", help="A Welcome Packet: ask its services, and no MetaGate for them.")
]
Watch = Annotated[bool, typer.Option("--watch", "-w", help="Ask again every two seconds, until Ctrl-C.")]
WATCH_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class GateStatus:
    """What a gate answered, or why there is no answer."""

    gate: GateAddress
    interview: Mapping[str, Any] | None
    problem: str | None = None


def status(
    url: Url = None,
    key_file: KeyFile = None,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    tenant: Tenant = None,
    packet: Packet = None,
    watch: Watch = False,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Ask every gate what waits there: MetaGate, the services of its topology (or of a packet) that are gates, and what
    METAGATE_<GATE>_URL names.

    Exit code 1 when one of them did not answer within half a second.
    """
    if packet is None:
        api = connect(url, key_file, token_file, ca_file, None)
        gates = with_configured([GateAddress("metagate", "metagate", api.url), *topology_gates(api)])
    else:
        api = ApiClient(url or "", credential_headers(key_file, token_file), None, ca_file)
        gates = packet_gates(packet)
    asking = replace(api, tenant=tenant, seconds=SECONDS, largest=_LARGEST)
    while True:
        statuses = ask_gates(asking, gates)
        _show(statuses, output, again=watch)
        if not watch:
            break
        time.sleep(WATCH_SECONDS)
    if any(answer.interview is None for answer in statuses):
        raise typer.Exit(FAILURE)


def ask_gates(api: ApiClient, gates: Sequence[GateAddress]) -> list[GateStatus]:
    """The status of each, in their order, at most `SECONDS` later. `api`: the credential; its URL is not used."""
    answers: dict[GateAddress, GateStatus] = {}

    def ask(gate: GateAddress) -> None:
        answers[gate] = _ask(api, gate)

    # Daemons: a gate that drips its answer does not keep the command from ending.
    threads = [threading.Thread(target=ask, args=(gate,), daemon=True) for gate in gates]
    end = time.monotonic() + SECONDS
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return [answers.get(gate, GateStatus(gate, None, _LATE)) for gate in gates]


def _ask(api: ApiClient, gate: GateAddress) -> GateStatus:
    try:
        answer = replace(api, url=gate.endpoint).get(_PATH)
    except ApiError as error:
        return GateStatus(gate, None, f"refused: {error.code}" if error.code != "UNKNOWN" else _NO_GATE)
    except NotJson:
        return GateStatus(gate, None, _NO_GATE)
    except Stop as stop:
        reason = getattr(stop.__cause__, "reason", None)
        return GateStatus(gate, None, _LATE if isinstance(reason, TimeoutError) else "no answer")
    if not _is_interview(answer):
        return GateStatus(gate, None, _NO_GATE)
    return GateStatus(gate, answer)


def _is_interview(answer: Any) -> bool:
    """Whoever listens at an address may answer anything."""
    return (
        isinstance(answer, dict)
        and isinstance(counts := answer.get("counts"), dict)
        and all(isinstance(count, int) for count in counts.values())
        and isinstance(oldest := answer.get("oldest"), dict)
        and all(moment is None or _is_time(moment) for moment in oldest.values())
        and isinstance(notes := answer.get("notes"), list)
        and all(isinstance(note, str) for note in notes)
        and isinstance(answer.get("version"), str)
    )


def _is_time(text: Any) -> bool:
    try:
        return isinstance(text, str) and datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def _show(statuses: Sequence[GateStatus], output: OutputFormat, *, again: bool) -> None:
    if output.structured:
        print(structured([_facts(answer) for answer in statuses], output), flush=True)
        return
    wide = output is OutputFormat.WIDE
    headings = ("GATE", "STATE", "WAITS", "OLDEST", "NOTES", *(("ENDPOINT", "VERSION") if wide else ()))
    shown = table(headings, [_row(answer, wide=wide) for answer in statuses], NO_LIMIT if wide else WIDTH)
    if again:
        print_note(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}")
    print(shown, flush=True)


def _facts(answer: GateStatus) -> dict[str, Any]:
    gate = answer.gate
    return {
        "service": gate.service,
        "type": gate.type,
        "endpoint": gate.endpoint,
        "problem": answer.problem,
        "interview": None if answer.interview is None else dict(answer.interview),
    }


def _row(answer: GateStatus, *, wide: bool) -> list[str]:
    gate, interview = answer.gate, answer.interview
    end = [safe_text(gate.endpoint)] if wide else []
    if interview is None:
        return [safe_text(gate.service), answer.problem or "", "-", "-", "-", *end, *(["-"] if wide else [])]
    # What is zero says nothing to a person who looks across gates; `-o wide` has it all the same.
    counts = {name: count for name, count in interview["counts"].items() if count or wide}
    oldest = {name: age(moment) for name, moment in interview["oldest"].items() if moment is not None}
    return [
        safe_text(gate.service),
        "answers",
        safe_text(", ".join(f"{name} {count:,}" for name, count in counts.items()) or "nothing"),
        safe_text(", ".join(f"{name} {ago}" for name, ago in oldest.items()) or "-"),
        safe_text(" ".join(interview["notes"][:_MOST_NOTES]) or "-"),
        *end,
        *([safe_text(interview["version"])] if wide else []),
    ]
