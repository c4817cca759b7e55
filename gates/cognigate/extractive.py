"""`builtin/extract-1`: sentences by the frequency of their words, key words, counts. It is not a language model, and
says so in each output. It is there so that everything can be tried without a key, and lets nobody believe more (CG-16).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from typing import Any, Final

from cognigate.prompts import input_texts
from legivellum_worker.models import Ask, ModelRefused, ModelReply, TokenCounts

EXTRACT_NAME: Final = "builtin/extract-1"
NOTICE: Final = f"Extracted by {EXTRACT_NAME}, which is not a language model."
_MEMBERS: Final = frozenset({"model", "sentences", "keywords", "counts"})
_SENTENCE: Final = re.compile(r"[^.!?\n]+[.!?]*")
_LIST_MARK: Final = re.compile(r"^\s*[-*•]\s+")
_OWN_COUNTS: Final = re.compile(r"\d+ sentences, \d+ words, \d+ inputs\.")
_WORD: Final = re.compile(r"[^\W\d_]{4,}")
_SENTENCES: Final = 5
_KEYWORDS: Final = 8
_LONGEST_SENTENCE: Final = 400


class ExtractiveModel:
    name = EXTRACT_NAME
    deterministic = True

    def reply(self, ask: Ask, deadline: float) -> ModelReply:  # noqa: ARG002 - it is never waited for
        """Raises ModelRefused for a schema that is not of its own members."""
        if ask.output_schema is not None and not _is_own(ask.output_schema):
            raise ModelRefused(f"{EXTRACT_NAME} is no language model and writes no other schema than its own")
        inputs = input_texts(ask.messages)
        for most in range(_SENTENCES, -1, -1):
            text = _written(inputs, most, as_json=ask.output_schema is not None)
            if _tokens(text) <= ask.max_tokens:
                break
        prompt = sum(_tokens(str(message["content"])) for message in ask.messages)
        return ModelReply(
            text,
            "stop" if _tokens(text) <= ask.max_tokens else "length",
            TokenCounts(prompt, _tokens(text)),
            self.name,
            hashlib.sha256(text.encode()).hexdigest(),
        )


def _tokens(text: str) -> int:
    return -(-len(text.encode()) // 4)


def _is_own(schema: Any) -> bool:
    members = set(schema.get("properties") or ()) | set(schema.get("required") or ())
    return bool(members) and members <= _MEMBERS


def _written(inputs: list[str], most: int, *, as_json: bool) -> str:
    document_lines = [line for text in inputs for line in text.splitlines() if not _is_own_line(line)]
    text = "\n".join(_LIST_MARK.sub("", line) for line in document_lines)
    sentences = [sentence.strip() for sentence in _SENTENCE.findall(text) if sentence.strip()]
    frequencies = Counter(word.lower() for word in _WORD.findall(text))
    ranked = sorted(range(len(sentences)), key=lambda index: (-_score(sentences[index], frequencies), index))
    kept = [sentences[index][:_LONGEST_SENTENCE] for index in sorted(ranked[:most])]
    keywords = [word for word, _ in sorted(frequencies.items(), key=lambda item: (-item[1], item[0]))[:_KEYWORDS]]
    counts = {"inputs": len(inputs), "sentences": len(sentences), "words": len(text.split())}
    if as_json:
        return json.dumps(
            {"model": EXTRACT_NAME, "sentences": kept, "keywords": keywords, "counts": counts}, ensure_ascii=False
        )
    lines = [NOTICE, "", *(f"- {sentence}" for sentence in kept), "", f"Key words: {', '.join(keywords) or 'none'}."]
    return "\n".join([*lines, f"{counts['sentences']} sentences, {counts['words']} words, {len(inputs)} inputs.", ""])


def _is_own_line(line: str) -> bool:
    """Whether an earlier summary of this model says it of itself, and not of its document."""
    return line.startswith((NOTICE, "Key words: ")) or _OWN_COUNTS.fullmatch(line) is not None


def _score(sentence: str, frequencies: Counter[str]) -> float:
    words = [word.lower() for word in _WORD.findall(sentence)]
    return sum(frequencies[word] for word in words) / (len(words) + 3)
