from __future__ import annotations

import pytest

from docmill.worker.crash_and_retry_policy import GiveUp, RestartPolicy, Retry, RetryPolicy
from docmill.worker.engines.base import EngineDied, EngineError, EngineFailed, PromptTooLong, RequestRefused


@pytest.mark.parametrize("error", [RequestRefused("no"), PromptTooLong(10, 5, 12)])
def test_a_refused_request_is_never_tried_again(error: EngineError) -> None:
    assert RetryPolicy(max_attempts=9).decide(error, failures=0) == GiveUp(type(error).__name__)


def test_an_engine_that_raised_is_tried_again_until_the_attempts_are_used_up() -> None:
    policy = RetryPolicy(max_attempts=3)
    assert isinstance(policy.decide(EngineFailed("x"), failures=0), Retry)
    assert isinstance(policy.decide(EngineFailed("x"), failures=1), Retry)
    assert policy.decide(EngineFailed("x"), failures=2) == GiveUp("EngineFailed")


def test_a_request_that_killed_the_engine_often_enough_is_poison_whatever_the_attempts_left() -> None:
    policy = RetryPolicy(max_attempts=9, poison_deaths=2)
    assert isinstance(policy.decide(EngineDied("x"), failures=0, deaths=0), Retry)
    assert policy.decide(EngineDied("x"), failures=1, deaths=1) == GiveUp("Poison")


def test_other_failures_do_not_make_a_request_poison_nor_deaths_use_up_its_attempts() -> None:
    policy = RetryPolicy(max_attempts=3, poison_deaths=3)
    assert isinstance(policy.decide(EngineDied("x"), failures=2, deaths=0), Retry)
    assert isinstance(policy.decide(EngineFailed("x"), failures=3, deaths=2), Retry)
    assert policy.decide(EngineFailed("x"), failures=4, deaths=2) == GiveUp("EngineFailed")


def test_the_wait_doubles_to_its_cap_and_is_jittered() -> None:
    policy = RetryPolicy(max_attempts=100, base_s=1.0, max_s=8.0)
    for failures, around_s in [(0, 1), (1, 2), (2, 4), (3, 8), (4, 8), (50, 8)]:
        delays = []
        for _ in range(50):
            decision = policy.decide(EngineFailed("x"), failures)
            assert isinstance(decision, Retry)
            delays.append(decision.delay_s)
        assert around_s * 0.5 <= min(delays) < max(delays) <= around_s * 1.5


def test_an_engine_is_given_up_after_three_crashes_in_a_row_while_loading() -> None:
    policy = RestartPolicy()
    crashes = [(False, False), (False, False), (True, True), (False, False), (False, False), (False, False)]
    delays = [policy.delay_after_crash(was_loaded=loaded, had_results=results) for loaded, results in crashes]
    assert [delay is None for delay in delays] == [False] * 5 + [True]


def test_an_engine_that_crashes_without_results_is_restarted_more_and_more_slowly() -> None:
    policy = RestartPolicy()
    delays = [policy.delay_after_crash(was_loaded=True, had_results=False) for _ in range(10)]
    assert delays == [0, 0, 0, 2, 4, 8, 16, 32, 60, 60]
    assert policy.delay_after_crash(was_loaded=True, had_results=True) == 0
