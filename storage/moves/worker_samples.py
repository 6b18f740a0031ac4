"""Samples of the resources that a worker and its engine use, written with a heartbeat and kept for a week."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import delete, insert
from sqlalchemy.orm import Session

from docmill.storage.columns import db_now, row_of
from docmill.storage.tables import WorkerSample

KEPT_S = 7 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample. The fields are columns of the table `worker_samples`, which documents them."""

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
    """Store a sample of the worker with the current time, in the caller's transaction."""
    session.execute(insert(WorkerSample).values(worker=worker, at=db_now(), **row_of(sample)))


def forget_samples(session: Session) -> None:
    """Delete the samples of all workers that are older than a week."""
    session.execute(delete(WorkerSample).where(WorkerSample.at < db_now() - KEPT_S))
