"""The overhead per job of docmill and of plain Celery, with the same broker and jobs of the same length.

The job is one step of the simulated engine, and a sleep of the same length in plain Celery's task. Wall time per job
excludes the work itself. CPU time per job is the sum over all processes: worker, engine, dispatcher and broker. Plain
Celery stores nothing; docmill commits a claim, a result and an attempt to disk.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
from celery import Celery

from benchmarks.filling import Shape, check, fill
from benchmarks.services import ROOT, Services, cpu_s, wait_until

_WARM_UP = 200
_SLOTS = 16
_LOOKAHEAD = 3
_STEP_S = 0.005
_QUEUE = "plain"
_TASK = "benchmarks.sleep"


def measure_overhead(services: Services, jobs: int) -> dict[str, Any]:
    """Milliseconds per job, of docmill and then of plain Celery, each after a warm-up."""
    docmill = _docmill(services, jobs)
    plain = _plain(services, jobs)
    work_ms = _STEP_S * 1000 / _SLOTS
    return {
        "jobs": jobs,
        "slots": _SLOTS,
        "docmill, ms a job": round(docmill[0] - work_ms, 2),
        "plain Celery, ms a job": round(plain[0] - work_ms, 2),
        "docmill, processor ms a job": round(docmill[1], 2),
        "plain Celery, processor ms a job": round(plain[1], 2),
    }


def _docmill(services: Services, measured: int) -> tuple[float, float]:
    dispatcher = services.start("dispatcher")
    worker = services.worker(slots=_SLOTS, engine={"decode_steps_per_s": 1 / _STEP_S})
    services.wait_for_workers(1)
    processes = [psutil.Process(pid) for pid in (dispatcher.pid, worker.pid, services.broker_pid)]
    for jobs in (_WARM_UP, measured):
        before = sum(cpu_s(process) for process in processes)
        batch_id = fill(services.backend.database, services.plan(max_tokens=1), Shape(jobs // 20, 20, max_tokens=1))
        wait_until(lambda batch_id=batch_id: _has_ended(services, batch_id), "the end", 600.0, every_s=0.5)  # type: ignore[misc]
        cpu = sum(cpu_s(process) for process in processes) - before
    check(services.backend.database.engine, ended=True)
    began, ended = services.rows(
        "SELECT min(b.in_progress_at), max(j.finished_at) FROM batches b JOIN jobs j ON j.batch_id = b.id "
        "WHERE b.id = :b",
        b=batch_id,
    )[0]
    for process in (worker, dispatcher):
        process.terminate()
        process.wait()
    return (ended - began) * 1000 / measured, cpu * 1000 / measured


def _has_ended(services: Services, batch_id: str) -> bool:
    return str(services.rows("SELECT state FROM batches WHERE id = :b", b=batch_id)[0][0]) == "completed"


def _plain(services: Services, measured: int) -> tuple[float, float]:
    app = _plain_app(services.broker.url)
    report = services.settings.home / "plain.json"
    broker = psutil.Process(services.broker_pid)
    worker = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.overhead", services.broker.url, str(report)], cwd=ROOT,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for jobs in (_WARM_UP, measured):
            before = cpu_s(broker) + cpu_s(psutil.Process(worker.pid)) + time.process_time()
            began = time.time()
            _publish(app, jobs)
            wait_until(lambda jobs=jobs: _finished(report) == jobs, "plain Celery's tasks", 300.0)  # type: ignore[misc]
            cpu = cpu_s(broker) + cpu_s(psutil.Process(worker.pid)) + time.process_time() - before
    finally:
        worker.kill()
        worker.wait()
    ended = json.loads(report.read_text())["ended"]
    return (ended - began) * 1000 / measured, cpu * 1000 / measured


def _publish(app: Celery, jobs: int) -> None:
    with app.pool.acquire(block=True) as connection:
        producer = app.amqp.Producer(connection, auto_declare=False)
        with producer.batch(500):
            for number in range(jobs):
                app.send_task(_TASK, args=(number, jobs), queue=_QUEUE, producer=producer)


def _finished(report: Path) -> int:
    return int(json.loads(report.read_text())["jobs"]) if report.exists() else 0


def _plain_app(url: str) -> Celery:
    app = Celery("plain", broker=url, set_as_current=False)
    app.conf.update(task_ignore_result=True, task_acks_late=True, worker_prefetch_multiplier=1)
    return app


def _serve(url: str, report: Path) -> None:
    """Child process: a worker with the threads pool. The last task of a round writes the report."""
    app = _plain_app(url)
    ended: list[float] = []

    def sleep(_number: int, jobs: int) -> None:
        time.sleep(_STEP_S)
        ended.append(time.time())
        if len(ended) == jobs:
            unfinished = report.with_suffix(".part")
            unfinished.write_text(json.dumps({"jobs": jobs, "ended": ended[-1]}))
            unfinished.rename(report)
            ended.clear()

    app.task(sleep, name=_TASK, shared=False)
    app.Worker(
        pool="threads", concurrency=_SLOTS + _LOOKAHEAD, queues=[_QUEUE], without_gossip=True, without_mingle=True,
        quiet=True, loglevel="WARNING",
    ).start()  # fmt: skip


if __name__ == "__main__":
    _serve(sys.argv[1], Path(sys.argv[2]))
