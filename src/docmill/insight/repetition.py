"""How much of a text repeats what it said before."""

from __future__ import annotations

import regex

_RUN_WORDS = 6  # shorter runs of words recur in normal prose
_SHORTEST_WORDS = 30  # a shorter text can hardly be told from a list
_WORD = regex.compile(r"\w+")


def share_repeated(text: str) -> float:
    """The share of the text's runs of six words that occurred earlier in it, 0 to 1; 0 for a short text."""
    words = [word.lower() for word in _WORD.findall(text)]
    if len(words) < _SHORTEST_WORDS:
        return 0.0
    runs = [tuple(words[at : at + _RUN_WORDS]) for at in range(len(words) - _RUN_WORDS + 1)]
    return 1.0 - len(set(runs)) / len(runs)
