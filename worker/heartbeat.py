"""The heartbeat of a worker: renews all its leases in one UPDATE and stops jobs that are no longer its own.

A job that was cancelled, has expired or was taken over by another worker is cancelled in the engine at the next beat.
If the database has not responded for the length of a lease, other workers may have taken the jobs: all are cancelled.
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
from docmill.storage.moves.workers import Sample, WorkerRow
from docmill.worker.engines.base import RequestId

log = logging.getLogger(__name__)


def request_id_of(job: ClaimedJob) -> RequestId:
    """The id of an attempt's request in the engine."""
    return f"{job.id}-{job.epoch}"


def attempt_of(request_id: RequestId) -> tuple[int, int]:
    """The job's id and epoch, from the result of `request_id_of`."""
    job_id, _, epoch = request_id.partition("-")
    return int(job_id), int(epoch)


class Heartbeat:
    """Knows the jobs that the worker holds.

    `lost` is called with the request id of each job that is no longer the worker's, at every beat until the job has
    ended. `set_paused` is called at every beat with what the worker's row asks for. `sample` returns the resource usage
    to store, given the number of held jobs, or None.
    """

    def __init__(
        self,
        jobs: Jobs,
        workers: WorkerRow,
        lost: Callable[[RequestId], None],
        *,
        lease_s: float,
        set_paused: Callable[[bool], None] = lambda _: None,
        sample: Callable[[int], Sample | None] = lambda _: None,
    ) -> None:
        self._jobs = jobs
        self._workers = workers
        self._lost = lost
        self._set_paused = set_paused
        self._sample = sample
        self._lease_s = lease_s
        self._held: dict[RequestId, ClaimedJob] = {}
        self._logged_lost: set[RequestId] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._beats = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._expiry = threading.Thread(target=self._watch_expiry, name="lease-expiry", daemon=True)
        self._renewed_at = time.monotonic()

    def start(self) -> None:
        """Begin to beat, several times per lease."""
        self._renewed_at = time.monotonic()
        self._beats.start()
        self._expiry.start()

    def stop(self) -> None:
        """Stop beating."""
        self._stop.set()
        if self._beats.is_alive():
            self._beats.join(timeout=5.0)

    @contextmanager
    def holding(self, job: ClaimedJob) -> Iterator[None]:
        """Renew the job's lease while the block runs."""
        request_id = request_id_of(job)
        with self._lock:
            self._held[request_id] = job
        try:
            yield
        finally:
            with self._lock:
                self._held.pop(request_id, None)
                self._logged_lost.discard(request_id)

    def held(self, job_id: int) -> ClaimedJob | None:
        """The job, if this worker holds it."""
        with self._lock:
            return next((job for job in self._held.values() if job.id == job_id), None)

    def beat(self) -> None:
        """Renew all leases once and cancel the jobs that are lost."""
        with self._lock:
            held = dict(self._held)
        ours = self._jobs.heartbeat(held.values())  # first: on a busy database every write waits for its turn
        self._renewed_at = time.monotonic()
        self._cancel([request_id for request_id, job in held.items() if (job.id, job.epoch) not in ours])
        self._set_paused(self._workers.seen(running=len(held), sample=self._sample(len(held))))

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

    def _watch_expiry(self) -> None:
        """Cancel all jobs once their leases have expired, in a separate thread because a beat may hang."""
        while not self._stop.wait(self._lease_s / LEASE_RENEWALS):
            if time.monotonic() - self._renewed_at > self._lease_s:
                with self._lock:
                    held = list(self._held)
                self._cancel(held)

    def _cancel(self, request_ids: list[RequestId]) -> None:
        for request_id in request_ids:
            with self._lock:
                if request_id not in self._held:
                    continue
                if request_id not in self._logged_lost:
                    self._logged_lost.add(request_id)
                    log.info("request %s no longer belongs to this worker; stopping it", request_id)
            self._lost(request_id)  # at every beat: the request may not have reached the engine before
