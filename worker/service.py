"""The worker service: one engine process, one Celery worker with a pool of threads, one heartbeat.

Each thread of the pool holds one job and waits for the engine; there are `lookahead` more threads than slots, so the
next requests are always waiting in the engine. After SIGTERM, running jobs may finish for `drain_timeout_s`; then they
are released, the worker exits within seconds, and no attempt is charged.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import celery.worker.state as celery_state
from celery import Celery, signals
from celery.platforms import EX_FAILURE
from kombu.asynchronous import set_event_loop

from docmill.broker.celery_app import queue_of
from docmill.broker.prometheus_endpoint import MetricsEndpoint, export
from docmill.engine_table import GPU_ENGINES
from docmill.settings.defaults import Worker as WorkerSettings
from docmill.storage.database import Database
from docmill.storage.errors import StorageError
from docmill.storage.moves.attempts import WorkerIdentity
from docmill.storage.moves.workers import WorkerRow
from docmill.worker.batcher import Batcher
from docmill.worker.celery.consumer import JobConsumer
from docmill.worker.celery.log_filters import quiet_celery
from docmill.worker.celery.pausing import PausableQueue
from docmill.worker.celery.task import register_task
from docmill.worker.crash_and_retry_policy import RetryPolicy
from docmill.worker.database_retry import DatabaseRetry
from docmill.worker.engines.base import EngineFacts, RequestId
from docmill.worker.engines.spec import EngineSpec
from docmill.worker.heartbeat import Heartbeat
from docmill.worker.job_events import JobLog, JobObserver, ObservedJobs
from docmill.worker.run_job import Verdict, run_job
from docmill.worker.tail_relay import TailRelay
from docmill.worker.telemetry.gpu_meter import open_gpu_meter
from docmill.worker.telemetry.resources import ResourceSampler

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

log = logging.getLogger(__name__)
_RESTART_S = 1.0


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How a worker runs. `device` is a part of its name: cpu, or a GPU such as gpu0."""

    spec: EngineSpec
    settings: WorkerSettings
    device: str = "cpu"
    metrics: MetricsEndpoint | None = None


def serve(
    make_app: Callable[[], Celery],
    database: Database,
    options: WorkerOptions,
    *,
    on_ready: Callable[[str, EngineFacts], None],
) -> None:
    """Load the model, then run jobs until a signal ends the worker.

    `on_ready` is called with the worker's name and the engine's facts. Raises ModelUnusable, EngineDied or
    MetricsPortTaken before any job is taken, and EngineDied or ModelUnusable if the engine cannot be restarted later.
    """
    quiet_celery()
    registry = export(options.metrics) if options.metrics else None
    batcher = Batcher(options.spec)
    try:
        facts = batcher.start()
        _Worker(make_app, database, options, batcher, facts, registry).run(on_ready)
    finally:
        batcher.close()


