"""What can be wrong with the configuration."""

from __future__ import annotations

from docmill.errors import WrongUse


class SettingsError(WrongUse):
    """A setting is wrong; the message names where it was set, its value and what would be right."""
