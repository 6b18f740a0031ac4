"""What `batch_measurements` answers with. Times are seconds since 1970, durations seconds, sizes bytes."""

from __future__ import annotations

from dataclasses import dataclass

from docmill.storage.states import AttemptOutcome, DocumentState


@dataclass(frozen=True, slots=True)
class Span:
    """When the batch's first attempt began and its last one ended; both the time now where there is none.

    `ended_at` is now while an attempt runs. Seconds since 1970.
    """

    began_at: float
    ended_at: float

    @property
    def seconds(self) -> float:
        return max(0.0, self.ended_at - self.began_at)


@dataclass(frozen=True, slots=True)
class OutcomeTotals:
    """Attempts that ended so. Energy is the sum over the `energy_measured` attempts that have it, in joules."""

    outcome: AttemptOutcome
    attempts: int
    prompt_tokens: int
    cached_tokens: int
    cached_measured: int
    completion_tokens: int
    energy_j: float
    energy_measured: int


@dataclass(frozen=True, slots=True)
class LevelTotals:
    """The successful attempts of one level of merging; 0 are the chunks."""

    level: int
    jobs: int
    prompt_tokens: int
    completion_tokens: int
    prefill_s: float
    decode_s: float


@dataclass(frozen=True, slots=True)
class WorkerTotals:
    """One worker's part in the batch. `slots` is 0 where the worker is not known any more; memory is the peak."""

    name: str
    engine: str
    slots: int
    attempts: int
    succeeded: int
    prompt_tokens: int
    completion_tokens: int
    batch_size: float | None
    peak_memory_bytes: int
    peak_vram_bytes: int | None
    began_at: float
    ended_at: float

    @property
    def seconds(self) -> float:
        """From its first claim in the batch to the end of its last attempt."""
        return max(0.0, self.ended_at - self.began_at)


@dataclass(frozen=True, slots=True)
class DocumentTotals:
    """The successful attempts of one document; `seconds` from the first job's start to the last one's end."""

    position: int
    name: str
    state: DocumentState
    jobs: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    seconds: float | None


@dataclass(frozen=True, slots=True)
class FailedAttempts:
    """Attempts that failed in one way, one of their messages, and how many jobs were given up for it."""

    kind: str
    attempts: int
    jobs_given_up: int
    example: str


@dataclass(frozen=True, slots=True)
class FailedDocument:
    """A document without a result, and why."""

    name: str
    state: DocumentState
    error: str


@dataclass(frozen=True, slots=True)
class SlowJob:
    """A successful attempt and where its time went, in seconds."""

    job_id: int
    document: str
    level: int
    position: int
    worker: str
    attempt: int
    waited_s: float | None
    queue_s: float
    prefill_s: float
    decode_s: float
    prompt_tokens: int
    completion_tokens: int
