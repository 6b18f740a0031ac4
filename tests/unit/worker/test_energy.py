from __future__ import annotations

import pytest

from docmill.worker.telemetry.energy import EnergyShares


class Counter:
    """A board's energy counter."""

    def __init__(self) -> None:
        self.joules: float | None = 1000.0

    def read(self) -> float | None:
        return self.joules


@pytest.fixture
def counter() -> Counter:
    return Counter()


def test_what_is_drawn_is_shared_equally_by_those_that_run_at_the_time(counter: Counter) -> None:
    shares = EnergyShares(counter.read)
    shares.measure(0.0, 1)
    counter.joules = 1100.0
    shares.measure(10.0, 2)  # a second one begins
    counter.joules = 1300.0
    shares.measure(20.0, 1)  # the first ends
    counter.joules = 1350.0
    shares.measure(30.0, 0)
    first, second = shares.share_j(0.0, 20.0), shares.share_j(10.0, 30.0)
    assert (first, second) == (200.0, 150.0)
    assert first + second == 1350 - 1000


def test_what_an_idle_gpu_draws_is_charged_to_no_request(counter: Counter) -> None:
    shares = EnergyShares(counter.read)
    shares.measure(0.0, 0)
    counter.joules = 6000.0
    shares.measure(100.0, 1)
    counter.joules = 6030.0
    shares.measure(101.0, 0)
    assert shares.share_j(100.0, 101.0) == 30.0


def test_between_two_looks_the_draw_is_even(counter: Counter) -> None:
    shares = EnergyShares(counter.read)
    shares.measure(0.0, 1)
    counter.joules = 1100.0
    shares.measure(10.0, 0)
    assert shares.share_j(2.0, 4.5) == pytest.approx(25.0)


def test_looks_that_follow_each_other_at_once_read_nothing(counter: Counter) -> None:
    reads: list[float | None] = []

    def read() -> float | None:
        reads.append(counter.joules)
        return counter.joules

    shares = EnergyShares(read, every_s=0.25)
    for step in range(100):
        shares.measure(step * 0.01, 1)
    assert len(reads) == 4
    shares.measure(1.0, 2)
    assert len(reads) == 5


def test_gpus_that_do_not_tell_give_nothing(counter: Counter) -> None:
    counter.joules = None
    shares = EnergyShares(counter.read)
    shares.measure(0.0, 1)
    shares.measure(1.0, 0)
    assert shares.share_j(0.0, 1.0) is None


def test_days_of_looks_take_no_more_memory_and_the_last_hours_are_right(counter: Counter) -> None:
    shares = EnergyShares(counter.read)
    for second in range(100_000):
        counter.joules = 1000.0 + second * 2
        shares.measure(float(second), 1)
    assert len(shares._times) <= 40_000
    assert shares.share_j(99_000.0, 99_500.0) == pytest.approx(1000.0)
    assert shares.share_j(0.0, 10.0) is None
