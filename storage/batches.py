"""A batch after its submission: find it, cancel it, retry what failed; in transactions of bounded size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from storage.columns import db_now
from storage.database import Database
from storage.errors import AmbiguousBatch, NoSuchBatch, WrongState
from storage.jobs import end_attempts
from storage.states import AttemptOutcome, BatchState, DocumentState, JobState
from storage.tables import Attempt, Batch, Document, Job

_SLICE = 2_000  # rows a transaction: a batch of a million is cancelled without one long lock


class Batches:
    """The user's hand on submitted batches."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, id_or_prefix: str) -> Batch:
        """The batch with this id, the one whose id begins so, or the newest for `latest`.

        Raises NoSuchBatch or AmbiguousBatch.
        """
        with self._database.read() as session:
            if id_or_prefix == "latest":
                found = session.scalars(select(Batch).order_by(Batch.created_at.desc()).limit(1)).all()
            else:
                found = session.scalars(
                    select(Batch).where(Batch.id.startswith(id_or_prefix, autoescape=True)).limit(4)
                ).all()
        exact = [batch for batch in found if batch.id == id_or_prefix] or found
        if not exact:
            raise NoSuchBatch(id_or_prefix)
        if len(exact) > 1:
            raise AmbiguousBatch(id_or_prefix, [batch.id for batch in exact])
        return exact[0]

    def cancel(self, batch_id: str) -> int:
        """Stop a batch: queued and running jobs at once, what is finished stays. Returns jobs cancelled.

        Running ones notice at their worker's next heartbeat. A dispatcher ends the batch as `cancelled`.
        """
        with self._database.write() as session:
            moved = session.execute(
                update(Batch)
                .where(
                    Batch.id == batch_id,
                    Batch.state.in_((BatchState.VALIDATING, BatchState.IN_PROGRESS, BatchState.CANCELLING)),
                )
                .values(
                    state=BatchState.CANCELLING,
                    cancelling_at=func.coalesce(Batch.cancelling_at, db_now()),
                )
                .returning(Batch.id)
            ).one_or_none()
        if moved is None:
            raise WrongState(batch_id, self.find(batch_id).state, "only a batch at work can be cancelled")
        return self.end_unfinished(batch_id, JobState.CANCELLED)

    def end_unfinished(self, batch_id: str, state: JobState) -> int:
        """Cancel or expire every job and document of the batch that has not ended. Returns how many jobs."""
        with self._database.write() as session:
            self._end_documents(session, batch_id, state)
        total = 0
        while True:
            with self._database.write() as session:
                ended = self._end_slice(session, batch_id, state)
            total += ended
            if ended < _SLICE:
                return total

    def retry_failed(self, batch_id: str) -> int:
        """Queue the batch's failed jobs again with all their attempts back. Returns how many."""
        with self._database.write() as session:
            documents = session.execute(
                update(Job)
                .where(Job.batch_id == batch_id, Job.state == JobState.FAILED)
                .values(
                    state=JobState.QUEUED,
                    failures=0,
                    losses=0,
                    published_at=None,
                    publishes=0,
                    not_before=0.0,
                    error_kind=None,
                    error=None,
                    finished_at=None,
                )
                .returning(Job.document_id)
            ).scalars()
            by_document = Counter(documents)
            total = by_document.total()
            if total:
                self._reopen(session, batch_id, by_document)
            return total

    @staticmethod
    def _end_documents(session: Session, batch_id: str, state: JobState) -> None:
        reason = "the batch was cancelled" if state is JobState.CANCELLED else "the batch's deadline passed"
        ended = session.execute(
            update(Document)
            .where(
                Document.batch_id == batch_id,
                Document.state.in_((DocumentState.OPEN, DocumentState.MERGING)),
                Document.chunk_count.is_not(None),
            )
            .values(state=DocumentState.CANCELLED, error=reason, finished_at=db_now(), open_jobs=0)
            .returning(Document.id)
        ).all()
        session.execute(
            update(Batch).where(Batch.id == batch_id).values(documents_open=Batch.documents_open - len(ended))
        )

    @staticmethod
    def _end_slice(session: Session, batch_id: str, state: JobState) -> int:
        unfinished = (JobState.QUEUED, JobState.RUNNING)
        chosen = (
            select(Job.id).where(Job.batch_id == batch_id, Job.state.in_(unfinished)).limit(_SLICE).scalar_subquery()
        )
        ended = session.scalars(
            update(Job)
            .where(Job.id.in_(chosen), Job.state.in_(unfinished))
            .values(state=state, finished_at=db_now(), lease_until=None)
            .returning(Job.id)
        ).all()
        end_attempts(session, Attempt.job_id.in_(ended), AttemptOutcome.CANCELLED)
        counter = Batch.jobs_cancelled if state is JobState.CANCELLED else Batch.jobs_expired
        session.execute(
            update(Batch).where(Batch.id == batch_id).values({counter: counter + len(ended)})
        )  # fmt: skip
        return len(ended)

    @staticmethod
    def _reopen(session: Session, batch_id: str, failed_by_document: Mapping[int, int]) -> None:
        reopened = 0
        for document_id, failed in failed_by_document.items():
            was_failed = session.scalar(
                select(Document.state == DocumentState.FAILED).where(Document.id == document_id)
            )
            reopened += bool(was_failed)
            session.execute(
                update(Document)
                .where(Document.id == document_id)
                .values(
                    open_jobs=Document.open_jobs + failed,
                    failed_jobs=Document.failed_jobs - failed,
                    error=None,
                    finished_at=None,
                    state=_working_state(session, document_id),
                )
            )
        total = sum(failed_by_document.values())
        session.execute(
            update(Batch)
            .where(Batch.id == batch_id)
            .values(
                jobs_failed=Batch.jobs_failed - total,
                documents_open=Batch.documents_open + reopened,
                documents_failed=Batch.documents_failed - reopened,
            )
        )
        session.execute(
            update(Batch)
            .where(Batch.id == batch_id, Batch.state.in_((BatchState.COMPLETED, BatchState.FINALIZING)))
            .values(state=BatchState.IN_PROGRESS, finalizing_at=None, completed_at=None)
        )


def _working_state(session: Session, document_id: int) -> DocumentState:
    level = session.scalar(select(Document.level).where(Document.id == document_id))
    return DocumentState.MERGING if level else DocumentState.OPEN
