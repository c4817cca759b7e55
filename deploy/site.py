# noqa: INP001 - a file that mkdocs loads by its path
"""Hooks of mkdocs, for what the site shows otherwise than the repository.

Pages link to code outside of docs/. On the site such a link becomes the name of the file; a file that is not there ends
the build. And the copy button of a block that shows a terminal copies the commands alone: no prompt, nothing printed.
"""

import html
import posixpath
import re
from pathlib import Path
from typing import Any

_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
_CODE_BLOCK = re.compile(r'<div class="highlight">(<pre>.*?</pre>)</div>', re.DOTALL)
_TAG = re.compile(r"<[^>]+>")
_HERE_DOCUMENT = re.compile(r"(?<!<)<<-?['\"]?(\w+)")
_FENCED = re.compile(r"(^```.*?^```\s*$)", re.MULTILINE | re.DOTALL)


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    root = Path(config["docs_dir"]).parent

    def linked(match: re.Match[str]) -> str:
        text, target = match[1], match[2]
        place = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page.file.src_uri), target))
        if "://" in target or target.startswith("mailto:"):
            return match[0]
        inside = place.startswith("docs/") and not place.startswith("docs/ci/")
        if inside and not (root / place).is_dir():
            return match[0]
        if not (root / place).exists():
            raise SystemExit(f"{page.file.src_uri}: there is no {place}")
        return f"{text} (`{place}` in the repository)" if text.strip("`") != place else f"`{place}`"

    parts = _FENCED.split(markdown)
    return "".join(part if number % 2 else _LINK.sub(linked, part) for number, part in enumerate(parts))


def on_page_content(content: str, **_: Any) -> str:
    def with_commands(match: re.Match[str]) -> str:
        commands = typed_commands(html.unescape(_TAG.sub("", match[1])))
        # the theme's copy button prefers this attribute to what the block shows
        return f'<div class="highlight" data-copy="{html.escape(commands)}">{match[1]}</div>' if commands else match[0]

    return _CODE_BLOCK.sub(with_commands, content)


def on_post_page(output: str, **_: Any) -> str:
    # the theme gives this dialog no name, which a screen reader would say
    return output.replace(
        'data-md-component="search" role="dialog"', 'data-md-component="search" role="dialog" aria-label="Search"'
    )


def typed_commands(block: str) -> str:
    """Of a block that shows a terminal, the lines after `$ ` and those that continue them.

    A command is continued by a line after `> `, by any line after a backslash, and until the end of its here-document.
    """
    lines: list[str] = []
    terminator: str | None = None  # of the here-document that is open
    for line in block.splitlines():
        prompt, command = line[:2], line[2:]
        if terminator or (prompt not in {"$ ", "> "} and lines and lines[-1].endswith("\\")):
            command = line
        elif prompt != "$ " and not (prompt == "> " and lines):
            continue
        lines.append(command)
        if terminator is None and (opened := _HERE_DOCUMENT.search(command)):
            terminator = opened[1]
        elif command == terminator:
            terminator = None
    return "\n".join(lines)
