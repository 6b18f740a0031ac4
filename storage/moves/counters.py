"""The counters of documents and batches, changed in the transaction that changes their jobs.

Lock order: Postgres deadlocks when transactions lock the same rows in different orders. Every transaction that changes
many rows therefore locks jobs first, then documents, then batches, each by ascending id.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

from sqlalchemy import ColumnElement, Integer, Table, bindparam, select, update
from sqlalchemy.orm import Session

from docmill.storage.tables import Batch, Document, Job

_DOCUMENTS, _BATCHES = cast(Table, Document.__table__), cast(Table, Batch.__table__)
JOBS = bindparam("jobs", type_=Integer)
"""In `update_documents`, the number of jobs given for the document."""


def lock_jobs(session: Session, which: ColumnElement[bool], limit: int | None = None) -> Sequence[int]:
    """Lock the matching jobs in order of their ids, and return the ids."""
    rows = select(Job.id).where(which).order_by(Job.id).limit(limit).with_for_update(key_share=True)
    return session.scalars(rows).all()


def update_documents(session: Session, documents_of_jobs: Sequence[int], **values: Any) -> None:
    """Update the document of each job: once per document, in order of ids. `values` may refer to `JOBS`."""
    jobs_of = sorted(Counter(documents_of_jobs).items())
    if jobs_of:
        session.connection().execute(
            update(_DOCUMENTS).where(_DOCUMENTS.c.id == bindparam("document")).values(**values),
            [{"document": document_id, "jobs": jobs} for document_id, jobs in jobs_of],
        )


def update_batch(session: Session, batch_id: str, **values: Any) -> None:
    """Update the batch, whatever its state."""
    session.execute(update(Batch).where(Batch.id == batch_id).values(**values))


def count_succeeded(
    session: Session,
    batch_id: str,
    document_id: int,
    *,
    prompt: int = 0,
    cached: int = 0,
    completion: int = 0,
    reused: int = 0,
) -> None:
    """Count a job that has just succeeded, with the tokens computed for it; `reused` is 1 if nothing was computed."""
    session.execute(_COUNT_DOCUMENT, {"document": document_id})
    counted = {"batch": batch_id, "prompt": prompt, "cached": cached, "completion": completion, "reused": reused}
    session.execute(_COUNT_BATCH, counted)


def count_failed(session: Session, failed: Sequence[tuple[str, int]]) -> None:
    """Count jobs that have just failed, given as one (batch id, document id) per job."""
    update_documents(
        session,
        [document_id for _, document_id in failed],
        open_jobs=Document.open_jobs - JOBS,
        failed_jobs=Document.failed_jobs + JOBS,
    )
    for batch_id, jobs in sorted(Counter(batch_id for batch_id, _ in failed).items()):
        update_batch(session, batch_id, jobs_failed=Batch.jobs_failed + jobs)


# Built once, and on the tables: building a statement takes longer than running it, and every job needs both.
_COUNT_DOCUMENT = (
    update(_DOCUMENTS).where(_DOCUMENTS.c.id == bindparam("document")).values(open_jobs=_DOCUMENTS.c.open_jobs - 1)
)
_COUNT_BATCH = (
    update(_BATCHES)
    .where(_BATCHES.c.id == bindparam("batch"))
    .values(
        jobs_succeeded=_BATCHES.c.jobs_succeeded + 1,
        jobs_reused=_BATCHES.c.jobs_reused + bindparam("reused"),
        prompt_tokens=_BATCHES.c.prompt_tokens + bindparam("prompt"),
        cached_tokens=_BATCHES.c.cached_tokens + bindparam("cached"),
        completion_tokens=_BATCHES.c.completion_tokens + bindparam("completion"),
    )
)
