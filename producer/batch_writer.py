"""Write a submission to the database: read its documents, split them, store chunks and first jobs.

Rows are written in transactions of bounded size. Repeating an interrupted submission continues it: complete documents
are recognized by their content, and a partly written document is written again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice

from docmill.producer.chunking.chunker import Chunk
from docmill.producer.chunking.document_chunks import split_document
from docmill.producer.errors import DocumentUnreadable, IdempotencyKeyReused, NothingToDo, ProducerError
from docmill.producer.intake.documents import Document, Skipped, content_hash_of, identity_of
from docmill.producer.intake.sources import read_documents
from docmill.producer.jobs import chunk_jobs
from docmill.producer.submission import OnDocument, Resume, Submission, SubmittedBatch
from docmill.storage.database import Database
from docmill.storage.errors import IdempotencyKeyTaken
from docmill.storage.moves.batches import Batches
from docmill.storage.moves.new_batches import NewBatch, NewBatches, NewChunk
from docmill.storage.moves.submitter_lock import take_over
from docmill.storage.states import BatchState
from docmill.storage.tables import Batch

_RETRY_S = 0.5  # between two checks of a submission that another process is writing
_ROWS = 200  # chunks, and jobs, per transaction: at most a few megabytes


class BatchWriter:
    """Writes submissions to one database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._submissions = NewBatches(database)
        self._batches = Batches(database)

    def submit(
        self,
        submission: Submission,
        *,
        resume: Resume = Resume.UNFINISHED,
        on_document: OnDocument | None = None,
    ) -> SubmittedBatch:
        """Store every readable document. Raises ProducerError if there is none or an input does not exist.

        If another process is writing the same submission, wait for it.
        """
        documents = read_documents(submission.inputs, submission.intake)
        batch_id, resumed = self._open_batch(submission, resume)
        if resumed and submission.options.idempotency_key is not None:
            first = self._batches.find(batch_id)
            if first.state is not BatchState.VALIDATING:
                return SubmittedBatch(batch_id, first.documents_total, (), (), resumed=True)
        return self._fill(batch_id, submission, documents, resumed, on_document)

    def _open_batch(self, submission: Submission, resume: Resume) -> tuple[str, bool]:
        while True:
            found = self._earlier(submission)
            if found is not None and found.state is BatchState.VALIDATING:
                if take_over(self._database, found.id):
                    self._submissions.discard_unfinished_documents(found.id)
                    return found.id, True
                time.sleep(_RETRY_S)
                continue
            if found is not None and (
                submission.options.idempotency_key is not None
                or (resume is Resume.ANY and not self._has_grown(found.id, submission))
            ):
                return found.id, True
            with suppress(IdempotencyKeyTaken):  # another process was faster
                return self._new_batch(submission), False

    def _earlier(self, submission: Submission) -> Batch | None:
        key = submission.options.idempotency_key
        if key is None:
            return self._submissions.latest_with_key(submission.key)
        found = self._submissions.with_idempotency_key(key)
        if found is not None and found.submission_key != submission.key:
            raise IdempotencyKeyReused(key, found.id)
        return found

    def _has_grown(self, batch_id: str, submission: Submission) -> bool:
        """True if the inputs hold a document that this batch, which accepts no more documents, does not have."""
        known = self._submissions.known_documents(batch_id)
        for document in read_documents(submission.inputs, submission.intake):
            if isinstance(document, Document):
                with suppress(ProducerError):
                    if identity_of(document, content_hash_of(document)) not in known:
                        return True
        return False

    def _new_batch(self, submission: Submission) -> str:
        options = submission.options
        new = NewBatch(
            submission_key=submission.key,
            model=submission.model_text.model.name,
            task=submission.plan.task.name,
            plan=submission.plan.to_json(),
            notes=options.metadata,
            priority=options.priority,
            idempotency_key=options.idempotency_key,
            reuse=options.reuse,
        )
        return self._submissions.create(new, deadline_s=options.deadline_s)

    def _fill(
        self,
        batch_id: str,
        submission: Submission,
        documents: Iterator[Document | Skipped],
        resumed: bool,  # noqa: FBT001
        on_document: OnDocument | None,
    ) -> SubmittedBatch:
        known = self._submissions.known_documents(batch_id) if resumed else set()
        skipped: list[Skipped] = []
        warnings: list[str] = []
        stored = 0
        for document in documents:
            if on_document is not None:
                on_document(document)
            if isinstance(document, Skipped):
                skipped.append(document)
                continue
            warnings += [f"{document.name}: {warning}" for warning in document.warnings]
            try:
                content_hash = content_hash_of(document)
                identity = identity_of(document, content_hash)
                if identity not in known:
                    self._store(batch_id, submission, document, content_hash, identity)
                    known.add(identity)
                stored += 1
            except ProducerError as error:
                self._submissions.discard_unfinished_documents(batch_id)
                reason = error.reason if isinstance(error, DocumentUnreadable) else str(error)
                skipped.append(Skipped(document.name, reason))
        if self._batches.find(batch_id).state is BatchState.VALIDATING:
            self._close(batch_id, stored, skipped)
        return SubmittedBatch(batch_id, stored, skipped, warnings, resumed)

    def _close(self, batch_id: str, stored: int, skipped: Sequence[Skipped]) -> None:
        if stored:
            self._submissions.start(batch_id)
            return
        reason = f"{skipped[0].name}: {skipped[0].reason}" if skipped else "the inputs hold no documents"
        self._submissions.refuse(batch_id, reason)
        raise NothingToDo(reason)

    def _store(
        self, batch_id: str, submission: Submission, document: Document, content_hash: str, identity: str
    ) -> None:
        plan, text = submission.plan, submission.model_text
        document_id = self._submissions.begin_document(
            batch_id,
            name=document.name,
            source=document.source,
            content_hash=content_hash,
            identity=identity,
            remarks=document.warnings,
        )
        characters = tokens = count = 0
        for some in _batched(split_document(document, plan, submission.task, text), _ROWS):
            self._submissions.add_chunks(
                batch_id,
                document_id,
                [NewChunk(c.index, c.start, c.end, c.tokens, c.text) for c in some],
            )
            if jobs := chunk_jobs(plan, text, some, priority=submission.options.priority):
                self._submissions.add_jobs(batch_id, document_id, jobs)
            characters = some[-1].end
            tokens += sum(chunk.tokens for chunk in some)
            count += len(some)
        self._submissions.finish_document(
            batch_id,
            document_id,
            characters=characters,
            tokens=tokens,
            chunk_count=count,
            max_tokens=plan.output_tokens(count),
        )


def _batched(chunks: Iterator[Chunk], size: int) -> Iterator[list[Chunk]]:
    while some := list(islice(chunks, size)):
        yield some
