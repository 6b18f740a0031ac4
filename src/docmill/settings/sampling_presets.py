"""Sampling presets: temperatures by name (`temperature: balanced`)."""

from __future__ import annotations

from typing import Any

PRESETS = {"focused": 0.2, "balanced": 0.7, "creative": 1.0}


def named_temperature(value: Any) -> Any:
    """The temperature of a preset; anything that is not a string is returned unchanged."""
    return PRESETS.get(value, value) if isinstance(value, str) else value


def preset_of(temperature: float) -> str | None:
    """The name of the preset with this temperature, if there is one."""
    return next((name for name, known in PRESETS.items() if known == temperature), None)
