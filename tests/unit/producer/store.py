"""A migrated SQLite file, a submitter on it, and a loop that answers jobs in place of a worker and its engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from docmill.producer.batch_plan import Plan
from docmill.producer.batch_writer import BatchWriter
from docmill.producer.merge_runner import MergeRunner
from docmill.producer.model_text import ModelText
from docmill.producer.submission import OnDocument, Resume, Submission, SubmittedBatch
from docmill.producer.task_files import Task
from docmill.settings.defaults import Producer
from docmill.storage.attempt_metrics import GeneratedText
from docmill.storage.database import Database
from docmill.storage.moves.attempts import ClaimedJob, Failure, ReusedJob, WorkerIdentity
from docmill.storage.moves.documents import Documents
from docmill.storage.moves.finish_batches import finish_batches
from docmill.storage.moves.jobs import Jobs
from docmill.storage.reads.documents import DocumentReport
from docmill.storage.reads.reports import Reports
from tests.integration.audit import contradictions

Answer = Callable[[ClaimedJob], str | None]  # None: the job fails


@dataclass(frozen=True)
class Store:
    database: Database
    text: ModelText
    home: Path

    def submit(
        self,
        inputs: Sequence[str | Path],
        planned: tuple[Plan, Task],
        *,
        resume: Resume = Resume.UNFINISHED,
        on_document: OnDocument | None = None,
        **options: Any,
    ) -> SubmittedBatch:
        plan, task = planned
        submission = Submission([str(i) for i in inputs], plan, task, self.text, Producer(**options))
        return BatchWriter(self.database).submit(submission, resume=resume, on_document=on_document)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with self.database.read() as session:
            return [tuple(row) for row in session.execute(sa.text(query))]

    def contradictions(self) -> list[str]:
        with self.database.read() as session:
            return contradictions(session.connection())

    def answer_all(self, answer: Answer) -> int:
        """Run every queued job; returns how many there were."""
        jobs = Jobs(self.database, WorkerIdentity("w", "simulated", self.text.model.name), lease_s=30.0)
        queued = self.rows("SELECT id FROM jobs WHERE state = 'queued' ORDER BY id")
        for (job_id,) in queued:
            job = jobs.claim(job_id)
            assert job is not None
            if isinstance(job, ReusedJob):
                continue
            text = answer(job)
            if text is None:
                assert jobs.fail(job, Failure("EngineFailed", "it broke"))
                continue
            tokens = min(job.max_tokens, max(1, self.text.tokenizer.count(text)))
            finish = "length" if tokens == job.max_tokens else "stop"
            generated = GeneratedText(
                text=text, finish_reason=finish, prompt_tokens=job.prompt_tokens, cached_tokens=0,
                completion_tokens=tokens, prefill_s=0.1, decode_s=0.1, peak_memory_bytes=1,
            )  # fmt: skip
            assert jobs.complete(job, generated)
        return len(queued)

    def run(self, answer: Answer, *, advancer: MergeRunner | None = None) -> None:
        """What workers and a dispatcher do, until nothing is left to do."""
        levels = Documents(self.database)
        advancer = advancer or MergeRunner(levels, self.home)
        for _ in range(200):
            answered = self.answer_all(answer)
            ended = levels.with_ended_level()
            for document in ended:
                advancer.advance(document)
            finish_batches(self.database)
            assert self.contradictions() == []
            if not answered and not ended:
                return
        raise AssertionError("it does not end")

    def reports(self, batch_id: str) -> list[DocumentReport]:
        return list(Reports(self.database).documents(batch_id))

    def prompts(self, level: int) -> list[str]:
        """What the jobs of a level read, in order."""
        query = f"SELECT prompt_ids FROM jobs WHERE level = {level} ORDER BY document_id, position"
        with self.database.read() as session:
            raw = [row[0] for row in session.execute(sa.text(query))]
        ids = [memoryview(packed).cast("I").tolist() for packed in raw]
        decode = self.text.tokenizer._tokenizer.decode
        return [decode(prompt, skip_special_tokens=False) for prompt in ids]
