"""The command `legivellum work`. Standard output and standard error belong to the handler and to one line of ours."""

from __future__ import annotations

import argparse
import logging
import sys

from metagate_client.errors import ClientError, MisconfiguredError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

EXAMPLE = "legivellum work --capability index --parallel 2 -- ./handler.sh"


def parser() -> argparse.ArgumentParser:
    """The options of `legivellum work`."""
    root = argparse.ArgumentParser(
        prog="legivellum work",
        description="Take tasks of a capability from AsyncGate, and run a program for each under its lease.",
        epilog=f"""\
The program finds task.json, lease.json, job.json and inputs/<name> in the
directory LEGIVELLUM_WORK_DIR, and writes `output` and, unless that is
text/plain, `output.type` there. It exits with 0: complete; 75: give the task
back; another code: failure.
Exit codes: 0 stopped by a signal, 1 refused, 2 not configured.

Example:
  {EXAMPLE}""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root.add_argument(
        "--capability", action="append", required=True, metavar="NAME", help="which tasks; may be given 16 times"
    )
    root.add_argument("--parallel", type=int, default=1, metavar="N", help="how many at the same time (1)")
    root.add_argument(
        "--needs", choices=("success", "any"), default="success", help="how a task's needs must have ended"
    )
    root.add_argument("--ttl", type=int, metavar="SECONDS", help="ask for leases of this length (the task's)")
    root.add_argument("--no-close", action="store_true", help="do not lease the steps that end plans")
    connection = root.add_argument_group("connection")
    connection.add_argument("--url", help="AsyncGate's address (METAGATE_ASYNCGATE_URL, else the packet's)")
    connection.add_argument("--token-file", metavar="FILE", help="a projected token (METAGATE_ASYNCGATE_TOKEN_FILE)")
    connection.add_argument("--api-key-file", metavar="FILE", help="an API key (METAGATE_API_KEY_FILE)")
    connection.add_argument("--api-key-header", metavar="NAME", help="its header (METAGATE_API_KEY_HEADER, X-API-Key)")
    connection.add_argument("--ca-file", metavar="FILE", help="authorities for https (METAGATE_CA_FILE)")
    root.add_argument("program", nargs=argparse.REMAINDER, metavar="-- command …", help="what to run for each task")
    return root


def main(arguments: Sequence[str] | None = None) -> int:
    """Work until a signal; the exit code."""
    options = parser().parse_args(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="legivellum work: %(message)s")
    try:
        _work(options)
    except ClientError as error:
        print(f"legivellum work: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    return 0


def _work(options: argparse.Namespace) -> None:
    from legivellum_worker.handler_process import HandlerProcess
    from legivellum_worker.worker import Worker

    program = options.program[1:] if options.program[:1] == ["--"] else options.program
    if not program:
        raise MisconfiguredError("which program? legivellum work --capability NAME -- command arguments")
    worker = Worker(
        url=options.url,
        token_file=options.token_file,
        api_key_file=options.api_key_file,
        api_key_header=options.api_key_header,
        ca_file=options.ca_file,
        ttl_seconds=options.ttl,
        closes=not options.no_close,
    )
    handler = HandlerProcess(program)
    for capability in options.capability:
        worker.on(capability, needs=options.needs)(handler)
    worker.run(options.parallel)
