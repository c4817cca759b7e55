"""Attacks a served gate by its OpenAPI document, with schemathesis."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx

_DEFECTS = re.compile(r'^[a-z]+_http_requests_total\{[^}]*status="500"\} (\S+)$', re.MULTILINE)


async def attack(
    client: httpx.AsyncClient,
    headers: Mapping[str, str],
    location: str,
    config: Path,
    *,
    examples: int,
    seconds: int = 25,
) -> None:
    """Generated and corner-case requests to every operation: no server error, no undocumented answer, no ignored rule.

    `client`: of the gate, which is asked for its metrics. `headers`: whom the requests come from. `location`: of the document.
    `examples`: most of them for each operation; `seconds`: after which one has no answer.
    """
    # The metrics are the process's: a test before this one may have counted a defect that it made on purpose.
    before = await _defects(client)
    url = str(client.base_url).rstrip("/")
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        "--config-file", str(config),
        "run", location, "--url", url, *(word for name, value in headers.items() for word in ("-H", f"{name}: {value}")),
        "--checks", "all", "--phases", "examples,coverage,fuzzing", "--max-examples", str(examples),
        "--request-timeout", str(seconds), "--generation-database", "none", "--no-color", "--suppress-health-check", "all",
    ]  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    text = output.decode()
    assert process.returncode == 0, text.partition("= FAILURES =")[2][:6_000] or text[-6_000:]
    assert await _defects(client) == before


async def _defects(client: httpx.AsyncClient) -> float:
    """How many requests were answered with 500 so far."""
    return sum(map(float, _DEFECTS.findall((await client.get("/metrics")).text)))
