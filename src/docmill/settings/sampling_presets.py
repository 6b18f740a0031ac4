"""Temperatures by name, as people ask for them."""

from __future__ import annotations

from typing import Any

PRESETS = {"focused": 0.2, "balanced": 0.7, "creative": 1.0}


def named_temperature(value: Any) -> Any:
    """The temperature of a preset's name; anything else as it is."""
    return PRESETS.get(value, value) if isinstance(value, str) else value


def preset_of(temperature: float) -> str | None:
    """The preset with this temperature."""
    return next((name for name, known in PRESETS.items() if known == temperature), None)
