"""docs/cli.md names every command, option and setting that there is, and no default that is not so."""

import re
from pathlib import Path
from typing import Any

from typer.main import get_command

from metagate_cli.main import CLIENT, _app
from metagate_cli.terminal import EXIT_CODES
from metagate_operator.settings import WriterSettings

PAGE = Path("docs/cli.md").read_text(encoding="utf-8")
ELSEWHERE = {"operator", "admission"}


def sections() -> dict[str, str]:
    """The text under each heading that names a command, by command."""
    parts = re.split(r"^#{2,3} ", PAGE, flags=re.MULTILINE)
    return {
        match[1]: part
        for part in parts
        if (match := re.match(r"`metagate ([a-z]+(?: (?:create|verify|apply))?)", part))
    }


def commands() -> dict[str, Any]:
    root: Any = get_command(_app())
    result: dict[str, Any] = {}
    for name, command in root.commands.items():
        if name in ELSEWHERE or name in CLIENT:
            continue
        inner = getattr(command, "commands", None)
        if inner:
            result |= {f"{name} {sub}": item for sub, item in inner.items()}
        if not inner or command.params:
            result[name] = command
    return result


def test_every_command_and_option_is_described() -> None:
    """Each option stands, short or long, in the section of its command."""
    answer = sections()
    missing = [
        f"{name} {parameter.opts[0]}"
        for name, command in commands().items()
        if name != "version"
        for parameter in command.params
        if parameter.opts[0].startswith("-") and not any(option in answer.get(name, "") for option in parameter.opts)
    ]
    assert missing == []


def test_every_writer_setting_is_described() -> None:
    """Name and default of each."""
    rows = dict(re.findall(r"^\| `METAGATE_(\w+)` \| ([^|]*)\|", PAGE, flags=re.MULTILINE))
    fields = {name.upper(): field.default for name, field in WriterSettings.model_fields.items()}
    assert {name: value.strip() and float(value) for name, value in rows.items()} == fields


def test_every_exit_code_is_described() -> None:
    """The table says of each what the code says of it, perhaps with more words, and names no other."""
    rows = dict(re.findall(r"^\| (\d+) \| (.*) \|$", PAGE, flags=re.MULTILINE))
    assert {int(code) for code in rows} == EXIT_CODES.keys()
    for code, meaning in EXIT_CODES.items():
        assert rows[str(code)].startswith(meaning)
