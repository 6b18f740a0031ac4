"""What can be wrong with the configuration."""

from __future__ import annotations


class SettingsError(Exception):
    """A setting is wrong; the message names where it was set, its value and what would be right."""
