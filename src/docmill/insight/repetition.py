"""How much of a text only says again what it said before."""

from __future__ import annotations

import regex

_RUN = 6  # words: shorter runs come again in honest prose
_SHORTEST = 30  # words: less can hardly be told from a list
_WORDS = regex.compile(r"\w+")


def share_repeated(text: str) -> float:
    """The share of the text's runs of six words that occurred earlier in it, 0 to 1; 0 for a short text."""
    words = [word.lower() for word in _WORDS.findall(text)]
    if len(words) < _SHORTEST:
        return 0.0
    runs = [tuple(words[at : at + _RUN]) for at in range(len(words) - _RUN + 1)]
    return 1.0 - len(set(runs)) / len(runs)
