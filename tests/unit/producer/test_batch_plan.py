from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from docmill.producer.batch_plan import MIN_SUMMARY_TOKENS, Plan, room_for_text
from docmill.producer.errors import NoRoomForOutput, NoRoomForText, ProducerError, WindowTooLarge
from docmill.producer.model_text import ModelText
from docmill.producer.task_files import MergeStrategy, Task, TaskFile

PlanOf = Callable[..., tuple[Plan, Task]]
STRATEGIES = list(MergeStrategy)


def task(**values: Any) -> Task:
    return Task.from_file(TaskFile(**({"name": "t", "chunk": "{{ text }}"} | values)), "t.yaml")


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("window", [600, 8192])
def test_a_chunk_its_template_and_the_longest_output_fit_the_window(
    plan_of: PlanOf, model_text: ModelText, strategy: MergeStrategy, window: int
) -> None:
    plan, checked = plan_of(merge_strategy=strategy, context_window=window, chunk_tokens=10_000)
    words = " word" * plan.chunk_tokens
    assert model_text.tokenizer.count(words) == plan.chunk_tokens
    chunk = checked.chunk.render(text=words, document="report.txt", index=1)
    prompt = len(model_text.renderer.render(plan.task.system, chunk).ids)
    carried = plan.output_reserve if strategy is MergeStrategy.REFINE else 0
    assert prompt + carried + plan.output_reserve <= window
    assert prompt + carried + plan.output_reserve > window - 80  # not much is given away
    if checked.refine is not None and strategy is MergeStrategy.REFINE:
        summary = " word" * plan.output_reserve
        refine = checked.refine.render(text=words, summary=summary, document="report.txt", index=2)
        assert len(model_text.renderer.render(plan.task.system, refine).ids) + plan.output_reserve <= window


def test_a_longer_refine_prompt_makes_room_for_itself(plan_of: PlanOf, model_text: ModelText) -> None:
    long = "Go on. " * 100 + "{{ summary }} {{ text }}"
    short, _ = plan_of(
        task(refine="{{ summary }} {{ text }}"), merge_strategy=MergeStrategy.REFINE, context_window=2000
    )
    plan, _ = plan_of(task(refine=long), merge_strategy=MergeStrategy.REFINE, context_window=2000)
    assert room_for_text(plan, task(refine=long), model_text) <= room_for_text(short, task(), model_text) - 190


def test_the_smaller_of_window_and_cap_is_the_chunk_and_the_plan_says_which(
    plan_of: PlanOf, model_text: ModelText
) -> None:
    suggested, _ = plan_of()
    assert (suggested.chunk_tokens, suggested.chunk_tokens_from) == (
        model_text.model.suggested_chunk_tokens,
        f"the cap suggested for {model_text.model.name}",
    )
    asked, _ = plan_of(chunk_tokens=300)
    assert (asked.chunk_tokens, asked.chunk_tokens_from) == (300, "--chunk-tokens")
    small, checked = plan_of(chunk_tokens=3000, context_window=1000)
    assert (small.chunk_tokens, small.chunk_tokens_from) == (
        room_for_text(small, checked, model_text),
        "the context window",
    )


def test_the_window_is_never_larger_than_the_models(plan_of: PlanOf) -> None:
    with pytest.raises(WindowTooLarge, match="100000 is more than the 8192 tokens"):
        plan_of(context_window=100_000)


@pytest.mark.parametrize("max_tokens", [1000, 4000])
def test_an_output_as_long_as_the_window_is_refused_with_the_numbers(plan_of: PlanOf, max_tokens: int) -> None:
    with pytest.raises(NoRoomForOutput, match=rf"max_tokens {max_tokens} .*window of 1000 .*--max-tokens"):
        plan_of(max_tokens=max_tokens, context_window=1000)


def test_a_template_that_leaves_no_room_for_text_is_refused_with_the_numbers(
    plan_of: PlanOf, model_text: ModelText
) -> None:
    for strategy in STRATEGIES:
        with pytest.raises(NoRoomForText) as caught:
            plan_of(merge_strategy=strategy, context_window=300, max_tokens=290, summary_tokens=290)
        assert caught.value.limit == 300
        assert caught.value.needed > 300
        assert f"{caught.value.needed} tokens are needed where 300" in str(caught.value)


def test_a_merge_prompt_that_could_not_take_two_answers_is_refused_now_not_later(plan_of: PlanOf) -> None:
    wordy = task(merge="Write it all again, but shorter. " * 60 + "{{ text }}")
    with pytest.raises(NoRoomForText):
        plan_of(wordy, context_window=700)
    for strategy in (MergeStrategy.CONCAT, MergeStrategy.NONE):
        assert plan_of(wordy, context_window=700, merge_strategy=strategy)


def test_a_task_without_a_refine_prompt_cannot_refine(plan_of: PlanOf) -> None:
    with pytest.raises(ProducerError, match="outline has no refine prompt; use --merge tree"):
        plan_of("outline", merge_strategy=MergeStrategy.REFINE)


def test_an_overlap_as_long_as_a_chunk_is_refused_with_the_numbers(plan_of: PlanOf) -> None:
    assert plan_of(chunk_tokens=100, overlap_tokens=99)[0].overlap_tokens == 99
    with pytest.raises(ProducerError, match="overlap of 100 tokens is not smaller than a chunk of 100"):
        plan_of(chunk_tokens=100, overlap_tokens=100)


def test_sampling_is_the_models_then_the_tasks_then_the_users(plan_of: PlanOf) -> None:
    warm = task(sampling={"temperature": 0.9, "top_p": 0.8})
    plan, _ = plan_of(warm, sampling={"top_p": 0.7})
    assert (plan.sampling.repetition_penalty, plan.sampling.temperature, plan.sampling.top_p) == (1.1, 0.9, 0.7)


@pytest.mark.parametrize("wrong", [{"temperature": -1}, {"temperatur": 0.5}, {"top_p": 0}])
def test_bad_sampling_is_refused_by_name(plan_of: PlanOf, wrong: dict[str, Any]) -> None:
    with pytest.raises(ProducerError, match=re.escape(next(iter(wrong)))):
        plan_of(sampling=wrong)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_plan_is_stored_and_read_back_whole(plan_of: PlanOf, strategy: MergeStrategy) -> None:
    plan, _ = plan_of(merge_strategy=strategy, sampling={"stop": ["END"], "seed": 7})
    again = Plan.from_json(plan.to_json())
    assert again == plan
    assert again.checked_task().chunk.render(text="t", document="d", index=1)


@pytest.mark.parametrize("change", [{"added": 1}, {"merge_strategy": "swirl"}, {"task": {"name": "x"}}])
def test_a_stored_plan_of_another_version_is_named_as_such(plan_of: PlanOf, change: dict[str, Any]) -> None:
    with pytest.raises(ProducerError, match="another version"):
        Plan.from_json(plan_of()[0].to_json() | change)


@given(jobs=st.integers(1, 5000), summary=st.integers(1, 2000), most=st.integers(1, 2000))
@settings(max_examples=60)
def test_outputs_share_the_summary_and_levels_shrink_to_one(
    plan_of: PlanOf, jobs: int, summary: int, most: int
) -> None:
    plan, _ = plan_of(summary_tokens=summary, max_tokens=most)
    share = plan.output_tokens(jobs)
    assert 1 <= share <= plan.output_reserve == min(most, summary)
    assert share == plan.output_reserve or share >= max(MIN_SUMMARY_TOKENS, summary // jobs)
    levels = plan.levels(jobs)
    assert levels[0] == jobs
    assert all(later <= (earlier + 1) // 2 for earlier, later in pairwise(levels))
