"""The source of a CEL rule, read before CEL compiles it: which variables it reads, and what an evaluation may cost.

The CEL library has no limit of cost or time, and holds the interpreter while it evaluates. So a rule is bounded by what
its source may say: no nested `all` or `exists`, no `matches` (a regular expression), nothing that builds lists. What is
left costs at most a product of the rule's own size and the payload's, which `CelSource.work` computes beforehand.

The library's own analysis does not suffice: it lists bound variables among the free ones, and sees no nesting.

What is evaluated is the source with one change (`CelSource.ordered`): the library goes through a map in an order of
chance, and stops at the first error, so that a loop over a map could be false once and fail the next time.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from metagate_crds.rules.secret_detection import looks_secret

VARIABLES: Final[dict[str, frozenset[str]]] = {
    "payload": frozenset(),
    "request": frozenset({"surface", "payload_kind", "capability_id", "target", "artifact_bytes"}),
    "caller": frozenset({"principal_key", "type"}),
    "observed": frozenset({"depth", "descendants", "repeats", "budget"}),
}
"""What a rule may read, and the members that each has; a payload has whatever the caller sends."""

FUNCTIONS: Final = frozenset(
    {"size", "contains", "startsWith", "endsWith", "has", "int", "uint", "double", "string", "bool"}
)
MACROS: Final = frozenset({"all", "exists"})
OPERATORS: Final = frozenset(
    {"!_", "-_", "_&&_", "_||_", "_?_:_", "_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_", "@in", "_[_]", "_-_", "_*_"}
    | {"_/_", "_%_", "@not_strictly_false"}
)
"""The operators of a rule, as the library names them; the last is part of what `all` and `exists` are compiled to.
Without `_+_`, to which `map`, `filter` and `exists_one` are compiled.
"""

LONGEST_SOURCE: Final = 1_024

_LONGEST_QUOTED: Final = 32
_KEYWORDS: Final = frozenset({"true", "false", "null"})
_TOKEN: Final = re.compile(
    r"""[ \t\r\n\f]+|//[^\n]*
    | (?P<text>"(?:[^"\\\r\n]|\\.)*"|'(?:[^'\\\r\n]|\\.)*')
    | (?P<number>0[xX][0-9a-fA-F]+[uU]?|(?:[0-9]+\.)?[0-9]+(?:[eE][+-]?[0-9]+)?[uU]?|\.[0-9]+(?:[eE][+-]?[0-9]+)?)
    | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<mark>==|!=|<=|>=|&&|\|\||[-+*/%<>!?:.,()\[\]{}])""",
    re.VERBOSE,
)
_CLOSING: Final = {")": "(", "]": "[", "}": "{"}
SORTED_KEYS: Final = "sorted_keys"
"""The function that `CelSource.ordered` calls; no rule may call it."""

# What an evaluation pays for each value, in tokens; measured. Reading a member copies it. `bool` and `sorted_keys` are
# Python's, so their arguments are converted.
_READ_COST: Final = 4
_CONVERSION_COST: Final = 20
_CHARACTERS_PER_UNIT: Final = 512


class RuleRefused(ValueError):  # noqa: N818 - what became of the rule
    """A rule that may not be evaluated. `reason` is a sentence for the person who declared it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Token:
    kind: str
    text: str
    start: int
    end: int


@dataclass(slots=True)
class Loop:
    """One `all` or `exists`: where its target stands in the source, the size of its body, and what both read."""

    variable: str
    target: tuple[int, int]
    target_tokens: int
    target_reads: int
    body_tokens: int = 0
    body_payload_reads: int = 0
    body_variable_reads: int = 0


