"""Text for the benchmarks, made from what every Python has: no corpus to download, the same text for a seed."""

from __future__ import annotations

import random
import re


def prose(*, seed: int, characters: int) -> str:
    """Paragraphs of Python's language reference in a shuffled order, at least this many characters."""
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
