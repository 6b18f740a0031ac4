"""What a batch was submitted with, and the token budgets that follow from it.

context window >= prompt (system + template + chunk, rendered and counted) + output
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from docmill.broker.sampling import Sampling
from docmill.producer.errors import NoRoomForOutput, ProducerError
from docmill.producer.tasks import MergeStrategy, Task, TaskFile

MIN_SUMMARY_TOKENS = 48  # below this a chunk's summary says nothing


@dataclass(frozen=True, slots=True)
class Plan:
    """Stored with the batch: the dispatcher plans later levels from it alone.

    All sizes in tokens. `max_tokens` caps every single output; `chunk_tokens` every chunk's text;
    `chunk_tokens_from` says where that cap came from.
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
        """What a rendered prompt may take, so that the longest output still fits the window."""
        return self.context_window - self.output_reserve

    @property
    def output_reserve(self) -> int:
        """The longest output that any job of this batch may write."""
        if self.merge_strategy in (MergeStrategy.TREE, MergeStrategy.REFINE):
            return min(self.max_tokens, self.summary_tokens)
        return self.max_tokens

    @property
    def carried_tokens(self) -> int:
        """What every prompt keeps free for the summary so far (refine)."""
        return self.output_reserve if self.merge_strategy is MergeStrategy.REFINE else 0

    def output_tokens(self, jobs: int) -> int:
        """The output of each of a level's `jobs`: its share of the summary asked for."""
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
        """Read what `to_json` wrote. Raises ProducerError for a plan of another version."""
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
            raise ProducerError(f"the batch's plan is of another version of docmill: {error}") from error

    def checked_task(self) -> Task:
        """The task with its templates compiled."""
        return Task.from_file(self.task, self.task.name)
