"""The stand-in's sampler and attention against plain arithmetic."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from tests.exllamav2_cpu import kernel_calls
from tests.exllamav2_cpu.child import Child

LOGITS = [math.log(p) for p in (0.05, 0.4, 0.15, 0.3, 0.1)]  # probabilities of tokens 0 to 4


@pytest.mark.parametrize(
    ("settings", "probabilities"),
    [
        ({}, {0: 0.05, 1: 0.4, 2: 0.15, 3: 0.3, 4: 0.1}),
        ({"temperature": 0.0}, {1: 1.0}),
        ({"top_k": 1}, {1: 1.0}),
        ({"top_k": 2}, {1: 4 / 7, 3: 3 / 7}),
        ({"top_p": 0.71}, {1: 4 / 7, 3: 3 / 7}),
        ({"top_p": 0.76}, {1: 4 / 7, 3: 3 / 7}),  # the token that crosses it is out, unlike elsewhere
        ({"top_p": 0.2}, {1: 1.0}),
        ({"min_p": 0.3}, {1: 0.4 / 0.85, 2: 0.15 / 0.85, 3: 0.3 / 0.85}),
        ({"temperature": 0.5}, {t: p * p / 0.285 for t, p in enumerate((0.05, 0.4, 0.15, 0.3, 0.1))}),
        ({"temperature": 0.5, "temperature_last": True, "top_k": 2}, {1: 16 / 25, 3: 9 / 25}),
    ],
    ids=str,
)
def test_sampler_draws_what_the_settings_leave(
    child: Child, settings: dict[str, float], probabilities: dict[int, float]
) -> None:
    draws = 400
    counts = Counter(child.run(kernel_calls.draw, LOGITS, draws, settings))
    assert set(counts) == set(probabilities)
    for token, probability in probabilities.items():
        assert counts[token] / draws == pytest.approx(probability, abs=0.01)


def test_penalties_lower_each_token_that_was_there(child: Child) -> None:
    sequence = [1, 1, 4, 99]  # 99 lies outside of the vocabulary
    penalized = child.run(kernel_calls.penalize, [2.0, 2.0, -2.0, 0.5, -1.0], sequence, 2.0, -1, 0.25, 0.5)
    assert penalized == pytest.approx([2.0, 1.0 - 0.5 - 2 * 0.25, -2.0, 0.5, -2.0 - 0.5 - 0.25])
    assert child.run(kernel_calls.penalize, [2.0, 2.0], [0, 1], 2.0, 1, 0.0, 0.0) == [2.0, 1.0]


@pytest.mark.parametrize("option", ["mirostat", "tfs", "smoothing_factor"])
def test_sampling_that_is_not_stood_in_for_is_refused(child: Child, option: str) -> None:
    with pytest.raises(NotImplementedError, match=r"mirostat|tfs|smoothing"):
        child.run(kernel_calls.draw, LOGITS, 1, {option: 0.5})


def test_filter_keeps_only_what_both_lists_allow(child: Child) -> None:
    assert child.run(kernel_calls.allowed_by_both, 6, [0, 2, 5], [2, 3, 5]) == [2, 5]


@pytest.mark.parametrize(
    ("text", "strings", "found"),
    [
        ("say STOP now", ["STOP"], 4),
        ("say ST", ["STOP"], -2),
        ("say S0", ["STOP"], -1),
        ("aab", ["ab"], 1),
        ("naïve 水", ["水車"], -2),
        ("one END", ["車", "END"], 4),
        ("", ["x"], -1),
    ],
)
def test_stop_strings_are_found_whole_or_begun(child: Child, text: str, strings: list[str], found: int) -> None:
    assert child.run(kernel_calls.find_strings, text, strings) == found


@pytest.mark.parametrize(
    "options",
    [{}, {"window_size": (5, 5)}, {"softcap": 2.0}, {"softmax_scale": 0.3}],
    ids=["plain", "window", "cap", "scale"],
)
def test_paged_attention_is_attention(child: Child, options: dict[str, object]) -> None:
    paged, whole, plain = child.run(kernel_calls.attend, options)
    np.testing.assert_array_equal(paged, whole)
    np.testing.assert_allclose(whole, plain, atol=2e-3)
