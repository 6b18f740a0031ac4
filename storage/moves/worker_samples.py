"""What a worker and its engine used at one moment, written with a heartbeat; kept for a week."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from sqlalchemy import delete, insert
from sqlalchemy.orm import Session

from docmill.storage.columns import db_now
from docmill.storage.tables import WorkerSample

KEPT_S = 7 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Sample:
    """The columns of `worker_samples`. `running` counts the jobs held, those that wait in the engine included.

    Memory in bytes; processor time in percent of one core since the last sample; counters since the worker began.
    The engine's is None while there is none, the GPUs' where the engine uses none or they cannot be asked.
    """

    running: int
    slots: int
    rss_bytes: int
    worker_cpu_percent: float
    engine_cpu_percent: float | None
    vram_bytes: int | None
    gpu_percent: float | None
    power_w: float | None
    jobs: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


def add_sample(session: Session, worker: str, sample: Sample) -> None:
    """Store what the worker used just now, in the caller's transaction."""
    session.execute(insert(WorkerSample).values(worker=worker, at=db_now(), **asdict(sample)))


def forget_samples(session: Session) -> None:
    """Remove those of all workers that are older than a week."""
    session.execute(delete(WorkerSample).where(WorkerSample.at < db_now() - KEPT_S))
