"""The jobs that somebody follows: where each is, and its text once it has one."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Row, Select, or_, select

from docmill.storage.database import Database
from docmill.storage.errors import NoSuchDocument, NoSuchJob
from docmill.storage.states import DocumentState, JobState
from docmill.storage.tables import Document, Job, Result


@dataclass(frozen=True, slots=True)
class TailedJob:
    """`text` is None until the job has succeeded."""

    id: int
    epoch: int
    state: JobState
    document: str
    level: int
    position: int
    owner: str | None
    error_kind: str | None
    error: str | None
    text: str | None


class TailedJobs:
    """Reads only."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def job(self, job_id: int) -> TailedJob:
        """The job as it is now. Raises NoSuchJob."""
        with self._database.read() as session:
            row = session.execute(_jobs().where(Job.id == job_id)).one_or_none()
        if row is None:
            raise NoSuchJob(job_id)
        return _followed(row)

    def document(self, batch_id: str, name: str) -> int:
        """The id of the batch's document of this name, or of the first whose path ends so. Raises NoSuchDocument."""
        named = or_(Document.name == name, Document.name.endswith(f"/{name}", autoescape=True))
        with self._database.read() as session:
            found = session.scalars(
                select(Document.id)
                .where(Document.batch_id == batch_id, named)
                .order_by(Document.name != name, Document.position)
                .limit(1)
            ).one_or_none()
        if found is None:
            raise NoSuchDocument(batch_id, name)
        return found

    def has_ended(self, document_id: int) -> bool:
        """Whether no further job of the document will come."""
        with self._database.read() as session:
            state: DocumentState = session.scalars(select(Document.state).where(Document.id == document_id)).one()
        return state.is_terminal

    def jobs(self, document_id: int) -> dict[int, JobState]:
        """The document's jobs so far, running ones first, then in the order of the document."""
        with self._database.read() as session:
            rows = session.execute(
                select(Job.id, Job.state)
                .where(Job.document_id == document_id)
                .order_by(Job.state != JobState.RUNNING, Job.level, Job.position)
            )
            return {row.id: row.state for row in rows}


def _jobs() -> Select[int, int, JobState, str, int, int, str | None, str | None, str | None, str | None]:
    return (
        select(
            Job.id, Job.epoch, Job.state, Document.name, Job.level, Job.position, Job.owner, Job.error_kind, Job.error,
            Result.text,
        )
        .join(Document, Document.id == Job.document_id)
        .outerjoin(Result, Result.job_id == Job.id)
    )  # fmt: skip


def _followed(
    row: Row[int, int, JobState, str, int, int, str | None, str | None, str | None, str | None],
) -> TailedJob:
    return TailedJob(*row)
