# noqa: INP001 - a file that mkdocs loads by its path
"""Hooks of mkdocs: the pages are read in the repository too, where links may lead out of docs/ to the code beside it.

On the site such a link becomes the name of the file; a file that is not there ends the build.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
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
