"""On the stand-in for the driver's library that the exllamav2 tests use: there is no GPU here."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from docmill.worker.telemetry.gpu_meter import open_gpu_meter

SITE = Path(__file__).parent.parent.parent / "exllamav2_cpu" / "site"
GIB = 1 << 30


@pytest.fixture(autouse=True)
def driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two GPUs of 24 GiB."""
    monkeypatch.syspath_prepend(str(SITE))
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    monkeypatch.setenv("DOCMILL_TEST_GPUS", "2")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_all_visible_gpus_are_measured_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCMILL_TEST_POWER_W", "100,200")
    both = open_gpu_meter()
    assert both is not None
    assert (both.power_w(), both.busy_percent(), both.used_bytes()) == (300.0, 50.0, 2 * GIB)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    one = open_gpu_meter()
    assert one is not None
    assert (one.power_w(), one.used_bytes()) == (200.0, GIB)


def test_energy_is_the_boards_own_counter_in_joules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCMILL_TEST_POWER_W", "100,200")
    meter = open_gpu_meter()
    assert meter is not None
    first, second = meter.energy_j(), meter.energy_j()
    assert first is not None
    assert second is not None
    assert second >= first > 0


def test_a_board_without_a_counter_is_asked_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCMILL_TEST_POWER_W", raising=False)
    meter = open_gpu_meter()
    assert meter is not None
    assert (meter.energy_j(), meter.power_w()) == (None, None)
    assert meter.busy_percent() == 50.0


def test_without_a_driver_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCMILL_TEST_GPUS", "0")
    assert open_gpu_meter() is None
