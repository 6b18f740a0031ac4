"""docmill's Python API: submit documents or texts, wait for them, read the results.

    from docmill import submit, wait, results

    batch = submit("reports/*.txt", task="summarize")
    wait(batch)
    for document in results(batch):
        print(document.name, document.summary)

A dispatcher and workers do the work: those of `docmill up`, or the services of a cluster. See docs/python.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from docmill.producer.composition import Backend
from docmill.producer.intake.records import Record, records_of
from docmill.producer.submission import SubmitOptions, SubmittedBatch
from docmill.producer.wait_for_batch import batch_statuses
from docmill.settings.defaults import STATUS_POLL_S, Settings
from docmill.storage.errors import DatabaseUnavailable
from docmill.storage.reads.batch_status import BatchStatus
from docmill.storage.reads.documents import DocumentFilter, DocumentReport

Progress = Callable[[BatchStatus], None]
_OVERLAP_S = 60.0  # documents are looked for again this long: a transaction may end after its own time stamp


class Client:
    """A connection to one docmill installation: its database and, while it runs, its broker.

    Every `batch` parameter takes what `submit` returned, a batch id, the beginning of one, or "latest". Methods that
    read or change a batch raise NoSuchBatch if there is none, and StorageError if the database cannot be used.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        """Without `settings`, those of the environment (`DOCMILL_*`) and of `config.yaml`, read on first use."""
        self._backend = Backend(settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to the database."""
        if "database" in self._backend.__dict__:
            self._backend.database.close()

    def submit(
        self,
        *paths: str | Path,
        texts: Mapping[str, str] | None = None,
        records: Iterable[Record | Mapping[str, Any]] | None = None,
        task: str = "summarize",
        prompt: str | None = None,
        model: str | None = None,
        profile: str | None = None,
        merge: Literal["tree", "refine", "concat", "none"] | None = None,
        summary_tokens: int | None = None,
        max_tokens: int | None = None,
        chunk_tokens: int | None = None,
        overlap_tokens: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
        min_p: float | None = None,
        repetition_penalty: float | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] = (),
        priority: int = 5,
        metadata: Mapping[str, str] | None = None,
        deadline_s: float | None = None,
        idempotency_key: str | None = None,
        reuse: bool = True,
        encoding: str | None = None,
        text_field: str | None = None,
        id_field: str = "id",
    ) -> SubmittedBatch:
        """Store documents as a batch and queue its first jobs. Returns when all documents are stored.

        Repeating a call that was interrupted continues its batch. A document that cannot be read is skipped and
        listed in the returned batch's `skipped`.

        Args:
            paths: Files, directories, globs, and "-" for standard input.
            texts: Documents in memory, as `{id: text}`.
            records: Documents in memory, as `Record(id, text)` or as rows with an id and a text, such as those of a
                `datasets.Dataset`; other fields of a row are ignored. The id becomes the document's name.
            task: A built-in task (summarize, key-points, outline) or the path of a task's YAML file.
            prompt: A task given on the spot, such as "List every date in: {text}"; replaces `task`.
            model: A model's name or path. Default: the profile's.
            profile: A model profile of the settings. Default: "llm".
            merge: How the answers of a document's chunks become one: merged level by level ("tree"), carried from
                chunk to chunk ("refine"), joined ("concat"), or one answer per chunk ("none"). Default: the task's.
            summary_tokens: Requested length of a document's summary, in tokens. Default: the task's.
            max_tokens: Longest output of a single job, in tokens. Default: the profile's.
            chunk_tokens: Longest chunk, in tokens. Default: what the context window or the model's cap allows.
            overlap_tokens: Tokens that neighbouring chunks share. Default: `producer.overlap_tokens`.
            temperature: 0 (greedy) to 5. Default for this and all sampling parameters: profile, task, model.
            top_p: Nucleus sampling: the probability mass to keep, above 0 to 1 (off).
            top_k: The number of tokens to choose from; 0 is off.
            min_p: Drop tokens less likely than this share of the likeliest, 0 (off) to 1.
            repetition_penalty: Above 0 to 10; 1 is off.
            seed: Makes sampling repeatable.
            stop: Strings that end an answer, or one string.
            priority: 0 (first) to 9.
            metadata: Texts that are stored with the batch.
            deadline_s: Seconds after which unfinished jobs expire. Default: never.
            idempotency_key: A repeated call with the same key returns the first call's batch.
            reuse: Use the stored result of an equal finished job. Only deterministic jobs have one.
            encoding: Encoding of files that are not UTF-8. Default: it is guessed, with a warning.
            text_field: The field or column that holds the text, of JSONL, CSV and rows. Default: "text".
            id_field: The field of a row that holds its id.

        Raises:
            ProducerError: The call is wrong: InputNotFound, RecordInvalid, TaskInvalid, IdempotencyKeyReused, a text
                that cannot fit the context window, or NothingToDo if no document can be read.
            ModelNotFound: The model is not on this machine.
            BrokerFull: The broker accepts no messages; nothing was stored.
            StorageError: The database cannot be used.
        """
        sampling = {
            "temperature": temperature, "top_p": top_p, "top_k": top_k, "min_p": min_p,
            "repetition_penalty": repetition_penalty, "seed": seed,
            "stop": ((stop,) if isinstance(stop, str) else tuple(stop)) or None,
        }  # fmt: skip
        options = SubmitOptions(
            profile=profile, task=task, prompt=prompt, model=model, merge=merge, summary_tokens=summary_tokens,
            max_tokens=max_tokens, chunk_tokens=chunk_tokens, overlap_tokens=overlap_tokens,
            sampling={name: value for name, value in sampling.items() if value is not None},
            priority=priority, metadata=metadata or {}, deadline_s=deadline_s, idempotency_key=idempotency_key,
            reuse=reuse, encoding=encoding, text_field=text_field,
        )  # fmt: skip
        row_text_field = text_field or self._backend.settings.producer.text_field
        in_memory = records_of(texts, records, id_field=id_field, text_field=row_text_field)
        return self._backend.submit(self._backend.prepare([*map(str, paths), *in_memory], options))

    def wait(
        self,
        batch: str | SubmittedBatch,
        *,
        timeout_s: float | None = None,
        progress: Progress | None = None,
        interval_s: float = STATUS_POLL_S,
    ) -> BatchStatus:
        """Block until the batch has ended; returns its last status, whose `state` says how.

        `progress` is called with the batch's status every `interval_s` seconds and at the end. Raises TimeoutError
        after `timeout_s` seconds (default: never); the batch continues. An outage of the database is waited out.
        """
        reports, batch_id = self._backend.reports, self._id(batch)
        for status in batch_statuses(reports, batch_id, interval_s=interval_s, timeout_s=timeout_s):
            if progress is not None:
                progress(status)
        return status

    def as_completed(
        self,
        batch: str | SubmittedBatch,
        *,
        timeout_s: float | None = None,
        progress: Progress | None = None,
        interval_s: float = STATUS_POLL_S,
    ) -> Iterator[DocumentReport]:
        """The batch's documents as they finish, each once, until the batch has ended; parameters as for `wait`.

        Failed, cancelled and expired documents are included: see their `state` and `error`.
        """
        batch_id = self._id(batch)
        seen: set[int] = set()
        since = 0.0
        for status in batch_statuses(self._backend.reports, batch_id, interval_s=interval_s, timeout_s=timeout_s):
            if progress is not None:
                progress(status)
            try:
                yield from self._finished(batch_id, seen, DocumentFilter(finished_since=since))
            except DatabaseUnavailable:
                continue
            since = status.created_at + status.elapsed_s - _OVERLAP_S
        if len(seen) < status.documents_total:
            yield from self._finished(batch_id, seen, DocumentFilter())

    def _finished(self, batch_id: str, seen: set[int], wanted: DocumentFilter) -> Iterator[DocumentReport]:
        for document in self._backend.reports.documents(batch_id, wanted):
            if document.state.is_terminal and document.id not in seen:
                seen.add(document.id)
                yield document

    def results(self, batch: str | SubmittedBatch) -> Iterator[DocumentReport]:
        """All documents of the batch in input order, each with its summary (or the answers of its windows).

        Documents that have not finished have no summary yet. Reads a page of documents at a time.
        """
        return self._backend.reports.documents(self._id(batch))

    def status(self, batch: str | SubmittedBatch) -> BatchStatus:
        """How far the batch is: its state, counts of documents and jobs, tokens, tokens/s and remaining seconds."""
        return self._backend.reports.batch(self._id(batch))

    def cancel(self, batch: str | SubmittedBatch) -> int:
        """Stop the batch: its unfinished jobs are cancelled, its results so far stay. Returns the jobs cancelled.

        Raises StorageError if the batch has ended.
        """
        return self._backend.batches.cancel(self._id(batch))

    def retry(self, batch: str | SubmittedBatch) -> int:
        """Queue the batch's failed jobs again; returns how many. Raises StorageError if it was cancelled or expired."""
        return self._backend.batches.retry_failed(self._id(batch))

    def _id(self, batch: str | SubmittedBatch) -> str:
        return self._backend.batches.find(str(batch)).id


_default = Client()
submit = _default.submit
wait = _default.wait
as_completed = _default.as_completed
results = _default.results
status = _default.status
cancel = _default.cancel
retry = _default.retry
