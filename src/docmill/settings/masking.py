"""Credentials never leave the settings: URLs are shown without their passwords."""

from __future__ import annotations

import re
from typing import Any

# A password may hold "@": it ends at the last one.
_PASSWORD = re.compile(r"(?P<before>[a-z][a-z0-9+.-]*://[^:/@\s]*:)\S+(?=@)", re.IGNORECASE)
_PARAMETER = re.compile(r"(?P<before>[?&](?:password|ssl_?password)=)[^&#\s'\"]+", re.IGNORECASE)


def mask(value: Any) -> Any:
    """The value; text with the password of every URL in it replaced."""
    if not isinstance(value, str):
        return value
    return _PARAMETER.sub(r"\g<before>***", _PASSWORD.sub(r"\g<before>***", value))
