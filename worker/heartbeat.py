"""One heartbeat thread a worker: renews all leases in one UPDATE, stops what is no longer its own.

A job that was cancelled, expired or taken over by another worker is cancelled in the engine at the next beat. When
the database has not answered for a whole lease, others may have taken the jobs: all are cancelled.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from docmill.settings.defaults import LEASE_RENEWALS
from docmill.storage.errors import StorageError
from docmill.storage.moves.attempts import ClaimedJob
from docmill.storage.moves.jobs import Jobs
from docmill.storage.moves.worker_samples import Sample
from docmill.storage.moves.workers import WorkerRow
from docmill.worker.engines.base import RequestId

log = logging.getLogger(__name__)


def request_id_of(job: ClaimedJob) -> RequestId:
    """The engine's name for an attempt of a job."""
    return f"{job.id}-{job.epoch}"


def attempt_of(request_id: RequestId) -> tuple[int, int]:
    """The job's id and the epoch that `request_id_of` made the name of."""
    job_id, _, epoch = request_id.partition("-")
    return int(job_id), int(epoch)


class Leases:
    """The jobs a worker holds. `lost` is called with the request id of each that is no longer its own, `pause` at
    every beat with whether the worker shall take no further jobs; `sample` says, now and then, what it uses."""

    def __init__(
        self,
        jobs: Jobs,
        workers: WorkerRow,
        lost: Callable[[RequestId], None],
        *,
        lease_s: float,
        pause: Callable[[bool], None] = lambda _: None,
        sample: Callable[[int], Sample | None] = lambda _: None,
    ) -> None:
        self._jobs = jobs
        self._workers = workers
        self._lost = lost
        self._pause = pause
        self._sample = sample
        self._lease_s = lease_s
        self._held: dict[RequestId, ClaimedJob] = {}
        self._given_up: set[RequestId] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)
        self._watcher = threading.Thread(target=self._watch, name="lease-watch", daemon=True)
        self._renewed_at = time.monotonic()

    def start(self) -> None:
        """Begin to beat, every third of a lease."""
        self._renewed_at = time.monotonic()
        self._thread.start()
        self._watcher.start()

    def stop(self) -> None:
        """Stop beating."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5.0)

    @contextmanager
    def holding(self, job: ClaimedJob) -> Iterator[None]:
        """Keep the job's lease while the block runs."""
        request_id = request_id_of(job)
        with self._lock:
            self._held[request_id] = job
        try:
            yield
        finally:
            with self._lock:
                self._held.pop(request_id, None)
                self._given_up.discard(request_id)

    def held(self, job_id: int) -> ClaimedJob | None:
        """The job, where this worker holds it."""
        with self._lock:
            return next((job for job in self._held.values() if job.id == job_id), None)

    def beat(self) -> None:
        """Renew everything once and cancel what is lost."""
        with self._lock:
            held = dict(self._held)
        ours = self._jobs.heartbeat(held.values())  # first: on a busy database every write waits for its turn
        self._renewed_at = time.monotonic()
        self._give_up([rid for rid, job in held.items() if (job.id, job.epoch) not in ours])
        self._pause(self._workers.seen(running=len(held), sample=self._sample(len(held))))

    def _run(self) -> None:
        is_failing = False
        while not self._stop.wait(self._lease_s / LEASE_RENEWALS):
            try:
                self.beat()
                is_failing = False
            except StorageError as error:
                if not is_failing:
                    log.warning("heartbeat: %s; trying again", error)
                is_failing = True
            except Exception:
                log.exception("the heartbeat failed; trying again")

    def _watch(self) -> None:
        """Give everything up when no lease was renewed for as long as one lasts: others may have it by now.

        In a thread of its own, for a beat may hang in a database that does not even refuse.
        """
        while not self._stop.wait(self._lease_s / LEASE_RENEWALS):
            if time.monotonic() - self._renewed_at > self._lease_s:
                with self._lock:
                    held = list(self._held)
                self._give_up(held)

    def _give_up(self, request_ids: list[RequestId]) -> None:
        for request_id in request_ids:
            with self._lock:
                still_held = request_id in self._held
                is_new = still_held and request_id not in self._given_up
                if is_new:
                    self._given_up.add(request_id)
            if is_new:
                log.info("request %s is no longer ours; stopping it", request_id)
            if still_held:
                self._lost(request_id)  # at each beat: it may not have come to the engine before
