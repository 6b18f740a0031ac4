"""Token ids of parts of a text, copied from those of the whole where that is exact, to encode a long text only once.

Byte-level tokenizers split a text into words with a regular expression and encode each word alone. At a single space
between two letters, the known expressions begin a new word whatever comes before and after. So at such a word border,
and only there, `encode(a + b) == encode(a) + encode(b)`.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from dataclasses import dataclass
from typing import Protocol

from tokenizers import Tokenizer
from tokenizers.normalizers import NFC

from docmill.producer.gguf_tokenizer import WORD_PATTERNS

_LETTER = "[A-Za-zÀ-ÖØ-öø-ſΑ-ΡΣ-Ωα-ωА-я]"  # noqa: RUF001 - letters in every version of Unicode
_BORDER = re.compile(f"{_LETTER}(?= {_LETTER})")  # the border is the match's end
_REACH = 512  # characters searched for a border
_SLICE = 8192  # characters encoded in one call: longer texts take more time per character


class Encoder(Protocol):
    """The part of `docmill.producer.tokenizer.ModelTokenizer` that this module uses."""

    splits_at_words: bool

    def encode(self, text: str) -> list[int]: ...
    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]: ...


@dataclass(frozen=True, slots=True)
class EncodedText:
    """A text and its token ids. `inner` is its part from the first to the last word border, with its `inner_ids`."""

    text: str
    ids: list[int]
    inner: str = ""
    inner_ids: list[int] | None = None


class TokenWindow:
    """A long text, encoded once.

    `starts` are the beginnings of the tokens. If the tokenizer does not split at words, they may be off by a token or
    two every 8,192 characters.
    """

    def __init__(self, text: str, encoder: Encoder) -> None:
        self.text = text
        self._encoder = encoder
        self._ids: list[int] = []
        self.starts: list[int] = []
        base = 0
        while base < len(text):
            end = self._slice_end(base)
            ids, offsets = encoder.encode_with_offsets(text[base:end])
            self._ids += ids
            self.starts += [base + start for start, _ in offsets]
            base = end

    def encode(self, start: int, end: int) -> EncodedText:
        """The characters `start` to `end` with exactly the ids that they have alone."""
        text = self.text[start:end]
        first = _BORDER.search(self.text, start, end) if self._encoder.splits_at_words else None
        last = _last_border(self.text, max(start, end - _REACH), end)
        if first is None or last is None or first.end() >= last:
            return EncodedText(text, self._encoder.encode(text))
        inner_ids = self._ids[bisect_left(self.starts, first.end()) : bisect_left(self.starts, last)]
        head, tail = self._encoder.encode(self.text[start : first.end()]), self._encoder.encode(self.text[last:end])
        return EncodedText(text, [*head, *inner_ids, *tail], self.text[first.end() : last], inner_ids)

    def _slice_end(self, base: int) -> int:
        end = base + _SLICE
        if end >= len(self.text):
            return len(self.text)
        if not self._encoder.splits_at_words:
            return end
        found = _BORDER.search(self.text, end)
        return found.end() if found else len(self.text)


def encode_around(text: str, known: EncodedText | None, encoder: Encoder) -> list[int]:
    """Exactly `encoder.encode(text)`, reusing the ids of `known` if `text` contains it."""
    if known is None or known.inner_ids is None:
        return encoder.encode(text)
    start = text.find(known.inner)
    end = start + len(known.inner)
    if start < 1 or not (_BORDER.match(text, start - 1) and _BORDER.match(text, end - 1)):
        return encoder.encode(text)
    return [*encoder.encode(text[:start]), *known.inner_ids, *encoder.encode(text[end:])]


def splits_at_words(tokenizer: Tokenizer) -> bool:
    """True if the tokenizer is known to split at words as described above."""
    if tokenizer.pre_tokenizer is None or not isinstance(tokenizer.normalizer, NFC | None):
        return False
    added = tokenizer.get_added_tokens_decoder().values()
    if any(" " in token.content or token.lstrip or token.rstrip or token.single_word for token in added):
        return False
    steps = json.loads(tokenizer.pre_tokenizer.__getstate__())
    steps = steps["pretokenizers"] if steps["type"] == "Sequence" else [steps]
    return all(map(_is_known, steps)) and any(step["type"] == "Split" or step.get("use_regex") for step in steps)


def _is_known(step: dict[str, object]) -> bool:
    match step:
        case {"type": "Digits"} | {"type": "ByteLevel", "add_prefix_space": False}:
            return True
        case {"type": "Split", "pattern": {"Regex": str(pattern)}, "behavior": "Isolated", "invert": False}:
            return pattern in WORD_PATTERNS
    return False


def _last_border(text: str, start: int, end: int) -> int | None:
    last = None
    for found in _BORDER.finditer(text, start, end):
        last = found.end()
    return last
