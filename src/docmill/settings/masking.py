"""Hide the passwords in URLs, so that credentials never appear in output, logs or errors."""

from __future__ import annotations

import re
from typing import Any

# A password may contain "@": it ends at the last one.
_PASSWORD = re.compile(r"(?P<before>[a-z][a-z0-9+.-]*://[^:/@\s]*:)\S+(?=@)", re.IGNORECASE)
_PARAMETER = re.compile(r"(?P<before>[?&](?:password|ssl_?password)=)[^&#\s'\"]+", re.IGNORECASE)


def mask(value: Any) -> Any:
    """Replace the password of every URL in a text; other values are returned unchanged."""
    if not isinstance(value, str):
        return value
    return _PARAMETER.sub(r"\g<before>***", _PASSWORD.sub(r"\g<before>***", value))
