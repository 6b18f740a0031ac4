"""How numbers, durations, sizes, money and moments are written for people, and read from what people type.

Every function separates a number from its unit with one ordinary space; `keep_together` makes those spaces
no-break spaces for text that may be wrapped.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime

NBSP = "\u00a0"

_GIB = 1 << 30
_COMPACT_FROM = 100_000
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*", re.IGNORECASE)
_BEFORE_UNIT = re.compile(r"(?<=\d) (?!of\b)(?=[^\W\d]|[%\u00d7])")


def number(value: float) -> str:
    """A whole number: `1,234`."""
    return f"{round(value):,}"


def compact(value: float) -> str:
    """Like `number`, with large numbers abbreviated: `123 k`, `1.23 M`, `4.5 G`."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= max(size, _COMPACT_FROM):
            scaled = value / size
            return f"{scaled:.{2 if scaled < 10 else 1 if scaled < 100 else 0}f} {letter}"
    return number(value)


def counted(amount: int, noun: str) -> str:
    """A count with its noun: `1 job`, `1,200 jobs`."""
    return f"{amount:,} {noun}" if amount == 1 else f"{amount:,} {noun}s"


def rate(value: float) -> str:
    """Something per second: `3.2`, `1,234`, `123 k`."""
    return f"{value:.1f}" if value < 99.95 else compact(value)


def percent(share: float | None) -> str:
    """A share of 1: `93 %`, `0.4 %`; `-` for None."""
    if share is None:
        return "-"
    return f"{share:.{1 if 0 < share < 0.0995 else 0}%}".replace("%", " %")


def ratio(value: float | None) -> str:
    """A factor, such as `1.25` and a times sign; `-` for None."""
    return "-" if value is None else f"{value:,.{2 if value < 100 else 0}f} \u00d7"


def duration(seconds: float | None) -> str:
    """Whole seconds and longer: `45 s`, `3 min 05 s`, `2 h 07 min`, `4 d 02 h`; `?` for None."""
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


def precise_duration(seconds: float | None) -> str:
    """Like `duration`, with three digits below a minute: `0.4 ms`, `12 ms`, `1.25 s`, `45.1 s`; `-` for None."""
    if seconds is None:
        return "-"
    if seconds < 0.00005:
        return "0 s"
    if seconds < 0.9995:
        return f"{seconds * 1000:.{1 if seconds < 0.00995 else 0}f} ms"
    if seconds < 59.95:
        return f"{seconds:.{2 if seconds < 9.995 else 1}f} s"
    return duration(seconds)


def short_duration(seconds: float | None) -> str:
    """Like `precise_duration`, in one unit above a minute: `3.75 min`, `2.12 h`."""
    if seconds is None or seconds < 59.95:
        return precise_duration(seconds)
    units = ((86400, "d"), (3600, "h"), (60, "min"))
    size, unit = next((size, unit) for size, unit in units if seconds >= size * 0.9995)
    scaled = seconds / size
    return f"{scaled:.{2 if scaled < 9.995 else 1}f} {unit}"


def gib(size_bytes: float) -> str:
    """Memory: `23.5 GiB`, `24 GiB`."""
    size = round(size_bytes / _GIB, 1)
    return f"{size:,.0f} GiB" if size == int(size) else f"{size:,.1f} GiB"


def gib_of(used_bytes: float, all_bytes: float) -> str:
    """Memory used out of all there is: `6.4 of 8 GiB`."""
    return f"{gib(used_bytes).removesuffix(' GiB')} of {gib(all_bytes)}"


def precise_gib(size_bytes: float) -> str:
    """Memory with two decimals: `23.99 GiB`."""
    return f"{size_bytes / _GIB:,.2f} GiB"


def gb(size_bytes: float) -> str:
    """Files and disks: `4.1 GB`."""
    return f"{size_bytes / 10**9:,.1f} GB"


def decimal(amount: float) -> str:
    """Two decimals, or three digits below 1, without an exponent: `12.40`, `0.0312`, `0.0000125`."""
    if amount >= 1 or amount <= 0:
        return f"{amount:,.2f}"
    decimals = 2 - math.floor(math.log10(amount))
    return f"{amount:.{decimals}f}".rstrip("0").ljust(len("0.00"), "0")


def money(amount: float, currency: str) -> str:
    """An amount and its currency, which may be empty: `12.40 EUR`, `0.0312`."""
    return f"{decimal(amount)} {currency}" if currency else decimal(amount)


def energy(kwh: float) -> str:
    """`1.25 kWh`, `0.31 Wh`."""
    return f"{decimal(kwh)} kWh" if kwh >= 0.1 else f"{decimal(kwh * 1000)} Wh"


def iso(at: float) -> str:
    """A moment for programs, given in seconds since 1970: ISO 8601 in UTC. The report's template uses it."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def moment(at: float) -> str:
    """A moment for people, given in seconds since 1970: date and time in the local time zone."""
    return datetime.fromtimestamp(at, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def keep_together(text: str) -> str:
    """`text` with a no-break space between each number and its unit or noun."""
    return _BEFORE_UNIT.sub(NBSP, text)


def parse_duration(text: str) -> float:
    """The seconds of `45s`, `30m`, `24h` or `7d`. Raises ValueError."""
    try:
        return float(text[:-1]) * _SECONDS[text[-1:]]
    except (ValueError, KeyError):
        raise ValueError(f"{text!r} is not a duration like 30m, 24h or 7d") from None


def parse_size(text: str) -> int:
    """The bytes of `24GiB`, `8192MiB` or `24GB`. Raises ValueError for a size of 0 and for one without a unit."""
    found = _SIZE.fullmatch(text)
    unit = _BYTES.get(found[2].lower()) if found else None
    if found is None or unit is None:
        raise ValueError(f"{text!r} is not a size; write a number and its unit, such as 24GiB, 24GB or 8192MiB")
    size = int(float(found[1]) * unit)
    if size < 1:
        raise ValueError(f"{text!r} is not a size above 0")
    return size
