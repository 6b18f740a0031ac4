"""The time left and its spread."""

from __future__ import annotations

import random

import pytest

from docmill.insight.eta import Eta, Finish, estimate, windows_of


def test_an_even_pace_is_exact_and_has_no_spread() -> None:
    finishes = [Finish(at=5.0 * n + 2.5, tokens=100) for n in range(24)]
    rates = windows_of(finishes, since=0.0, now=120.0)
    assert rates == pytest.approx([20.0] * 12)
    assert estimate(rates, 10.0, tokens_left=4_000) == Eta(200.0, 200.0, 200.0)


def test_an_uneven_pace_widens_the_spread_around_the_estimate() -> None:
    calm = estimate([18.0, 22.0, 20.0, 20.0], 10.0, 4_000)
    wild = estimate([10.0, 30.0, 20.0, 20.0], 10.0, 4_000)
    assert calm is not None
    assert wild is not None
    assert calm.soonest_s is not None
    assert calm.latest_s is not None
    assert wild.soonest_s is not None
    assert wild.latest_s is not None
    assert calm.seconds == wild.seconds == 200.0
    assert wild.soonest_s < calm.soonest_s < 200.0 < calm.latest_s < wild.latest_s


def test_the_spread_holds_four_of_five_real_ends() -> None:
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
        rates = windows_of([Finish(at, 100) for at in ends[:100]], since=0.0, now=now)
        eta = estimate(rates, now / len(rates), tokens_left=300 * 100)
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
def test_too_little_is_no_estimate_or_one_without_a_spread(
    rates: list[float], left: float, expected: Eta | None
) -> None:
    eta = estimate(rates, 10.0, left)
    if expected is None and eta is not None:
        assert eta.latest_s is None, "nobody can say how late it may be"
    else:
        assert eta == expected


def test_few_jobs_make_few_windows() -> None:
    assert len(windows_of([Finish(1.0, 5)], 0.0, 10.0)) == 1
    assert len(windows_of([Finish(float(n), 5) for n in range(8)], 0.0, 10.0)) == 4
    assert windows_of([], 5.0, 5.0) == []
