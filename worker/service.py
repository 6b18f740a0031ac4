"""The worker service: one engine process, one Celery worker with the threads pool, one heartbeat.

Each of the pool's threads holds one job and waits for the engine, so the engine always has `lookahead` more
requests than it can run at once. SIGTERM: running jobs are finished for `drain_timeout_s`, then released; the
worker ends within seconds, and no attempt is lost.
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
from docmill.storage.database import Database
from docmill.storage.errors import StorageError
from docmill.storage.moves.attempts import WorkerIdentity
from docmill.storage.moves.workers import WorkerRow
from docmill.worker.batcher import Batcher
from docmill.worker.celery.log_filters import quiet_celery
from docmill.worker.celery.pausing import Consuming
from docmill.worker.celery.task import register_task
from docmill.worker.celery.waiting_consumer import WaitingConsumer
from docmill.worker.crash_and_retry_policy import RetryPolicy
from docmill.worker.database_retry import Patience
from docmill.worker.engines.base import EngineFacts, RequestId
from docmill.worker.engines.spec import EngineSpec
from docmill.worker.heartbeat import Leases
from docmill.worker.job_events import JobLog, JobObserver, ObservedJobs
from docmill.worker.run_job import run_job
from docmill.worker.tail_relay import Tails
from docmill.worker.telemetry.gpu_meter import open_gpu_meter
from docmill.worker.telemetry.resources import Sampler

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

log = logging.getLogger(__name__)
_AGAIN_S = 1.0


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """`lookahead` jobs wait in the engine beside those in its slots; leases last `lease_s` seconds.

    What the worker uses is stored every `sample_s` seconds, not at all where that is 0.
    """

    spec: EngineSpec
    lookahead: int
    lease_s: float
    drain_timeout_s: float
    policy: RetryPolicy
    sample_s: float
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

    Raises ModelUnusable, EngineDied or MetricsPortTaken before any job is taken, EngineClosed when the engine cannot
    be brought back. `on_ready` is told the worker's name and what the engine says of itself.
    """
    quiet_celery()
    registry = export(options.metrics) if options.metrics else None
    batcher = Batcher(options.spec)
    try:
        facts = batcher.start()
        _serve_loaded(make_app, database, options, batcher, facts, on_ready, registry)
    finally:
        batcher.close()


def _serve_loaded(
    make_app: Callable[[], Celery],
    database: Database,
    options: WorkerOptions,
    batcher: Batcher,
    facts: EngineFacts,
    on_ready: Callable[[str, EngineFacts], None],
    registry: CollectorRegistry | None,
) -> None:
    for remark in facts.remarks:
        log.info("%s", remark)
    host, unique = socket.gethostname(), _unique_here(options)
    identity = WorkerIdentity(f"{host}/{unique}", facts.engine, options.spec.model.name)
    sampler = _sampler(options, batcher, facts)
    observers: list[JobObserver] = [JobLog(), sampler]
    lost = _with_metrics(batcher, identity, facts, registry, observers)
    jobs = ObservedJobs(database, identity, lease_s=options.lease_s, observers=observers)
    workers = WorkerRow(database, identity)
    workers.register(slots=facts.slots)
    consuming = Consuming(queue_of(options.spec.model.name))
    leases = Leases(jobs, workers, lost, lease_s=options.lease_s, pause=consuming.pause, sample=sampler.sample)
    leases.start()
    tails = Tails(make_app().conf.broker_url, leases.held, batcher.watch_text)
    batcher.on_text(tails.written)
    tails.start()
    patience = Patience(lambda: batcher.is_closed)
    drain = _Drain(batcher, options.drain_timeout_s)
    signals.worker_shutting_down.connect(drain.begin, weak=False)
    batcher.on_fatal(_stop_celery)
    try:
        on_ready(identity.name, facts)
        while True:
            app = make_app()
            register_task(app, lambda job_id: run_job(job_id, jobs, leases, batcher, options.policy, patience))
            failed = _run_celery(app, f"{unique}@{host}", options, facts, consuming)
            if not failed or drain.has_begun or batcher.is_closed:
                break
            log.warning("Celery's worker failed; beginning another on the same engine")
            time.sleep(_AGAIN_S)
    finally:
        batcher.close()
        leases.stop()
        tails.stop()
        try:
            workers.stopped()
        except StorageError as error:
            log.warning("%s", error)
    batcher.raise_if_fatal()


def _unique_here(options: WorkerOptions) -> str:
    """What this worker is called on its host: a GPU has one worker, a CPU may have several."""
    return options.device if options.device != "cpu" else f"cpu-{os.getpid()}"


def _with_metrics(
    batcher: Batcher,
    identity: WorkerIdentity,
    facts: EngineFacts,
    registry: CollectorRegistry | None,
    observers: list[JobObserver],
) -> Callable[[RequestId], None]:
    """What to do with a request that is no longer ours; with a registry, metrics join the observers."""
    if registry is None:
        return batcher.cancel
    from docmill.worker.telemetry.prometheus import WorkerMetrics

    metrics = WorkerMetrics(registry, identity, facts, batcher)
    observers.append(metrics)
    return metrics.counting_lost(batcher.cancel)


def _sampler(options: WorkerOptions, batcher: Batcher, facts: EngineFacts) -> Sampler:
    gpus = open_gpu_meter() if options.sample_s and facts.engine in GPU_ENGINES else None
    return Sampler(batcher, slots=facts.slots, every_s=options.sample_s, gpus=gpus)


def _run_celery(app: Celery, hostname: str, options: WorkerOptions, facts: EngineFacts, consuming: Consuming) -> bool:
    """Take messages until a signal ends it. True: it failed; kombu does not survive every way a broker can die."""
    set_event_loop(None)
    celery_worker = app.Worker(
        pool="threads",
        concurrency=facts.slots + options.lookahead,
        queues=[queue_of(options.spec.model.name)],
        hostname=hostname,
        consumer_cls=WaitingConsumer,
        without_gossip=True,
        without_mingle=True,
        quiet=True,
        loglevel=logging.getLogger().getEffectiveLevel(),
    )
    consuming.of(celery_worker)
    celery_worker.start()
    return bool(celery_worker.exitcode == EX_FAILURE)


class _Drain:
    """Ends the engine after the grace that running jobs are given; its waiting threads then release their jobs."""

    def __init__(self, batcher: Batcher, timeout_s: float) -> None:
        self._batcher = batcher
        self._timeout_s = timeout_s
        self.has_begun = False

    def begin(self, **_signal: object) -> None:
        """Called in Celery's signal handler: must return at once. The second signal ends the grace."""
        end = self._batcher.close if self.has_begun else self._drain
        self.has_begun = True
        threading.Thread(target=end, name="drain", daemon=True).start()

    def _drain(self) -> None:
        deadline = time.monotonic() + self._timeout_s
        while self._batcher.in_flight and time.monotonic() < deadline:
            time.sleep(0.05)
        self._batcher.close()


def _stop_celery() -> None:
    log.error("the engine cannot be brought back; this worker stops")
    celery_state.should_stop = 1
