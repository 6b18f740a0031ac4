"""Sizes of memory as people write them."""

from __future__ import annotations

import re

import click

_UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*", re.IGNORECASE)


class MemorySize(click.ParamType[int]):
    """`24GiB`, `8192MiB`, `24GB`: a number with its unit, above 0. Gives bytes."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Bytes. A number without a unit is refused: nobody knows what it counts."""
        if isinstance(value, int):
            return value
        found = _SIZE.fullmatch(str(value))
        unit = _UNITS.get(found[2].lower()) if found else None
        if found is None or unit is None:
            self.fail(f"{value!r} is not a size; write it with its unit, as 24GiB, 24GB or 8192MiB", param, ctx)
        size = int(float(found[1]) * unit)
        if size < 1:
            self.fail(f"{value!r} is nothing", param, ctx)
        return size


def gib(size_bytes: int) -> str:
    """As `23.99 GiB`."""
    return f"{size_bytes / (1 << 30):,.2f} GiB"
