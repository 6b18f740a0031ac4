"""The remaining time and its interval."""

from __future__ import annotations

import random

import pytest

from docmill.storage.reads.eta import Eta, Pace, RecentAttempt, pace_of


def attempt(finished_at: float, tokens: int, started_at: float = 0.0) -> RecentAttempt:
    return RecentAttempt("w", started_at, finished_at, tokens, None, 0, 0)


def test_an_even_pace_is_exact_and_has_no_spread() -> None:
    attempts = [attempt(5.0 * n + 2.5, tokens=100) for n in range(24)]
    pace = pace_of(attempts, began_at=0.0, now=120.0)
    assert pace.rates == pytest.approx([20.0] * 12)
    assert pace.window_s == 10.0
    assert pace.eta(4_000) == Eta(200.0, 200.0, 200.0)


def test_an_uneven_pace_widens_the_interval_around_the_estimate() -> None:
    calm = Pace([18.0, 22.0, 20.0, 20.0], 10.0).eta(4_000)
    wild = Pace([10.0, 30.0, 20.0, 20.0], 10.0).eta(4_000)
    assert calm is not None
    assert wild is not None
    assert calm.soonest_s is not None
    assert calm.latest_s is not None
    assert wild.soonest_s is not None
    assert wild.latest_s is not None
    assert calm.seconds == wild.seconds == 200.0
    assert wild.soonest_s < calm.soonest_s < 200.0 < calm.latest_s < wild.latest_s


def test_the_interval_holds_four_of_five_real_ends() -> None:
    """Jobs of random length on a pool of 8: predicted after 100 of 400 jobs, compared with the simulated end."""
    inside = runs = 0
    for seed in range(200):
        rng = random.Random(seed)
        free = [0.0] * 8
        ends = []
        for _ in range(400):
            slot = free.index(min(free))
            free[slot] += rng.expovariate(1 / 10)
            ends.append(free[slot])
        ends.sort()
        now = ends[99]
        eta = pace_of([attempt(at, 100) for at in ends[:100]], began_at=0.0, now=now).eta(300 * 100)
        assert eta is not None
        assert eta.soonest_s is not None
        assert eta.latest_s is not None
        runs += 1
        inside += eta.soonest_s <= ends[-9] - now <= eta.latest_s  # the last eight run without neighbours
    assert 0.7 < inside / runs <= 1.0


@pytest.mark.parametrize(
    ("rates", "left", "expected"),
    [([], 10.0, None), ([0.0, 0.0], 10.0, None), ([5.0, 15.0], 100.0, Eta(10.0)), ([1.0, 0.0, 0.0, 9.0], 50.0, None)],
)
def test_too_little_is_no_estimate_or_one_without_an_interval(
    rates: list[float], left: float, expected: Eta | None
) -> None:
    eta = Pace(rates, 10.0).eta(left)
    if expected is None and eta is not None:
        assert eta.latest_s is None, "the upper end is meaningless"
    else:
        assert eta == expected


def test_few_jobs_make_few_windows() -> None:
    assert len(pace_of([attempt(1.0, 5)], 0.0, 10.0).rates) == 1
    assert len(pace_of([attempt(float(n), 5) for n in range(8)], 0.0, 10.0).rates) == 4
    assert pace_of([], 0.0, 10.0) == pace_of([attempt(5.0, 5)], 5.0, 5.0) == Pace()


def test_slow_jobs_are_measured_over_twenty_minutes_and_fast_ones_over_two() -> None:
    slow = [attempt(60.0 * n, tokens=600, started_at=60.0 * (n - 1)) for n in range(1, 21)]
    assert pace_of(slow, 0.0, 1200.0).tokens_per_s == pytest.approx(10.0)
    slow_then_fast = slow[:18] + [attempt(1080.0 + n, tokens=50, started_at=1079.0 + n) for n in range(1, 121)]
    assert pace_of(slow_then_fast, 0.0, 1200.0).tokens_per_s == pytest.approx(50.0)
