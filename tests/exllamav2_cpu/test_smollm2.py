"""SmolLM2-135M itself on the stand-in, against a plain forward pass in fp32 over the same weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from docmill.catalogue.local_model import Model
from tests.exllamav2_cpu import scenarios
from tests.exllamav2_cpu.child import Child
from tests.exllamav2_cpu.models import smollm2

QUESTIONS = (
    "What is the capital of France?",
    "Name three primary colors.",
    "Write one sentence about the moon.",
    "In which year did World War II end?",
    "Give a synonym for 'happy'.",
)

PROMPTS = tuple(
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    for question in QUESTIONS
)

pytestmark = [pytest.mark.slow, pytest.mark.model]


@pytest.fixture(scope="module")
def directory(home: Path, demo_model: Model) -> Path:
    return smollm2(demo_model.path, home / "cache")


def test_greedy_tokens_and_logits_are_those_of_a_plain_forward_pass(child: Child, directory: Path) -> None:
    compared = child.run(scenarios.compare, directory, PROMPTS, 16)
    errors = np.array([answer.mean_logit_error for answer in compared])
    assert errors.max() < 0.03, f"on logits that range over {compared[0].logit_range:.0f}"
    assert compared[0].logit_range > 20
    same = [answer.chosen == answer.best for answer in compared]
    assert sum(same) >= len(QUESTIONS) - 1, [answer for answer in compared if answer.chosen != answer.best]


def test_first_answer_names_the_capital_of_france(child: Child, directory: Path) -> None:
    assert "Paris" in child.run(scenarios.answer, directory, PROMPTS[0])


def test_quantized_cache_hardly_changes_the_logits(child: Child, directory: Path) -> None:
    for bits, bound in ((8, 0.15), (4, 2.0)):
        compared = child.run(scenarios.compare, directory, PROMPTS[:2], 8, cache_bits=bits)
        assert max(answer.mean_logit_error for answer in compared) < bound