class _Worker:
    """A worker whose engine is loaded."""

    def __init__(
        self,
        make_app: Callable[[], Celery],
        database: Database,
        options: WorkerOptions,
        batcher: Batcher,
        facts: EngineFacts,
        registry: CollectorRegistry | None,
    ) -> None:
        self._make_app = make_app
        self._options = options
        self._batcher = batcher
        self._facts = facts
        # A GPU has one worker; a host may have several workers on its CPU.
        unique = options.device if options.device != "cpu" else f"cpu-{os.getpid()}"
        host = socket.gethostname()
        self._celery_name = f"{unique}@{host}"
        self._identity = WorkerIdentity(f"{host}/{unique}", facts.engine, options.spec.model.name)
        gpus = open_gpu_meter() if options.settings.sample_s and facts.engine in GPU_ENGINES else None
        sampler = ResourceSampler(batcher, slots=facts.slots, every_s=options.settings.sample_s, gpus=gpus)
        observers: list[JobObserver] = [JobLog(), sampler]
        lost: Callable[[RequestId], None] = batcher.cancel
        if registry is not None:
            from docmill.worker.telemetry.prometheus import WorkerMetrics

            metrics = WorkerMetrics(registry, self._identity, facts, batcher)
            observers.append(metrics)
            lost = metrics.counting_lost(batcher.cancel)
        self._jobs = ObservedJobs(database, self._identity, lease_s=options.settings.lease_s, observers=observers)
        self._workers = WorkerRow(database, self._identity)
        self._queue = PausableQueue(queue_of(options.spec.model.name))
        self._heartbeat = Heartbeat(
            self._jobs, self._workers, lost, lease_s=options.settings.lease_s, set_paused=self._queue.set_paused,
            sample=sampler.sample,
        )  # fmt: skip
        self._tail_relay = TailRelay(make_app().conf.broker_url, self._heartbeat.held, batcher.watch_text)
        self._db_retry = DatabaseRetry(lambda: batcher.is_closed)
        self._policy = RetryPolicy(options.settings.max_attempts, options.settings.poison_deaths)
        self._drain = _Drain(batcher, options.settings.drain_timeout_s)

    def run(self, on_ready: Callable[[str, EngineFacts], None]) -> None:
        """Run jobs until a signal, or an engine that cannot be restarted, ends the worker."""
        for remark in self._facts.remarks:
            log.info("%s", remark)
        self._workers.register(slots=self._facts.slots)
        self._heartbeat.start()
        self._batcher.on_text(self._tail_relay.send_text)
        self._tail_relay.start()
        signals.worker_shutting_down.connect(self._drain.begin, weak=False)
        self._batcher.on_fatal(_stop_celery)
        try:
            on_ready(self._identity.name, self._facts)
            while self._run_celery() == EX_FAILURE and not (self._drain.has_begun or self._batcher.is_closed):
                # kombu does not survive every way in which a broker can fail.
                log.warning("Celery's worker failed; starting another one with the same engine")
                time.sleep(_RESTART_S)
        finally:
            self._batcher.close()
            self._heartbeat.stop()
            self._tail_relay.stop()
            try:
                self._workers.stopped()
            except StorageError as error:
                log.warning("%s", error)
        self._batcher.raise_if_fatal()

    def _run_celery(self) -> int | None:
        """Consume messages until a signal ends it. Returns Celery's exit code."""
        app = self._make_app()
        register_task(app, self._run_job)
        set_event_loop(None)
        celery_worker = app.Worker(
            pool="threads",
            concurrency=self._facts.slots + self._options.settings.lookahead,
            queues=[queue_of(self._options.spec.model.name)],
            hostname=self._celery_name,
            consumer_cls=JobConsumer,
            without_gossip=True,
            without_mingle=True,
            quiet=True,
            loglevel=logging.getLogger().getEffectiveLevel(),
        )
        self._queue.attach(celery_worker)
        celery_worker.start()
        exit_code: int | None = celery_worker.exitcode
        return exit_code

    def _run_job(self, job_id: int) -> Verdict:
        return run_job(job_id, self._jobs, self._heartbeat, self._batcher, self._policy, self._db_retry)


class _Drain:
    """At shutdown, closes the engine once running jobs have ended or the grace period is over.

    The threads that still wait for the engine then release their jobs.
    """

    def __init__(self, batcher: Batcher, timeout_s: float) -> None:
        self._batcher = batcher
        self._timeout_s = timeout_s
        self.has_begun = False

    def begin(self, **_signal: object) -> None:
        """Called in Celery's signal handler: must return at once. A second signal ends the grace period."""
        end = self._batcher.close if self.has_begun else self._drain
        self.has_begun = True
        threading.Thread(target=end, name="drain", daemon=True).start()

    def _drain(self) -> None:
        deadline = time.monotonic() + self._timeout_s
        while self._batcher.in_flight and time.monotonic() < deadline:
            time.sleep(0.05)
        self._batcher.close()


def _stop_celery() -> None:
    log.error("the engine cannot be restarted; this worker stops")
    celery_state.should_stop = 1
