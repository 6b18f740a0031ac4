"""The states of jobs, documents and batches. `docs/walk.md` shows which state follows which."""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    """The state of a job. `docmill retry` queues failed jobs again; the other terminal states are final."""

    QUEUED = "queued"  # waits to be claimed: new, released, to be retried, or rescued from a lost worker
    RUNNING = "running"  # claimed by a worker that holds its lease
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"  # the batch's deadline passed

    @property
    def is_terminal(self) -> bool:
        return self not in (JobState.QUEUED, JobState.RUNNING)


class DocumentState(StrEnum):
    """The state of a document."""

    OPEN = "open"  # jobs of level 0, one per chunk, are being processed
    MERGING = "merging"  # jobs of a later level are being processed
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"  # its batch was cancelled or has expired

    @property
    def is_terminal(self) -> bool:
        return self not in (DocumentState.OPEN, DocumentState.MERGING)


class BatchState(StrEnum):
    """The state of a batch, named as in the OpenAI Batch API."""

    VALIDATING = "validating"  # its documents are being written
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"  # all documents have ended
    COMPLETED = "completed"  # some of its jobs may have failed
    FAILED = "failed"  # validation failed: nothing of it ran
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        return self in (BatchState.COMPLETED, BatchState.FAILED, BatchState.EXPIRED, BatchState.CANCELLED)


class AttemptOutcome(StrEnum):
    """How one attempt at a job ended."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    REUSED = "reused"  # the result of an equal job was used
    FAILED = "failed"
    RELEASED = "released"  # the worker shut down
    CANCELLED = "cancelled"  # the batch was cancelled or has expired
    LOST = "lost"  # the worker's lease expired
    FENCED = "fenced"  # it finished after the job had been cancelled, expired or claimed by another worker
