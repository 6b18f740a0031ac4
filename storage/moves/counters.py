"""Parts of moves that a worker, a dispatcher and a user make alike, each in the caller's transaction.

Postgres finds deadlocks where rows are locked in different orders, so everybody keeps to one: jobs, documents,
batches, each by id.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from sqlalchemy import ColumnElement, Integer, Table, bindparam, select, update
from sqlalchemy.orm import Session

from docmill.storage.columns import db_now
from docmill.storage.states import AttemptOutcome
from docmill.storage.tables import Attempt, Batch, Document, Job


def lock_jobs(session: Session, which: ColumnElement[bool], limit: int | None = None) -> Sequence[int]:
    """Lock jobs before many are moved at once; returns their ids."""
    rows = select(Job.id).where(which).order_by(Job.id).limit(limit).with_for_update(key_share=True)
    return session.scalars(rows).all()


def count_failed(session: Session, failed: Mapping[tuple[str, int], int]) -> None:
    """Count jobs that failed, by (batch, document), in the transaction that failed them."""
    by_batch: Counter[str] = Counter()
    for (batch_id, document_id), jobs in sorted(failed.items(), key=lambda item: item[0][1]):
        by_batch[batch_id] += jobs
        session.execute(
            update(Document)
            .where(Document.id == document_id)
            .values(open_jobs=Document.open_jobs - jobs, failed_jobs=Document.failed_jobs + jobs)
        )
    for batch_id, jobs in sorted(by_batch.items()):
        session.execute(update(Batch).where(Batch.id == batch_id).values(jobs_failed=Batch.jobs_failed + jobs))


def end_attempts(session: Session, which: ColumnElement[bool], outcome: AttemptOutcome) -> None:
    """End the running attempts that `which` picks: their worker will not."""
    session.execute(
        update(Attempt)
        .where(which, Attempt.outcome == AttemptOutcome.RUNNING)
        .values(outcome=outcome, finished_at=db_now())
    )


def update_documents(
    session: Session,
    documents_of_jobs: Sequence[int],
    values: Callable[[Table, ColumnElement[int]], Mapping[str, Any]],
) -> None:
    """Change each document once, in order of their ids; `values` is given the number of its jobs among these."""
    jobs_of = sorted(Counter(documents_of_jobs).items())
    if jobs_of:
        table = cast(Table, Document.__table__)
        session.connection().execute(
            update(table)
            .where(table.c.id == bindparam("document"))
            .values(**values(table, bindparam("jobs", type_=Integer))),
            [{"document": document_id, "jobs": jobs} for document_id, jobs in jobs_of],
        )
