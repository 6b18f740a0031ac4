"""Compares the cost of database operations with a million jobs and with ten thousand.

Two databases are filled with one batch each, a small and a large one, half of each done. The operations of dispatcher,
workers and users are timed on both in turn. The result is the ratio of the medians; 1 means that the number of jobs
does not matter. The broker's memory is read after a dispatcher has filled its queue. Every counter is recounted before
and after.

    python -m benchmarks.scale --jobs 100000                        # about two minutes
    python -m benchmarks.scale --jobs 1000000 --database postgres
    python -m benchmarks.scale --workers 64 --jobs 0                # only the occupancy of 64 workers
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

from sqlalchemy import update

from benchmarks.filling import Shape, check, fill
from benchmarks.machine import describe_machine
from benchmarks.occupancy import measure_occupancy
from benchmarks.services import DATABASES, Services, client_of, database_for, scratch_home
from docmill.storage.attempt_metrics import GeneratedText
from docmill.storage.columns import db_now
from docmill.storage.database import Database
from docmill.storage.moves.announce import Outbox
from docmill.storage.moves.attempts import ClaimedJob, WorkerIdentity
from docmill.storage.moves.documents import Documents
from docmill.storage.moves.finish_batches import finish_batches
from docmill.storage.moves.jobs import Jobs
from docmill.storage.moves.rescue import rescue_lost_jobs
from docmill.storage.moves.workers import WorkerRow
from docmill.storage.reads.reports import Reports
from docmill.storage.tables import Job

_SMALL = 10_000
_JOBS_A_DOCUMENT = 20
_HELD = 64  # running jobs of one worker
_REPEATS = {"announce 100 jobs": 20, "rescue of 100 jobs": 5}
_GENERATED = GeneratedText(
    text="A summary.",
    finish_reason="stop",
    prompt_tokens=24,
    cached_tokens=0,
    completion_tokens=40,
    queue_s=0.1,
    prefill_s=0.1,
    decode_s=0.8,
    batch_size=8.0,
    peak_memory_bytes=100_000_000,
)


def main() -> int:
    options = _options()
    report: dict[str, Any] = {"machine": describe_machine()}
    print(f"# {report['machine']}", file=sys.stderr)
    if options.jobs:
        for kind in options.database:
            report[kind] = _compared(kind, options.jobs, options)
    if options.workers:
        with scratch_home(options.home) as home, database_for(options.database[0], home) as url:
            report["occupancy"] = measure_occupancy(home, url, options.workers, options.minutes)
    print(json.dumps(report) if options.json else _table(report, options))
    return 0


def _compared(kind: str, jobs: int, options: argparse.Namespace) -> dict[str, Any]:
    """Time every operation alternately on the small and on the large database."""
    with ExitStack() as stack:
        places = [_filled(stack, kind, size, options) for size in (_SMALL, jobs)]
        costs: dict[str, list[float]] = {}
        for name in places[0].moves:
            times = [[place.moves[name]() for place in places] for _ in range(_REPEATS.get(name, options.repeat))]
            costs[name] = [round(statistics.median(column), 3) for column in zip(*times, strict=True)]
        for place in places:
            place.check()
        return {"median_ms": costs, "broker_bytes": [place.broker_bytes for place in places]}


def _filled(stack: ExitStack, kind: str, jobs: int, options: argparse.Namespace) -> _Place:
    home = stack.enter_context(scratch_home(options.home))
    services = stack.enter_context(Services(home, stack.enter_context(database_for(kind, home))))
    documents = jobs // _JOBS_A_DOCUMENT
    began = time.monotonic()
    batch_id = fill(services.backend.database, services.plan(), Shape(documents, _JOBS_A_DOCUMENT, documents // 2))
    seconds = time.monotonic() - began
    if options.analyze:
        _analyze(services.backend.database)
    place = _Place(services, batch_id)
    place.check()
    print(f"# {kind}: {jobs:,} jobs filled in {seconds:.0f} s", file=sys.stderr)
    return place


class _Place:
    """A filled database with a broker, and the operations by name; calling one returns its duration in milliseconds."""

    def __init__(self, services: Services, batch_id: str) -> None:
        self._database = services.backend.database
        self._batch_id = batch_id
        app = services.backend.broker()
        assert app is not None
        self._dispatcher = services.backend.dispatcher(app)
        self.broker_bytes = self._fill_broker(services)
        identity = WorkerIdentity("bench/cpu", "simulated", "simulated")
        self._jobs = Jobs(self._database, identity, lease_s=600.0)
        self._workers = WorkerRow(self._database, identity)
        self._workers.register(slots=_HELD)
        self._outbox = Outbox(self._database)
        self._held: list[ClaimedJob] = []
        self._ready: list[int] = []
        self.moves = self._moves()

    def check(self) -> None:
        """Recount everything."""
        check(self._database.engine)

    def _fill_broker(self, services: Services) -> int:
        """Memory of the broker in bytes after the dispatcher has published all it may."""
        with client_of(services.broker) as client:
            before = int(client.info("memory")["used_memory"])
            for _ in range(20):
                self._dispatcher.tick()
            return int(client.info("memory")["used_memory"]) - before

    def _moves(self) -> dict[str, Callable[[], float]]:
        levels, reports, outbox = Documents(self._database), Reports(self._database), self._outbox
        moves: dict[str, Callable[[], object]] = {
            "status of the batch": lambda: reports.batch(self._batch_id),
            "list of batches": reports.batches,
            "idle dispatcher's tick": self._dispatcher.tick,
            "count of announced jobs": lambda: outbox.published("simulated"),
            "search for lost messages": lambda: outbox.overdue("simulated", age_s=3600.0, limit=500),
            "announce 100 jobs": self._announce,
            "claim": lambda: self._held.append(self._claim()),
            "heartbeat of 64 jobs": self._beat,
            "complete": lambda: self._jobs.complete(self._held.pop(), _GENERATED),
            "claim and release": lambda: self._jobs.release(self._claim()),
            "rescue of nothing": lambda: rescue_lost_jobs(self._database, max_losses=10),
            "search for ended levels": levels.with_ended_level,
            "finish batches": lambda: finish_batches(self._database),
        }
        return {name: partial(_ms, move) for name, move in moves.items()} | {"rescue of 100 jobs": self._rescue}

    def _announce(self) -> None:
        jobs = self._outbox.unpublished("simulated", 100)
        self._outbox.mark_published(jobs)
        self._ready += [job.id for job in jobs]

    def _claim(self) -> ClaimedJob:
        job = self._jobs.claim(self._ready.pop())
        assert isinstance(job, ClaimedJob)
        return job

    def _beat(self) -> None:
        held = self._held[-_HELD:]
        self._workers.seen(running=len(held))
        assert len(self._jobs.heartbeat(held)) == len(held)

    def _rescue(self) -> float:
        ids = [self._claim().id for _ in range(100)]
        with self._database.write() as session:
            session.execute(update(Job).where(Job.id.in_(ids)).values(lease_until=db_now() - 1.0))
        return _ms(lambda: rescue_lost_jobs(self._database, max_losses=10))


def _ms(move: Callable[[], object]) -> float:
    began = time.perf_counter()
    move()
    return (time.perf_counter() - began) * 1000


def _analyze(database: Database) -> None:
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE" if database.is_sqlite else "VACUUM ANALYZE")


def _table(report: dict[str, Any], options: argparse.Namespace) -> str:
    lines = []
    for kind in options.database if options.jobs else ():
        lines += ["", f"{kind:28} {_SMALL:>12,} {options.jobs:>12,} {'ratio':>8}"]
        for name, (small, large) in report[kind]["median_ms"].items():
            lines.append(f"{name:28} {small:>9.2f} ms {large:>9.2f} ms {large / small:>8.2f}")
        small, large = (held / 1e6 for held in report[kind]["broker_bytes"])
        lines.append(f"{'memory of the broker':28} {small:>9.2f} MB {large:>9.2f} MB {large / small:>8.2f}")
    for name, value in report.get("occupancy", {}).items():
        lines.append(f"{name:28} {value}")
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=100_000, help="compare with 10,000 (default 100,000; 0: do not)")
    parser.add_argument("--database", action="append", choices=DATABASES, help="default: both")
    parser.add_argument("--repeat", type=int, default=200, help="repetitions of each operation (default 200)")
    parser.add_argument("--analyze", action="store_true", help="let the database gather statistics after filling")
    parser.add_argument("--workers", type=int, default=0, help="also measure the occupancy of this many workers")
    parser.add_argument("--minutes", type=float, default=5.0, help="duration of the occupancy measurement (default 5)")
    parser.add_argument("--home", help="home with the demo model (default: a new one, the model is downloaded)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    options.database = options.database or list(DATABASES)
    return options


if __name__ == "__main__":
    sys.exit(main())
