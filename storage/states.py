"""The states of a job, a document and a batch: each knows its terminal members and its legal moves.

`docs/walk.md` draws them. The batch's are the OpenAI Batch API's words.
"""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    """`running -> queued` is a release, a retry or a rescue; a terminal job is queued again only by `retry`."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def is_terminal(self) -> bool:
        return self not in (JobState.QUEUED, JobState.RUNNING)

    def may_become(self, other: JobState) -> bool:
        """Whether a job may move from this state to `other`."""
        return other in _JOB_MOVES[self]


class DocumentState(StrEnum):
    """`open`: its chunks are at work; `merging`: a later level is."""

    OPEN = "open"
    MERGING = "merging"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        return self not in (DocumentState.OPEN, DocumentState.MERGING)

    def may_become(self, other: DocumentState) -> bool:
        """Whether a document may move from this state to `other`."""
        return other in _DOCUMENT_MOVES[self]


class BatchState(StrEnum):
    """`failed` means that validation failed; a completed batch may hold failed jobs."""

    VALIDATING = "validating"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        return not _BATCH_MOVES[self] - {BatchState.IN_PROGRESS}

    def may_become(self, other: BatchState) -> bool:
        """Whether a batch may move from this state to `other`."""
        return other in _BATCH_MOVES[self]


class AttemptOutcome(StrEnum):
    """How one try of a job ended. `lost`: its worker's lease ran out; `fenced`: it finished too late to count;
    `reused`: another job's result was its answer."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    REUSED = "reused"
    FAILED = "failed"
    RELEASED = "released"
    CANCELLED = "cancelled"
    LOST = "lost"
    FENCED = "fenced"


_JOB_MOVES: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.CANCELLED, JobState.EXPIRED}),
    JobState.RUNNING: frozenset(set(JobState) - {JobState.RUNNING}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset({JobState.QUEUED}),
    JobState.CANCELLED: frozenset(),
    JobState.EXPIRED: frozenset(),
}

_DOCUMENT_MOVES: dict[DocumentState, frozenset[DocumentState]] = {
    DocumentState.OPEN: frozenset(set(DocumentState) - {DocumentState.OPEN}),
    DocumentState.MERGING: frozenset({DocumentState.DONE, DocumentState.FAILED, DocumentState.CANCELLED}),
    DocumentState.DONE: frozenset(),
    DocumentState.FAILED: frozenset({DocumentState.OPEN, DocumentState.MERGING}),
    DocumentState.CANCELLED: frozenset(),
}

_BATCH_MOVES: dict[BatchState, frozenset[BatchState]] = {
    BatchState.VALIDATING: frozenset({BatchState.IN_PROGRESS, BatchState.FAILED, BatchState.CANCELLING}),
    BatchState.IN_PROGRESS: frozenset({BatchState.FINALIZING, BatchState.EXPIRED, BatchState.CANCELLING}),
    BatchState.FINALIZING: frozenset({BatchState.COMPLETED}),
    BatchState.COMPLETED: frozenset({BatchState.IN_PROGRESS}),  # `docmill retry`
    BatchState.FAILED: frozenset(),
    BatchState.EXPIRED: frozenset(),
    BatchState.CANCELLING: frozenset({BatchState.CANCELLED}),
    BatchState.CANCELLED: frozenset(),
}
