"""From what the user asked for, the task and the model: the plan of a batch, with every budget in tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from docmill.broker.sampling import Sampling
from docmill.producer.batch_plan import MIN_SUMMARY_TOKENS, Plan
from docmill.producer.errors import NoRoomForText, ProducerError, WindowTooLarge
from docmill.producer.merge_step import SPARE_TOKENS
from docmill.producer.model_text import ModelText
from docmill.producer.prompts import TaskTemplate
from docmill.producer.tasks import MergeStrategy, Task


@dataclass(frozen=True, slots=True)
class Wishes:
    """What flags and configuration say; None and missing keys leave it to the task and the model. In tokens."""

    model: str
    max_tokens: int
    context_window: int | None = None
    chunk_tokens: int | None = None
    overlap_tokens: int = 0
    merge_strategy: MergeStrategy | None = None
    summary_tokens: int | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)


def make_plan(wishes: Wishes, task: Task, text: ModelText) -> Plan:
    """The plan, checked against the model. Raises ProducerError with the numbers when there is no room."""
    model, file = text.model, task.file
    window = wishes.context_window or model.context_window
    if window > model.context_window:
        raise WindowTooLarge(window, model.context_window, model.name)
    merge_strategy = wishes.merge_strategy or file.merge_strategy
    if merge_strategy is MergeStrategy.REFINE and task.refine is None:
        raise ProducerError(f"the task {file.name} has no refine prompt; use --merge tree, concat or none")
    plan = Plan(
        model=wishes.model,
        task=file,
        merge_strategy=merge_strategy,
        context_window=window,
        max_tokens=min(wishes.max_tokens, file.max_tokens or wishes.max_tokens),
        summary_tokens=wishes.summary_tokens or file.summary_tokens,
        chunk_tokens=1,
        chunk_tokens_from="",
        overlap_tokens=wishes.overlap_tokens,
        sampling=_sampling(wishes, file.sampling, model.suggested_sampling),
    )
    room = room_for_text(plan, task, text)
    if merge_strategy is MergeStrategy.TREE:
        _check_room_for_merges(plan, task, text)
    chunk_tokens, source = min(
        (room, "the context window"),
        (wishes.chunk_tokens or room, "--chunk-tokens")
        if wishes.chunk_tokens
        else (model.suggested_chunk_tokens or room, f"the cap suggested for {model.name}"),
    )
    if wishes.overlap_tokens >= chunk_tokens:
        raise ProducerError(
            f"an overlap of {wishes.overlap_tokens} tokens is not smaller than a chunk of {chunk_tokens}"
        )
    return Plan(
        **{name: getattr(plan, name) for name in Plan.__slots__}
        | {"chunk_tokens": chunk_tokens, "chunk_tokens_from": source}
    )


def room_for_text(plan: Plan, task: Task, text: ModelText) -> int:
    """Tokens of the window that are left for a chunk beside template, output and (refine) carried summary."""
    beside = _overhead(task.chunk, plan, text, index=9999)
    if plan.merge_strategy is MergeStrategy.REFINE and task.refine is not None:
        beside = max(beside, _overhead(task.refine, plan, text, summary="", index=9999)) + plan.carried_tokens
    room = plan.max_prompt_tokens - beside
    if room < 1:
        raise NoRoomForText(needed=beside + plan.output_reserve + 1, limit=plan.context_window)
    return room


def _check_room_for_merges(plan: Plan, task: Task, text: ModelText) -> None:
    """Refuse now what could not be merged later: a merge prompt must take two answers."""
    beside = _overhead(task.merge, plan, text, level=9)
    two = 2 * min(MIN_SUMMARY_TOKENS, plan.output_reserve)
    if plan.max_prompt_tokens - beside < two:
        raise NoRoomForText(needed=beside + two + plan.output_reserve, limit=plan.context_window)


def _overhead(template: TaskTemplate, plan: Plan, text: ModelText, **values: object) -> int:
    user = template.render(text="", document="a document with a name of usual length.txt", **values)
    return len(text.renderer.render(plan.task.system, user).ids) + SPARE_TOKENS


def _sampling(wishes: Wishes, task: Mapping[str, Any], model: Mapping[str, Any]) -> Sampling:
    try:
        return Sampling.from_json({**model, **task, **wishes.sampling})
    except (TypeError, ValueError) as error:
        raise ProducerError(f"sampling: {error}") from None
