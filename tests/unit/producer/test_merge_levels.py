from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from docmill.producer.batch_plan import Plan
from docmill.producer.merge_levels import (
    SEPARATOR,
    Decision,
    Done,
    GiveUp,
    NextChunk,
    NextLevel,
    decide,
    whole_sentences,
)
from docmill.producer.model_text import ModelText
from docmill.producer.task_files import MergeStrategy, Task
from docmill.storage.moves.documents import LevelResult
from tests.unit.producer.conftest import NASTY

PlanOf = Callable[..., tuple[Plan, Task]]


def results(*texts: str, tokens: int | None = None, finish: str = "stop") -> list[LevelResult]:
    return [
        LevelResult(position, text, finish, len(text) if tokens is None else tokens)
        for position, text in enumerate(texts)
    ]


@pytest.fixture
def merge(plan_of: PlanOf, model_text: ModelText) -> Callable[..., Decision]:
    """`decide` with the demo model's counts."""

    def decided(
        answers: Sequence[LevelResult], *, level: int = 0, chunks: int | None = None, room: int = 1000, **wishes: object
    ) -> Decision:
        plan, _ = plan_of(**wishes)
        return decide(
            level, len(answers) if chunks is None else chunks, answers, plan,
            room_tokens=room, count=model_text.tokenizer.count, cut=model_text.cut,
        )  # fmt: skip

    return decided


Merge = Callable[..., Decision]


def test_one_answer_is_the_summary(merge: Merge) -> None:
    assert merge(results(" The one answer. \n", tokens=5000)) == Done("The one answer.")


def test_answers_that_fit_the_summary_asked_for_are_joined_without_the_model(merge: Merge) -> None:
    answers = results("One.", "", "Two.", tokens=30)
    assert merge(answers, summary_tokens=90) == Done("One.\n\nTwo.")
    assert isinstance(merge(answers, summary_tokens=89), NextLevel)


def test_longer_answers_are_packed_in_order_into_as_few_jobs_as_fit(merge: Merge, model_text: ModelText) -> None:
    texts = [f"Answer number {n} says this. " * (1 + n % 4) for n in range(20)]
    decision = merge(results(*texts), room=100, summary_tokens=60)
    assert isinstance(decision, NextLevel)
    assert decision.remark is None
    groups = decision.groups
    assert [groups[0].first, groups[-1].last] == [0, 19]
    assert all(later.first == earlier.last + 1 for earlier, later in pairwise(groups))
    count = model_text.tokenizer.count
    stripped = [text.strip() for text in texts]
    for group in groups:
        assert group.text == SEPARATOR.join(stripped[group.first : group.last + 1])
        assert count(group.text) <= 100
    for earlier, later in pairwise(groups):
        assert count(SEPARATOR.join((earlier.text, stripped[later.first]))) > 100


def test_an_answer_longer_than_its_share_is_cut_and_the_document_says_so(merge: Merge, model_text: ModelText) -> None:
    decision = merge(results("Short.", "Long words all the way. " * 100, "Short."), room=200, summary_tokens=60)
    assert isinstance(decision, NextLevel)
    assert decision.remark == "1 answers were cut to 98 tokens before merging"
    assert len(decision.groups) == 1
    assert model_text.tokenizer.count(decision.groups[0].text) <= 200


def test_a_chunk_cap_holds_for_merges_too(merge: Merge, model_text: ModelText) -> None:
    decision = merge(results(*["Some words here. " * 5] * 10), room=5000, chunk_tokens=60, summary_tokens=60)
    assert isinstance(decision, NextLevel)
    assert all(model_text.tokenizer.count(group.text) <= 60 for group in decision.groups)


def test_merging_that_cannot_shrink_gives_up_with_the_reason(merge: Merge) -> None:
    decision = merge(results("One two three.", "Four five six.", tokens=300), room=3, summary_tokens=60)
    assert isinstance(decision, GiveUp)
    assert "2 answers need 2 jobs of 3 tokens" in decision.reason


@given(
    answers=st.lists(
        st.lists(st.sampled_from([*NASTY, "<|im_end|>" * 20, "x" * 600]), max_size=6).map("".join),
        min_size=1,
        max_size=30,
    ),
    room=st.integers(8, 300),
    finish=st.sampled_from(["stop", "length"]),
)
@settings(max_examples=60)
def test_a_tree_always_ends_whatever_the_model_answers(
    plan_of: PlanOf, model_text: ModelText, answers: list[str], room: int, finish: str
) -> None:
    plan, _ = plan_of(summary_tokens=60)
    texts, levels = answers, 0
    while True:
        decision = decide(
            levels, len(answers), results(*texts, tokens=500, finish=finish), plan,
            room_tokens=room, count=model_text.tokenizer.count, cut=model_text.cut,
        )  # fmt: skip
        if isinstance(decision, Done):
            break
        assert isinstance(decision, NextLevel)
        assert len(decision.groups) <= (len(texts) + 1) // 2
        assert all(model_text.tokenizer.count(group.text) <= room for group in decision.groups)
        texts = [answers[group.first % len(answers)] * 3 for group in decision.groups]  # longer than what it read
        levels += 1
    assert levels <= 5


def test_refine_carries_the_summary_chunk_by_chunk_to_the_last(merge: Merge) -> None:
    refine = {"merge_strategy": MergeStrategy.REFINE, "chunks": 3}
    assert merge(results("First."), level=0, **refine) == NextChunk(1, "First.")
    assert merge(results("Second."), level=1, **refine) == NextChunk(2, "Second.")
    assert merge(results("Third."), level=2, **refine) == Done("Third.")


def test_concat_joins_whatever_the_length_and_none_joins_nothing(merge: Merge) -> None:
    answers = results("One.", "Two.", "Three.", tokens=5000)
    assert merge(answers, merge_strategy=MergeStrategy.CONCAT) == Done("One.\n\nTwo.\n\nThree.")
    assert merge(answers, merge_strategy=MergeStrategy.NONE) == Done(None)


@pytest.mark.parametrize(
    ("text", "finish", "kept"),
    [
        ("Whole one. Torn tw", "length", "Whole one."),
        ("Whole one. Torn tw", "stop", "Whole one. Torn tw"),
        ('He said "yes." And th', "length", 'He said "yes."'),
        ("全部です。途中で", "length", "全部です。"),
        ("Ok. A very long torn sentence that is nearly all of it", "length",
         "Ok. A very long torn sentence that is nearly all of it"),
        ("no end at all", "length", "no end at all"),
        ("Version 3.11 is out. It br", "length", "Version 3.11 is out."),
        ("  ", "length", ""),
    ],
)  # fmt: skip
def test_an_answer_that_ran_into_its_limit_loses_its_torn_last_sentence(text: str, finish: str, kept: str) -> None:
    assert whole_sentences(replace(results(text)[0], finish_reason=finish)) == kept
