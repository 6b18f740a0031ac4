"""How a report writes numbers, times and money. A number and its unit are never torn apart by a line's end."""

from __future__ import annotations

import math
from datetime import UTC, datetime

_MANY = 100_000
NBSP = "\u00a0"
_TIMES = "\u00a0\u00d7"


def number(value: float) -> str:
    """`1,234`."""
    return f"{round(value):,}"


def compact(value: float) -> str:
    """As `number`, large ones shorter: `123 k`, `1.23 M`, `4.5 G`."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= max(size, _MANY):
            scaled = value / size
            return f"{scaled:.{2 if scaled < 10 else 1 if scaled < 100 else 0}f}{NBSP}{letter}"
    return number(value)


def rate(value: float) -> str:
    """Something a second: `3.2`, `1,234`, `123 k`."""
    return f"{value:.1f}" if value < 99.95 else compact(value)


def seconds(value: float | None) -> str:
    """`0.4 ms`, `12 ms`, `1.25 s`, `45.1 s`, `3 min 05 s`, `2 h 07 min`, `4 d 02 h`; `-` for None."""
    return "-" if value is None else _seconds(value).replace(" ", NBSP)


def _seconds(value: float) -> str:
    if value < 0.9995:
        return "0 s" if value < 0.00005 else f"{value * 1000:.{1 if value < 0.00995 else 0}f} ms"
    if value < 59.95:
        return f"{value:.{2 if value < 9.995 else 1}f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02} h"


def brief(value: float | None) -> str:
    """As `seconds`, longer ones shorter: `3.75 min`, `2.12 h`."""
    if value is None or value < 59.95:
        return seconds(value)
    size, unit = next((size, unit) for size, unit in ((86400, "d"), (3600, "h"), (60, "min")) if value >= size * 0.9995)
    scaled = value / size
    return f"{scaled:.{2 if scaled < 9.995 else 1}f}{NBSP}{unit}"


def percent(share: float | None) -> str:
    """`93 %`, `0.4 %`; `-` for None."""
    if share is None:
        return "-"
    return f"{share:.{1 if 0 < share < 0.0995 else 0}%}".replace("%", f"{NBSP}%")


def decimal(amount: float) -> str:
    """Two decimals, three digits of what is less than 1, and never an exponent: `12.40`, `0.0312`, `0.0000125`."""
    if amount >= 1 or amount <= 0:
        return f"{amount:,.2f}"
    decimals = 2 - math.floor(math.log10(amount))
    return f"{amount:.{decimals}f}".rstrip("0").ljust(len("0.00"), "0")


def money(amount: float, currency: str) -> str:
    """As `decimal`: `12.40 EUR`."""
    return f"{decimal(amount)}{NBSP}{currency}" if currency else decimal(amount)


def energy(kwh: float) -> str:
    """`1.25 kWh`, `0.31 Wh`."""
    return f"{decimal(kwh)}{NBSP}kWh" if kwh >= 0.1 else f"{decimal(kwh * 1000)}{NBSP}Wh"


def ratio(value: float | None) -> str:
    """`1.25` and a times sign; `-` for None."""
    return "-" if value is None else f"{value:,.{2 if value < 100 else 0}f}{_TIMES}"


def counted(amount: int, noun: str) -> str:
    """`1 job`, `1,200 jobs`."""
    return f"{amount:,}{NBSP}{noun}" if amount == 1 else f"{amount:,}{NBSP}{noun}s"


def iso(at: float) -> str:
    """A moment for a program to read, in UTC."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def moment(at: float) -> str:
    """A moment for a person to read, in this machine's time zone."""
    return datetime.fromtimestamp(at, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
