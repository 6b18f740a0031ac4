"""How values are written for people and read from what people type."""

from __future__ import annotations

import pytest

from docmill.formatting import (
    compact,
    counted,
    decimal,
    duration,
    energy,
    gib,
    gib_of,
    keep_together,
    money,
    parse_duration,
    parse_size,
    percent,
    precise_duration,
    precise_gib,
    rate,
    short_duration,
)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (precise_duration(0.00001), "0 s"), (precise_duration(0.0004), "0.4 ms"), (precise_duration(0.0123), "12 ms"),
        (precise_duration(0.9999), "1.00 s"), (precise_duration(9.999), "10.0 s"),
        (precise_duration(59.97), "1 min 00 s"), (precise_duration(3599.9), "1 h 00 min"),
        (precise_duration(93_600), "1 d 02 h"), (precise_duration(None), "-"),
        (short_duration(225), "3.75 min"), (short_duration(0.0123), "12 ms"),
        (duration(45.4), "45 s"), (duration(7_620), "2 h 07 min"), (duration(None), "?"),
        (percent(0.934), "93 %"), (percent(0.004), "0.4 %"), (percent(0.0), "0 %"), (percent(1.0), "100 %"),
        (compact(99_999), "99,999"), (compact(123_456), "123 k"), (compact(1_234_567), "1.23 M"),
        (compact(4.56e9), "4.56 G"), (rate(3.21), "3.2"), (rate(99.96), "100"),
        (counted(1, "job"), "1 job"), (counted(1200, "job"), "1,200 jobs"),
        (decimal(0.0), "0.00"), (decimal(1234.5), "1,234.50"), (decimal(0.1), "0.10"),
        (decimal(0.0000125), "0.0000125"),
        (money(0.031249, "EUR"), "0.0312 EUR"), (money(2, ""), "2.00"),
        (energy(1.25), "1.25 kWh"), (energy(0.0003), "0.30 Wh"),
        (gib(24 << 30), "24 GiB"), (gib_of(13 << 29, 8 << 30), "6.5 of 8 GiB"), (precise_gib(24 << 30), "24.00 GiB"),
    ],
)  # fmt: skip
def test_values_are_written_for_people(shown: str, expected: str) -> None:
    assert shown == expected


def test_a_number_and_its_unit_are_kept_together() -> None:
    assert keep_together("5 of 5 jobs took 3.2 s, 93 %") == "5 of 5\u00a0jobs took 3.2\u00a0s, 93\u00a0%"


@pytest.mark.parametrize(("text", "seconds"), [("45s", 45), ("30m", 1_800), ("1.5h", 5_400), ("7d", 604_800)])
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(("text", "size"), [("24GiB", 24 << 30), ("8192 mib", 8 << 30), ("24GB", 24 * 10**9)])
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "24", "h", "soon", "2 weeks"])
def test_a_duration_without_a_number_or_a_unit_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["", "24", "GiB", "24 G", "-4GiB", "0GiB", "1e3MiB"])
def test_a_size_without_a_number_or_a_unit_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)
