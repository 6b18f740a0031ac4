"""Polling compared with LISTEN/NOTIFY: the time until a queued job is published, and the cost of an idle dispatcher.

    polling    a real `docmill dispatcher`; batches of one job are started at random times
    listening  Postgres only: a thread that LISTENs fills the queue whenever a trigger on `batches` notifies it
    commits    Postgres only: transactions per second of eight threads, with and without a NOTIFY in each

Times are measured by the database's clock. CPU time is reported for the dispatcher and for Postgres.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psutil
import psycopg
import sqlalchemy as sa

from benchmarks.filling import Shape, fill
from benchmarks.machine import describe_machine
from benchmarks.services import DATABASES, Services, cpu_s, database_for, scratch_home, wait_until
from docmill.producer.batch_plan import Plan

_THREADS = 8
_COMMITS = 400  # per thread
_TRIGGER = """
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_notify('queued', ''); RETURN NEW; END $$;
CREATE TRIGGER tell AFTER UPDATE OF state ON batches FOR EACH ROW WHEN (NEW.state = 'in_progress')
    EXECUTE FUNCTION tell();
"""


def main() -> int:
    options = _options()
    report: dict[str, Any] = {"machine": describe_machine()}
    for kind in options.database:
        with scratch_home(options.home) as home, database_for(kind, home) as url, Services(home, url) as services:
            report[kind] = _measured(services, options)
    print(json.dumps(report) if options.json else _table(report))
    return 0


def _measured(services: Services, options: argparse.Namespace) -> dict[str, Any]:
    plan = services.plan()
    interval_s = services.settings.producer.dispatch_interval_s
    measured: dict[str, Any] = {"dispatch_interval_s": interval_s}
    dispatcher = services.start("dispatcher")
    time.sleep(10.0)
    measured["idle, no batch: processor %"] = _busy_percent(services, dispatcher.pid, options.seconds)
    fill(services.backend.database, plan, Shape(1, 10))
    wait_until(lambda: _announced(services) == 10, "the first announcements", 60.0)
    measured["a batch at work, nothing to do: processor %"] = _busy_percent(services, dispatcher.pid, options.seconds)
    measured["polling, ms from queued to announced"] = _waits(services, plan, options.count)
    dispatcher.kill()
    dispatcher.wait()
    if not services.backend.database.is_sqlite:
        with _listening(services):
            measured["listening, ms from queued to announced"] = _waits(services, plan, options.count)
        measured["commits a second, without and with NOTIFY"] = [_commits_a_second(services, told) for told in (0, 1)]
    return measured


def _waits(services: Services, plan: Plan, count: int) -> dict[str, float]:
    before = _announced(services)
    rng = random.Random(1)
    batches = []
    for _ in range(count):
        time.sleep(rng.uniform(0.1, 0.6))
        batches.append(fill(services.backend.database, plan, Shape(1, 1)))
    wait_until(lambda: _announced(services) == before + count, "all announcements", 60.0)
    rows = services.rows(
        "SELECT b.id, j.published_at - b.in_progress_at FROM jobs j JOIN batches b ON b.id = j.batch_id"
    )
    waits = sorted(wait * 1000 for batch, wait in rows if batch in batches)
    return {"median": round(statistics.median(waits), 1), "p95": round(waits[int(0.95 * len(waits))], 1)}


def _announced(services: Services) -> int:
    return int(services.rows("SELECT count(*) FROM jobs WHERE published_at IS NOT NULL")[0][0])


def _busy_percent(services: Services, pid: int, seconds: float) -> dict[str, float]:
    """Percent of one core."""
    watched = {"dispatcher": [psutil.Process(pid)]}
    if not services.backend.database.is_sqlite:
        serving = services.rows("SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'")
        watched["postgres"] = [psutil.Process(row[0]) for row in serving]
    before = {name: sum(cpu_s(process) for process in processes) for name, processes in watched.items()}
    time.sleep(seconds)
    return {
        name: round((sum(cpu_s(process) for process in processes) - before[name]) / seconds * 100, 2)
        for name, processes in watched.items()
    }


@contextmanager
def _listening(services: Services) -> Iterator[None]:
    """A dispatcher that fills the queue when it is notified."""
    url = services.backend.database.url.set(drivername="postgresql").render_as_string(hide_password=False)
    app = services.backend.broker()
    assert app is not None
    dispatcher = services.backend.dispatcher(app)
    model = services.plan().model
    stop = threading.Event()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_TRIGGER)
        connection.execute("LISTEN queued")

        def listen() -> None:
            while not stop.is_set():
                if any(True for _ in connection.notifies(timeout=0.5, stop_after=1)):
                    dispatcher.fill_queue(model)

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def _commits_a_second(services: Services, told: int) -> int:
    """Small transactions in many threads; with `told`, each of them sends a NOTIFY."""
    engine = services.backend.database.engine
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE IF NOT EXISTS bench_commits (value integer)"))

    def write(_thread: int) -> None:
        for value in range(_COMMITS):
            with engine.begin() as connection:
                connection.execute(sa.text("INSERT INTO bench_commits VALUES (:v)"), {"v": value})
                if told:
                    connection.execute(sa.text("SELECT pg_notify('queued', '')"))

    began = time.monotonic()
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(write, range(_THREADS)))
    return round(_THREADS * _COMMITS / (time.monotonic() - began))


def _table(report: dict[str, Any]) -> str:
    lines = [f"# {report['machine']}"]
    for kind in DATABASES:
        if kind in report:
            lines += ["", kind, *(f"  {name:45} {value}" for name, value in report[kind].items())]
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", action="append", choices=DATABASES, help="default: both")
    parser.add_argument("--count", type=int, default=60, help="number of jobs to time (default 60)")
    parser.add_argument("--seconds", type=float, default=20.0, help="duration of the CPU time measurement (default 20)")
    parser.add_argument("--home", help="home with the demo model (default: a new one, the model is downloaded)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    options.database = options.database or list(DATABASES)
    return options


if __name__ == "__main__":
    sys.exit(main())
