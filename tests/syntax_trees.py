"""Syntax trees of this repository's modules, for tests that judge how the code is written."""

import ast
import gc
from pathlib import Path


def parse_module(path: Path) -> ast.Module:
    """The module's syntax tree; the garbage collector rests while it is built, as it was or was not before.

    CPython 3.11 counts the depth of a tree under construction once per interpreter. A collection in between runs
    finalizers, and one whose exception is reported formats a traceback, which parses as well: `ast.parse` then ends in
    `SystemError: AST constructor recursion depth mismatch`.
    """
    source = path.read_text(encoding="utf-8")
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return ast.parse(source)
    finally:
        if was_enabled:
            gc.enable()
