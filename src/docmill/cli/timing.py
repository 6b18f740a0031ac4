"""How the command line writes durations."""

from __future__ import annotations

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def duration(seconds: float | None) -> str:
    """`45 s`, `3 min 05 s`, `2 h 07 min`, `4 d 02 h`; `?` when unknown."""
    if seconds is None:
        return "?"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02} h"


def seconds_of(text: str) -> float | None:
    """The seconds of `45s`, `30m`, `2h`, `7d`; None for what is no duration."""
    try:
        return float(text[:-1]) * _UNITS_S[text[-1:]]
    except (ValueError, KeyError):
        return None