@dataclass(slots=True)
class CelSource:
    """What the source of a rule says about itself."""

    text: str
    tokens: int = 0
    variables: set[str] = field(default_factory=set)
    loop_variables: set[str] = field(default_factory=set)
    payload_reads: int = 0
    bool_calls: int = 0
    loops: list[Loop] = field(default_factory=list)

    def work(self, values: int, characters: int) -> int:
        """An upper bound of what an evaluation costs over a payload of this size; a unit is 20 to 40 ns."""
        size = values + characters // _CHARACTERS_PER_UNIT
        units = self.tokens + (_READ_COST * self.payload_reads + _CONVERSION_COST * self.bool_calls) * size
        for loop in self.loops:
            items = loop.target_reads * values + loop.target_tokens
            units += items * (loop.body_tokens + _READ_COST * loop.body_payload_reads * size)
            units += loop.target_reads * (loop.body_variable_reads + 2 * _READ_COST + _CONVERSION_COST) * size
        return units

    def ordered(self) -> str:
        """The source as it is evaluated: each loop goes over a list, or over the sorted keys of a map."""
        parts, position = [], 0
        for loop in self.loops:
            start, end = loop.target
            target = self.text[start:end]
            parts += [self.text[position:start], f"(type({target}) == map ? {SORTED_KEYS}({target}) : {target})"]
            position = end
        return "".join((*parts, self.text[position:]))


def read_source(source: str) -> CelSource:
    """Read the source of a rule. Raises RuleRefused for what no rule may say."""
    if len(source) > LONGEST_SOURCE:
        raise RuleRefused(f"is longer than {LONGEST_SOURCE} characters")
    return _SourceReader(source, _tokens(source)).read()


def _tokens(source: str) -> list[Token]:
    tokens: list[Token] = []
    position = 0
    while position < len(source):
        match = _TOKEN.match(source, position)
        if match is None:
            raise RuleRefused(f"cannot be read at character {position + 1}")
        kind = match.lastgroup
        if kind is not None:
            # Raw, byte and triple-quoted texts have other rules of where they end: not knowing them is safe only if
            # they are refused.
            if kind == "text" and tokens and tokens[-1].end == position and tokens[-1].kind in {"text", "name"}:
                raise RuleRefused("may write text in \"…\" or '…' only")
            tokens.append(Token(kind, match.group(), position, match.end()))
        position = match.end()
    return tokens


def _quoted(name: str) -> str:
    """A name for a message; people paste credentials anywhere, and findings are logged."""
    return f"`{name}`" if len(name) <= _LONGEST_QUOTED and not looks_secret(name) else "a name that does not exist"


