"""Credentials never leave the settings: URLs are shown without their password."""

from __future__ import annotations

import re
from typing import Any

_PASSWORD = re.compile(r"(?P<before>[a-z][a-z0-9+.-]*://[^:/@\s]*:)[^@\s]+(?=@)", re.IGNORECASE)


def mask(value: Any) -> Any:
    """The value; text with the password of every URL in it replaced."""
    return _PASSWORD.sub(r"\g<before>***", value) if isinstance(value, str) else value
