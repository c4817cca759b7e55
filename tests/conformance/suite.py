"""`@modelcontextprotocol/conformance`, run once against a server, and its checks read back from its files."""

import asyncio
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.node.environment import NodeEnvironment

RESULT_FOLDER = re.compile(r"server-(?P<scenario>.+)-\d{4}-\d\d-\d\dT[\d-]+Z")
TIMEOUT_SECONDS = 150


@dataclass(frozen=True, slots=True)
class SuiteRun:
    """What one run printed, its exit code, and the checks of each scenario."""

    code: int
    printed: str
    checks: dict[str, list[dict[str, Any]]]

    def failures(self, scenario: str) -> dict[str, str]:
        return {
            check["id"]: check.get("errorMessage", "")
            for check in self.checks[scenario]
            if check["status"] == "FAILURE"
        }

    @property
    def verdict(self) -> str:
        """The end of what was printed: the summary of all scenarios, and what was not expected."""
        return self.printed.partition("=== SUMMARY ===")[2] or self.printed[-5_000:]


class ConformanceSuite:
    def __init__(self, node: NodeEnvironment) -> None:
        self._command = [node.node, node.script("@modelcontextprotocol/conformance", "dist", "index.js")]

    async def _run(self, *arguments: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            *self._command, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                printed, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode is not None
        return process.returncode, printed.decode()

    async def scenarios(self) -> list[str]:
        """Every scenario for servers that this release of the suite has."""
        code, printed = await self._run("list", "--server")
        assert code == 0, printed
        return re.findall(r"^  - (\S+) \[", printed, re.MULTILINE)

    async def run(self, url: str, expected_failures: Path, output: Path, more: Sequence[str] = ()) -> SuiteRun:
        code, printed = await self._run(
            "server", "--url", url, "--suite", "all", "--expected-failures", str(expected_failures),
            "--output-dir", str(output), *more,
        )  # fmt: skip
        checks: dict[str, list[dict[str, Any]]] = {}
        for file in sorted(output.glob("server-*/checks.json")):
            folder = RESULT_FOLDER.fullmatch(file.parent.name)
            assert folder is not None, file.parent.name
            checks[folder["scenario"]] = json.loads(file.read_text(encoding="utf-8"))
        return SuiteRun(code, printed, checks)
