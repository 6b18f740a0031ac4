"""The jobs that `docmill tail` shows: the state of each, and its text once it has succeeded."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import or_, select

from docmill.storage.database import Database
from docmill.storage.errors import NoSuchDocument, NoSuchJob
from docmill.storage.states import DocumentState, JobState
from docmill.storage.tables import Document, Job, Result


@dataclass(frozen=True, slots=True)
class TailedJob:
    """A job as it is now. `text` is None until it has succeeded."""

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
    """Reads the jobs of a document."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def job(self, job_id: int) -> TailedJob:
        """The job as it is now. Raises NoSuchJob."""
        query = (
            select(
                Job.id, Job.epoch, Job.state, Document.name.label("document"), Job.level, Job.position, Job.owner,
                Job.error_kind, Job.error, Result.text,
            )
            .join(Document, Document.id == Job.document_id)
            .outerjoin(Result, Result.job_id == Job.id)
            .where(Job.id == job_id)
        )  # fmt: skip
        with self._database.read() as session:
            row = session.execute(query).one_or_none()
        if row is None:
            raise NoSuchJob(job_id)
        return TailedJob(**row._asdict())

    def document(self, batch_id: str, name: str) -> int:
        """The id of the batch's document with this name, or of the first whose path ends with it.

        Raises NoSuchDocument.
        """
        is_named = or_(Document.name == name, Document.name.endswith(f"/{name}", autoescape=True))
        with self._database.read() as session:
            found = session.scalars(
                select(Document.id)
                .where(Document.batch_id == batch_id, is_named)
                .order_by(Document.name != name, Document.position)
                .limit(1)
            ).one_or_none()
        if found is None:
            raise NoSuchDocument(batch_id, name)
        return found

    def has_ended(self, document_id: int) -> bool:
        """Return True if the document has ended, so that it will get no further jobs."""
        with self._database.read() as session:
            state: DocumentState = session.scalars(select(Document.state).where(Document.id == document_id)).one()
        return state.is_terminal

    def jobs(self, document_id: int) -> dict[int, JobState]:
        """The document's jobs so far by id: running ones first, then by level and position."""
        with self._database.read() as session:
            rows = session.execute(
                select(Job.id, Job.state)
                .where(Job.document_id == document_id)
                .order_by(Job.state != JobState.RUNNING, Job.level, Job.position)
            )
            return {row.id: row.state for row in rows}
