"""The dispatcher: keeps queues filled from the database, rescues lost jobs, advances documents and ends batches.

Every change is a compare-and-set, so any number of dispatchers may run, and any of them may crash at any point.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass

from celery import Celery

from docmill.broker.errors import BrokerError
from docmill.broker.publish import publish
from docmill.producer.merge_runner import MergeRunner
from docmill.settings.defaults import Producer
from docmill.storage.errors import StorageError
from docmill.storage.moves.announce import Outbox
from docmill.storage.moves.documents import Documents
from docmill.storage.moves.finish_batches import finish_batches
from docmill.storage.moves.rescue import rescue_lost_jobs

log = logging.getLogger(__name__)
_IDLE_TIMES = 4  # intervals between two rounds while no batch is in progress: a submission publishes its first jobs
_PUBLISH = 500  # jobs published and marked at a time: at most these are published twice after a crash
_MAX_LOSSES = 10  # a job fails when it was lost with its worker this often


@dataclass(slots=True)
class DispatchCounts:
    """Counts since the dispatcher's start. `last_round_at` is in seconds since 1970."""

    published: int = 0
    rescued: int = 0
    documents_advanced: int = 0
    failed_rounds: int = 0
    last_round_at: float = 0.0


class Dispatcher:
    """One dispatcher. `run` blocks, so give it its own thread or process.

    `settings.watermark` limits the messages in a model's queue. A message that no worker took is sent again after
    `settings.republish_s` seconds, then after four, nine, ... times as long.
    """

    def __init__(
        self, outbox: Outbox, documents: Documents, merge_runner: MergeRunner, app: Celery, settings: Producer
    ) -> None:
        self._outbox = outbox
        self._documents = documents
        self._merge_runner = merge_runner
        self._app = app
        self._settings = settings
        self.counts = DispatchCounts()
        self._is_at_work = True

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set. An outage of the database or the broker is waited out.

        An unexpected error ends its round, which leaves nothing half done, but not the dispatcher.
        """
        failing_since: str | None = None
        while not stop.is_set():
            try:
                busy = self.tick()
            except Exception as error:
                self.counts.failed_rounds += 1
                is_new, failing_since = failing_since != str(error), str(error)
                if is_new and isinstance(error, StorageError | BrokerError):
                    log.warning("%s; retrying until it responds", error)
                elif is_new:
                    log.exception("unexpected error in a round; retrying")
                stop.wait(min(5.0, self._settings.dispatch_interval_s * 8))
                continue
            if failing_since is not None:
                log.warning("recovered")
                failing_since = None
            if not busy:
                stop.wait(self._settings.dispatch_interval_s * (1 if self._is_at_work else _IDLE_TIMES))

    def tick(self) -> bool:
        """Do one round. True if the next round should follow at once because documents were waiting."""
        if rescued := rescue_lost_jobs(self._outbox.database, max_losses=_MAX_LOSSES):
            self.counts.rescued += rescued
            log.warning("rescued %d jobs of workers that stopped responding", rescued)
        ended = self._documents.with_ended_level()
        for document in ended:
            self._merge_runner.advance(document)
            self.counts.documents_advanced += 1
        finish_batches(self._outbox.database)
        models = self._outbox.models_at_work()
        for model in models:
            self.fill_queue(model)
        self._is_at_work = bool(models)
        self.counts.last_round_at = time.time()
        return len(ended) > 0

    def fill_queue(self, model: str) -> int:
        """Publish due jobs up to the watermark, and jobs whose message seems lost. Returns how many."""
        room = self._watermark(model) - self._outbox.published(model)
        jobs = self._outbox.unpublished(model, room) if room > 0 else []
        jobs += self._outbox.overdue(model, age_s=self._settings.republish_s, limit=500)
        for at in range(0, len(jobs), _PUBLISH):
            publish(self._app, jobs[at : at + _PUBLISH])
            self._outbox.mark_published(jobs[at : at + _PUBLISH])
        self.counts.published += len(jobs)
        return len(jobs)

    def _watermark(self, model: str) -> int:
        if self._settings.watermark is not None:
            return self._settings.watermark
        return max(1_000, 4 * self._outbox.slots(model))
