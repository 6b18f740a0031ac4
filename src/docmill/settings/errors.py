"""The error for wrong settings."""

from __future__ import annotations

from docmill.errors import WrongUse


class SettingsError(WrongUse):
    """A setting is wrong. The message says where it was set, its value and what is allowed."""
