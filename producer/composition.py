"""Builds what commands, reports and the Python API work with: database, broker, dispatcher, model text."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from celery import Celery
from filelock import FileLock

from docmill.broker.celery_app import make_app
from docmill.broker.embedded_broker import running_url
from docmill.broker.errors import BrokerError, BrokerFull
from docmill.broker.publish import ping
from docmill.producer.batch_plan import PlanRequest, make_plan
from docmill.producer.batch_writer import BatchWriter
from docmill.producer.dispatcher import Dispatcher
from docmill.producer.errors import ProducerError
from docmill.producer.intake.records import Record
from docmill.producer.merge_runner import MergeRunner
from docmill.producer.model_text import ModelText, load_model_text
from docmill.producer.submission import OnDocument, Resume, Submission, SubmitOptions, SubmittedBatch
from docmill.producer.task_files import MergeStrategy, load_task, task_from_prompt
from docmill.settings.defaults import Settings
from docmill.settings.load import load_settings
from docmill.storage.database import Database
from docmill.storage.moves.announce import Outbox
from docmill.storage.moves.batches import Batches
from docmill.storage.moves.documents import Documents
from docmill.storage.reads.reports import Reports
from docmill.storage.schema import require_current


def database_url(settings: Settings) -> str:
    """The configured database, or the SQLite file under `settings.home`."""
    return settings.storage.url or f"sqlite:///{settings.home / 'docmill.db'}"


def broker_directory(settings: Settings) -> Path:
    """The directory of the embedded broker's data and socket."""
    return settings.home / "broker"


class Backend:
    """Everything that the settings describe, each part built when it is first used."""

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings

    @cached_property
    def settings(self) -> Settings:
        """The given settings, or those of the environment and `config.yaml`."""
        return self._settings or load_settings()

    @cached_property
    def database(self) -> Database:
        """The database. Raises StorageError if its schema is not that of this version."""
        database = Database(database_url(self.settings))
        require_current(database)
        return database

    @cached_property
    def reports(self) -> Reports:
        """Reads status and results."""
        return Reports(self.database)

    @cached_property
    def batches(self) -> Batches:
        """Finds, cancels and retries batches."""
        return Batches(self.database)

    def broker(self) -> Celery | None:
        """The Celery app of the broker; None if the embedded broker is not running."""
        url = self.settings.broker.url or running_url(broker_directory(self.settings))
        return make_app(url) if url else None

    def dispatcher(self, app: Celery) -> Dispatcher:
        """A dispatcher on this database and broker."""
        documents = Documents(self.database)
        merge_runner = MergeRunner(documents, self.settings.home)
        return Dispatcher(Outbox(self.database), documents, merge_runner, app, self.settings.producer)

    def model_text(self, profile: str | None = None, model: str | None = None) -> ModelText:
        """The tokenizer and template of `model`, or of the profile's model."""
        return load_model_text(model or self.settings.profile(profile).model, self.settings.home)

    def prepare(self, inputs: Sequence[str | Record], options: SubmitOptions) -> Submission:
        """Check everything that can be checked before a document is read. Raises ProducerError or CatalogueError."""
        if not inputs:
            raise ProducerError("name at least one document, directory, glob or - for standard input")
        options.check()
        profile, producer = self.settings.profile(options.profile), self.settings.producer
        task = task_from_prompt(options.prompt) if options.prompt else load_task(options.task)
        model = options.model or profile.model
        text = load_model_text(model, self.settings.home)
        request = PlanRequest(
            model=_absolute(model),
            max_tokens=options.max_tokens or profile.max_tokens,
            context_window=profile.context_window,
            chunk_tokens=options.chunk_tokens or profile.chunk_tokens or producer.chunk_tokens,
            overlap_tokens=producer.overlap_tokens if options.overlap_tokens is None else options.overlap_tokens,
            merge_strategy=_merge_strategy(options.merge),
            summary_tokens=options.summary_tokens,
            sampling={**profile.sampling, **options.sampling},
        )
        return Submission(
            inputs=inputs,
            plan=make_plan(request, task, text),
            task=task,
            model_text=text,
            intake=producer.model_copy(
                update={
                    "encoding": options.encoding or producer.encoding,
                    "text_field": options.text_field or producer.text_field,
                }
            ),
            options=options,
        )

    def submit(
        self,
        submission: Submission,
        *,
        resume: Resume = Resume.UNFINISHED,
        on_document: OnDocument | None = None,
    ) -> SubmittedBatch:
        """Store a submission and publish its first jobs. A dispatcher publishes them if no broker answers now.

        Raises BrokerFull, before anything is stored, if the broker accepts no messages.
        """
        self.settings.home.mkdir(parents=True, exist_ok=True)
        database = self.database
        app = self._answering_broker()
        with FileLock(self.settings.home / f"submitting-{submission.key[:16]}.lock"):
            submitted = BatchWriter(database).submit(submission, resume=resume, on_document=on_document)
        if app is not None:
            with suppress(BrokerError):  # the batch is stored: a dispatcher publishes it when the broker answers again
                self.dispatcher(app).fill_queue(submission.model_text.model.name)
        return submitted

    def _answering_broker(self) -> Celery | None:
        app = self.broker()
        try:
            if app is not None:
                ping(app)
        except BrokerFull:
            raise
        except BrokerError:
            return None
        return app


def _merge_strategy(name: str | None) -> MergeStrategy | None:
    try:
        return MergeStrategy(name) if name else None
    except ValueError:
        raise ProducerError(f"there is no merge strategy {name!r}; use one of {', '.join(MergeStrategy)}") from None


def _absolute(model: str) -> str:
    """A path made absolute, so that a dispatcher in another directory finds the model; a name as it is."""
    path = Path(model).expanduser()
    return str(path.resolve()) if path.exists() else model
