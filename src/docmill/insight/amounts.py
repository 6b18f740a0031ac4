"""Bytes in words: memory in GiB, as it is sold and as `docmill plan` counts it; files and disks in GB."""

from __future__ import annotations

_GIB = 1 << 30


def gib(size_bytes: int) -> str:
    """As `23.5 GiB`, `24 GiB`."""
    size = round(size_bytes / _GIB, 1)
    return f"{size:,.0f} GiB" if size == int(size) else f"{size:,.1f} GiB"


def gib_of(used_bytes: int, all_bytes: int) -> str:
    """As `6.4 of 8 GiB`."""
    return f"{gib(used_bytes).removesuffix(' GiB')} of {gib(all_bytes)}"


def gb(size_bytes: int) -> str:
    """As `4.1 GB`."""
    return f"{size_bytes / 10**9:,.1f} GB"
