"""The plan of a batch: its model, task and merge strategy, and the token budgets that follow from them.

context window >= prompt (system + template + chunk, rendered and counted) + output
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from docmill.broker.sampling_parameters import Sampling
from docmill.producer.errors import NoRoomForOutput, NoRoomForText, ProducerError, WindowTooLarge
from docmill.producer.model_text import ModelText
from docmill.producer.prompts import TaskTemplate
from docmill.producer.task_files import MergeStrategy, Task, TaskFile

MIN_SUMMARY_TOKENS = 48  # a shorter summary of a chunk says nothing
SPARE_TOKENS = 2  # joining texts may add a token or two at the seams


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """The options from command line and configuration, in tokens. None leaves the choice to the task and the model."""

    model: str
    max_tokens: int
    context_window: int | None = None
    chunk_tokens: int | None = None
    overlap_tokens: int = 0
    merge_strategy: MergeStrategy | None = None
    summary_tokens: int | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """Stored with the batch; the dispatcher plans later levels from it alone.

    All sizes in tokens. `max_tokens` limits every single output, `chunk_tokens` the text of every chunk;
    `chunk_tokens_from` says where that limit came from.
    """

    model: str
    task: TaskFile
    merge_strategy: MergeStrategy
    context_window: int
    max_tokens: int
    summary_tokens: int
    chunk_tokens: int
    chunk_tokens_from: str
    overlap_tokens: int
    sampling: Sampling

    def __post_init__(self) -> None:
        if self.max_tokens >= self.context_window:
            raise NoRoomForOutput(self.max_tokens, self.context_window)

    @property
    def max_prompt_tokens(self) -> int:
        """The longest rendered prompt that leaves room for the longest output."""
        return self.context_window - self.output_reserve

    @property
    def output_reserve(self) -> int:
        """The longest output that any job of this batch may write."""
        if self.merge_strategy in (MergeStrategy.TREE, MergeStrategy.REFINE):
            return min(self.max_tokens, self.summary_tokens)
        return self.max_tokens

    @property
    def carried_tokens(self) -> int:
        """The tokens that every prompt reserves for the summary so far (refine)."""
        return self.output_reserve if self.merge_strategy is MergeStrategy.REFINE else 0

    def output_tokens(self, jobs: int) -> int:
        """The output of each of a level's `jobs`: its share of the requested summary."""
        if self.merge_strategy is not MergeStrategy.TREE:
            return self.output_reserve
        share = self.summary_tokens // jobs
        return min(self.output_reserve, max(MIN_SUMMARY_TOKENS, share))

    def levels(self, chunks: int) -> list[int]:
        """About how many jobs each level of a document of this many chunks will have."""
        if self.merge_strategy is MergeStrategy.REFINE:
            return [1] * chunks
        counts = [chunks]
        while self.merge_strategy is MergeStrategy.TREE and not self._fits_unmerged(counts[-1]):
            group = max(2, self.chunk_tokens // self.output_tokens(counts[-1]))
            counts.append(-(-counts[-1] // group))
        return counts

    def _fits_unmerged(self, jobs: int) -> bool:
        return jobs <= 1 or jobs * self.output_tokens(jobs) <= self.summary_tokens

    def to_json(self) -> dict[str, Any]:
        """The form stored in `batches.plan`."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return values | {
            "task": self.task.model_dump(mode="json"),
            "merge_strategy": str(self.merge_strategy),
            "sampling": self.sampling.to_json(),
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Plan:
        """Read what `to_json` wrote. Raises ProducerError for the plan of an incompatible version."""
        try:
            return cls(
                **{
                    **stored,
                    "task": TaskFile.model_validate(stored["task"]),
                    "merge_strategy": MergeStrategy(stored["merge_strategy"]),
                    "sampling": Sampling.from_json(stored["sampling"]),
                }
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ProducerError(f"the plan of the batch was written by another version of docmill: {error}") from error

    def checked_task(self) -> Task:
        """The task with its templates compiled."""
        return Task.from_file(self.task, self.task.name)


def make_plan(request: PlanRequest, task: Task, text: ModelText) -> Plan:
    """The plan, checked against the model. Raises ProducerError with the numbers if the text does not fit."""
    model, file = text.model, task.file
    window = request.context_window or model.context_window
    if window > model.context_window:
        raise WindowTooLarge(window, model.context_window, model.name)
    merge_strategy = request.merge_strategy or file.merge_strategy
    if merge_strategy is MergeStrategy.REFINE and task.refine is None:
        raise ProducerError(f"the task {file.name} has no refine prompt; use --merge tree, concat or none")
    plan = Plan(
        model=request.model,
        task=file,
        merge_strategy=merge_strategy,
        context_window=window,
        max_tokens=min(request.max_tokens, file.max_tokens or request.max_tokens),
        summary_tokens=request.summary_tokens or file.summary_tokens,
        chunk_tokens=0,
        chunk_tokens_from="",
        overlap_tokens=request.overlap_tokens,
        sampling=_sampling(model.suggested_sampling, file.sampling, request.sampling),
    )
    room = room_for_text(plan, task, text)
    if merge_strategy is MergeStrategy.TREE:
        _check_room_for_merges(plan, task, text)
    limit, limit_from = model.suggested_chunk_tokens, f"the cap suggested for {model.name}"
    if request.chunk_tokens:
        limit, limit_from = request.chunk_tokens, "--chunk-tokens"
    chunk_tokens, chunk_tokens_from = min((room, "the context window"), (limit or room, limit_from))
    if request.overlap_tokens >= chunk_tokens:
        raise ProducerError(
            f"an overlap of {request.overlap_tokens} tokens is not smaller than a chunk of {chunk_tokens}; "
            "use a smaller --overlap"
        )
    return replace(plan, chunk_tokens=chunk_tokens, chunk_tokens_from=chunk_tokens_from)


def room_for_text(plan: Plan, task: Task, text: ModelText) -> int:
    """Tokens of the window left for a chunk after the template, the output and (refine) the carried summary."""
    used = _overhead(task.chunk, plan, text, index=9999)
    if plan.merge_strategy is MergeStrategy.REFINE and task.refine is not None:
        used = max(used, _overhead(task.refine, plan, text, summary="", index=9999)) + plan.carried_tokens
    room = plan.max_prompt_tokens - used
    if room < 1:
        raise NoRoomForText(needed=used + plan.output_reserve + 1, limit=plan.context_window)
    return room


def _check_room_for_merges(plan: Plan, task: Task, text: ModelText) -> None:
    """Reject now what could not be merged later: a merge prompt must hold two answers."""
    used = _overhead(task.merge, plan, text, level=9)
    two = 2 * min(MIN_SUMMARY_TOKENS, plan.output_reserve)
    if plan.max_prompt_tokens - used < two:
        raise NoRoomForText(needed=used + two + plan.output_reserve, limit=plan.context_window)


def _overhead(template: TaskTemplate, plan: Plan, text: ModelText, **values: object) -> int:
    user = template.render(text="", document="a document with a name of usual length.txt", **values)
    return len(text.renderer.render(plan.task.system, user).ids) + SPARE_TOKENS


def _sampling(*layers: Mapping[str, Any]) -> Sampling:
    try:
        return Sampling.from_json({name: value for layer in layers for name, value in layer.items()})
    except (TypeError, ValueError) as error:
        raise ProducerError(f"sampling: {error}") from None
