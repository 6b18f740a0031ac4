"""Generates text for the benchmarks from Python's own documentation, reproducibly from a seed, without a download."""

from __future__ import annotations

import random
import re


def prose(*, seed: int, characters: int) -> str:
    """Shuffled paragraphs of Python's language reference, with at least this many characters."""
    from pydoc_data.topics import topics

    paragraphs = [p for topic in topics.values() for p in re.split(r"\n\s*\n", topic) if len(p) > 80]
    rng = random.Random(seed)
    parts: list[str] = []
    size = 0
    while size < characters:
        words = rng.choice(paragraphs).split(" ")
        at = rng.randrange(len(words))
        parts.append(" ".join(words[at:] + words[:at]))
        size += len(parts[-1]) + 2
    return "\n\n".join(parts)