class _SourceReader:
    """Walks over the tokens once, with a stack of open brackets."""

    def __init__(self, source: str, tokens: Sequence[Token]) -> None:
        self._tokens = tokens
        self._open: list[tuple[str, Loop | None]] = []
        self._loop: Loop | None = None
        self._source = CelSource(source, tokens=len(tokens))

    def read(self) -> CelSource:
        position = 0
        while position < len(self._tokens):
            position += self._read_token(position)
        if self._open:
            raise RuleRefused(f"has a {self._open[-1][0]} that is not closed")
        return self._source

    def _read_token(self, position: int) -> int:
        """Take in the token at this position; how many were read."""
        token = self._tokens[position]
        if self._loop is not None:
            self._loop.body_tokens += 1
        if token.kind == "name":
            return self._read_name(position)
        if token.text == "." and not self._is_operand(position - 1):
            raise RuleRefused("may not begin a name with a dot")
        if token.text == "+":
            raise RuleRefused("may not use +, which can build ever longer values: compare the parts instead")
        if token.text in {"(", "[", "{"}:
            self._open.append((token.text, None))
        elif token.text in _CLOSING:
            self._close(token.text)
        return 1

    def _close(self, bracket: str) -> None:
        if not self._open or self._open[-1][0] != _CLOSING[bracket]:
            raise RuleRefused(f"has a {bracket} that closes nothing")
        _, loop = self._open.pop()
        if loop is not None:
            self._loop = None

    def _read_name(self, position: int) -> int:
        name = self._tokens[position].text
        called = self._text(position + 1) == "("
        if self._text(position - 1) == ".":
            return self._read_call(position, method=True) if called else 1
        if called:
            return self._read_call(position, method=False)
        if self._text(position + 1) == "{":
            raise RuleRefused("may not build messages")
        if name not in _KEYWORDS and name != "in":
            self._read_variable(position)
        return 1

    def _read_call(self, position: int, *, method: bool) -> int:
        name = self._tokens[position].text
        if method and name in MACROS:
            return self._open_loop(position)
        if name not in FUNCTIONS and name != "in":
            raise RuleRefused(f"may not call {_quoted(name)}: there are {', '.join(sorted(FUNCTIONS | MACROS))}")
        if name == "bool":
            self._source.bool_calls += 1
            if self._loop is not None:
                raise RuleRefused("may not call `bool` within `all` or `exists`")
        return 1

    def _open_loop(self, position: int) -> int:
        name = self._tokens[position].text
        if self._loop is not None:
            raise RuleRefused(f"may not have `{name}` within `all` or `exists`")
        variable = self._tokens[position + 2] if position + 2 < len(self._tokens) else None
        if variable is None or variable.kind != "name" or self._text(position + 3) != ",":
            raise RuleRefused(f"must name a variable first in `{name}`, as in {name}(item, item > 0)")
        if variable.text in VARIABLES or variable.text in _KEYWORDS | {"in"}:
            raise RuleRefused(f"may not give the variable of `{name}` the name `{variable.text}`")
        target = self._tokens[self._operand_start(position - 2) : position - 1]
        if any(token.kind == "name" and token.text in MACROS for token in target):
            raise RuleRefused(f"may not have `{name}` over the result of `all` or `exists`")
        reads = sum(token.text == "payload" for token in target)
        self._loop = Loop(
            variable.text, (target[0].start, target[-1].end), target_tokens=len(target), target_reads=reads
        )
        self._source.loops.append(self._loop)
        self._source.loop_variables.add(variable.text)
        self._open.append(("(", self._loop))
        return 4

    def _read_variable(self, position: int) -> None:
        name = self._tokens[position].text
        loop = self._loop
        if loop is not None and name == loop.variable:
            loop.body_variable_reads += 1
            return
        if name not in VARIABLES:
            raise RuleRefused(f"may not read {_quoted(name)}: there are {', '.join(VARIABLES)}")
        self._source.variables.add(name)
        if name == "payload" and loop is not None:
            loop.body_payload_reads += 1
        elif name == "payload":
            self._source.payload_reads += 1
        member = self._text(position + 2) if self._text(position + 1) == "." else None
        # A misspelt member would fail every request.
        if member is not None and VARIABLES[name] and member not in VARIABLES[name] | FUNCTIONS | MACROS:
            raise RuleRefused(
                f"may not read {_quoted(member)} of {name}, which has {', '.join(sorted(VARIABLES[name]))}"
            )

    def _operand_start(self, last: int) -> int:
        """The position where the operand begins whose last token this is: of `[payload.a].all(…)` that of `[`."""
        position = last
        while position >= 0:
            if self._tokens[position].text in _CLOSING:
                position = self._opening(position)
            before = self._tokens[position - 1] if position > 0 else None
            if before is not None and before.text == ".":
                position -= 2
            elif before is not None and self._continues(position):
                position -= 1
            else:
                return max(position, 0)
        return 0

    def _continues(self, position: int) -> bool:
        """Whether what stands before an opening bracket belongs to it: a list that is indexed, a function's name."""
        before = self._tokens[position - 1]
        return self._tokens[position].text in {"(", "["} and (
            before.text in _CLOSING or (before.kind == "name" and before.text != "in")
        )

    def _opening(self, closing: int) -> int:
        depth = 0
        for position in range(closing, -1, -1):
            text = self._tokens[position].text
            depth += (text in _CLOSING) - (text in {"(", "[", "{"})
            if depth == 0:
                return position
        return 0

    def _is_operand(self, position: int) -> bool:
        if position < 0:
            return False
        token = self._tokens[position]
        return token.kind in {"name", "text"} or token.text in _CLOSING

    def _text(self, position: int) -> str:
        """The text of a token; empty beyond both ends, and for text, whose content is not code."""
        if not 0 <= position < len(self._tokens) or self._tokens[position].kind == "text":
            return ""
        return self._tokens[position].text
