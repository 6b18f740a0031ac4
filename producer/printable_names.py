"""Names of documents, as every terminal, log and table can show them."""

from __future__ import annotations

import re

_UNSHOWN = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # lone surrogates: file names need not be UTF-8


def shown_name(name: str) -> str:
    """The name with U+FFFD for each control character, which could move a terminal's cursor or forge a log line."""
    return _UNSHOWN.sub("\ufffd", name)
