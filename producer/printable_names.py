"""Document names that every terminal, log and table can show."""

from __future__ import annotations

import re

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # file names need not be UTF-8: lone surrogates


def printable_name(name: str) -> str:
    """The name with U+FFFD for each control character, which could move a cursor or forge a line of a log."""
    return _UNPRINTABLE.sub("\ufffd", name)
