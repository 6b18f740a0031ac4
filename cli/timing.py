"""How the command line writes durations."""

from __future__ import annotations


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
