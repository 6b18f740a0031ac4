"""Builds what the commands, the reports and the Python API work with: database, broker, dispatcher, model text."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from celery import Celery
from filelock import FileLock

from docmill.broker.celery_app import make_app
from docmill.broker.embedded_broker import running_url
from docmill.broker.errors import BrokerError, BrokerFull
from docmill.broker.publish import ping
from docmill.producer.batch_planning import Wishes, make_plan
from docmill.producer.batch_writer import Submitter
from docmill.producer.dispatcher import Dispatcher, DispatchPolicy
from docmill.producer.errors import ProducerError
from docmill.producer.intake.sources import IntakeOptions
from docmill.producer.merge_step import Advancer
from docmill.producer.model_text import ModelText, load_model_text
from docmill.producer.submission import OnDocument, Resume, Submission, Submitted
from docmill.producer.tasks import MergeStrategy, load_task, task_from_prompt
from docmill.producer.wait_for_batch import follow
from docmill.settings.defaults import Profile, Settings
from docmill.settings.load import load_settings
from docmill.storage.database import Database
from docmill.storage.moves.announce import Outbox
from docmill.storage.moves.batches import Batches
from docmill.storage.moves.documents import Levels
from docmill.storage.reads.batch_status import BatchStatus
from docmill.storage.reads.reports import Reports
from docmill.storage.schema import require_current


def database_url(settings: Settings) -> str:
    """The configured database, or the SQLite file under `settings.home`."""
    return settings.storage.url or f"sqlite:///{settings.home / 'docmill.db'}"


def broker_directory(settings: Settings) -> Path:
    """Where the embedded broker of this home keeps its data and its socket."""
    return settings.home / "broker"


class Backend:
    """The database, the broker and what works on them, each made on first use."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or load_settings()

    @cached_property
    def database(self) -> Database:
        """The database, its schema checked."""
        database = Database(database_url(self.settings))
        require_current(database)
        return database

    @cached_property
    def reports(self) -> Reports:
        """Status and results."""
        return Reports(self.database)

    @cached_property
    def batches(self) -> Batches:
        """Find, cancel, retry."""
        return Batches(self.database)

    def broker(self) -> Celery | None:
        """The broker's app; None when the embedded one is not running now."""
        url = self.settings.broker.url or running_url(broker_directory(self.settings))
        return make_app(url) if url else None

    def dispatcher(self, app: Celery) -> Dispatcher:
        """A dispatcher on this database and broker."""
        levels = Levels(self.database)
        policy = DispatchPolicy(
            interval_s=self.settings.producer.dispatch_interval_s,
            watermark=self.settings.producer.watermark,
            republish_s=self.settings.producer.republish_s,
        )
        return Dispatcher(Outbox(self.database), levels, Advancer(levels, self.settings.home), app, policy)

    def model_text(self, profile: str | None = None, model: str | None = None) -> ModelText:
        """The tokenizer and template of the profile's model, or of `model`."""
        return load_model_text(model or self.settings.profile(profile).model, self.settings.home)

    def prepare(
        self,
        inputs: tuple[str, ...],
        *,
        profile: str | None = None,
        task: str = "summarize",
        prompt: str | None = None,
        model: str | None = None,
        merge: str | None = None,
        summary_tokens: int | None = None,
        max_tokens: int | None = None,
        chunk_tokens: int | None = None,
        overlap_tokens: int | None = None,
        sampling: Mapping[str, Any] | None = None,
        priority: int = 5,
        metadata: Mapping[str, str] | None = None,
        encoding: str | None = None,
        text_field: str | None = None,
        deadline_s: float | None = None,
        idempotency_key: str | None = None,
        reuse: bool = True,
    ) -> tuple[Submission, ModelText]:
        """Check everything that can be checked before a document is read. Sizes in tokens, deadline in seconds.

        With an `idempotency_key` a repeated submission returns the first batch, whatever became of it.
        """
        if not inputs:
            raise ProducerError("name at least one document, directory, glob or - for standard input")
        chosen = self.settings.profile(profile)
        producer = self.settings.producer
        checked = task_from_prompt(prompt) if prompt else load_task(task)
        text = load_model_text(model or chosen.model, self.settings.home)
        wishes = Wishes(
            model=_lasting_name(model or chosen.model),
            max_tokens=max_tokens or chosen.max_tokens,
            context_window=chosen.context_window,
            chunk_tokens=chunk_tokens or chosen.chunk_tokens or producer.chunk_tokens,
            overlap_tokens=producer.overlap_tokens if overlap_tokens is None else overlap_tokens,
            merge_strategy=_merge_strategy(merge),
            summary_tokens=summary_tokens,
            sampling={**_profile_sampling(chosen), **(sampling or {})},
        )
        intake = IntakeOptions(
            encoding=encoding or producer.encoding,
            text_field=text_field or producer.text_field,
            max_document_bytes=producer.max_document_bytes,
            max_archive_bytes=producer.max_archive_bytes,
        )
        submission = Submission(
            inputs=inputs,
            plan=make_plan(wishes, checked, text),
            task=checked,
            intake=intake,
            priority=priority,
            metadata=metadata or {},
            deadline_s=deadline_s,
            idempotency_key=idempotency_key,
            reuse=reuse,
        )
        return submission, text

    def submit(
        self,
        submission: Submission,
        text: ModelText,
        *,
        resume: Resume = Resume.UNFINISHED,
        on_document: OnDocument | None = None,
    ) -> Submitted:
        """Store a prepared submission and publish its first jobs (a dispatcher does, where no broker answers).

        Raises BrokerFull, before anything is stored, where one answers and takes no messages.
        """
        self.settings.home.mkdir(parents=True, exist_ok=True)
        database = self.database
        app = self._broker_that_answers()
        with FileLock(self.settings.home / f"submitting-{submission.key[:16]}.lock"):
            submitted = Submitter(database, text).submit(submission, resume=resume, on_document=on_document)
        if app is not None:
            with suppress(BrokerError):  # stored is submitted: a dispatcher publishes as soon as the broker answers
                self.dispatcher(app).fill_queue(text.model.name)
        return submitted

    def _broker_that_answers(self) -> Celery | None:
        app = self.broker()
        try:
            if app is not None:
                ping(app)
        except BrokerFull:
            raise
        except BrokerError:
            return None
        return app

    def wait(
        self,
        batch_id: str,
        *,
        timeout_s: float | None = None,
        interval_s: float = 0.5,
        on_status: Callable[[BatchStatus], None] | None = None,
    ) -> BatchStatus:
        """Block until the batch has ended; raises TimeoutError after `timeout_s`."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        for status in self.follow(batch_id, interval_s=interval_s):
            if on_status is not None:
                on_status(status)
            if not status.state.is_terminal and until is not None and time.monotonic() > until:
                raise TimeoutError(f"batch {batch_id} is still {status.state} after {timeout_s:g} s")
        return status

    def follow(self, batch_id: str, *, interval_s: float = 0.5) -> Iterator[BatchStatus]:
        """The batch's status every `interval_s` seconds until it has ended; see `docmill.producer.wait_for_batch`."""
        return follow(self.reports, batch_id, interval_s=interval_s)


def _merge_strategy(name: str | None) -> MergeStrategy | None:
    try:
        return MergeStrategy(name) if name else None
    except ValueError:
        raise ProducerError(f"no merge strategy {name!r}; there are {', '.join(MergeStrategy)}") from None


def _profile_sampling(profile: Profile) -> dict[str, Any]:
    names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed")
    return {name: value for name in names if (value := getattr(profile, name)) is not None}


def _lasting_name(model: str) -> str:
    """The name a dispatcher elsewhere can find the model by: a path is made absolute."""
    path = Path(model).expanduser()
    return str(path.resolve()) if path.exists() else model
