"""The cost of a killed worker: seconds until its jobs are taken over, lost or duplicated jobs, tokens computed again.

Uses real processes (broker, dispatcher, workers) with the simulated engine, and SIGKILL, so that no clean-up runs.

    takeover   many jobs, two workers; one is killed when 32 % are done, the other continues
    kills      500 jobs, two workers; five times, one of them is killed and another is started
    overhead   docmill and plain Celery on the same broker, jobs that take 5 ms: the overhead per job of each

A worker's jobs are taken over when other workers have claimed them again, measured by the database's clock. At the end
of each run, an auditor that shares no code with docmill recounts the database.

    python -m benchmarks.faults                                  # about six minutes
    python -m benchmarks.faults --database postgres --lease 6
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

from benchmarks.filling import Shape, check, fill
from benchmarks.machine import describe_machine
from benchmarks.overhead import measure_overhead
from benchmarks.services import DATABASES, Services, database_for, database_now, scratch_home, wait_until

_SLOTS = 16
_QUICK = {"decode_steps_per_s": 300.0}  # 50 tokens on average: a sixth of a second a job
_SLOW = {"decode_steps_per_s": 15.0}  # three seconds per job
_KILLS = 5
_KILLED_AT = 0.32  # of the jobs: 6,400 of 20,000
_JOBS_WITH_KILLS = 500
_PATIENCE_S = 3600.0


@dataclass(frozen=True, slots=True)
class Kill:
    """One SIGKILL: its time by the database's clock, and the owner of the jobs that were running."""

    at: float
    owner: str
    held: int


def main() -> int:
    options = _options()
    report: dict[str, Any] = {
        "machine": describe_machine(),
        "database": options.database,
        "lease_s": options.lease or "default",
    }
    for name, run in RUNS.items():
        if name in options.only:
            print(f"# {name} ...", file=sys.stderr)
            with (
                scratch_home(options.home) as home,
                database_for(options.database, home) as url,
                Services(home, url, **({"worker__lease_s": options.lease} if options.lease else {})) as services,
            ):
                report[name] = {"lease_s": services.settings.worker.lease_s} | run(services, options)
    print(json.dumps(report) if options.json else _table(report))
    return 0


def takeover(services: Services, options: argparse.Namespace) -> dict[str, Any]:
    """Kill one of two workers."""
    fill(services.backend.database, services.plan(), Shape(options.jobs // 20, 20))
    services.start("dispatcher")
    doomed, _ = (services.worker(slots=_SLOTS, engine=_QUICK) for _ in range(2))
    began = time.monotonic()
    wait_until(lambda: _done(services) >= options.jobs * _KILLED_AT, "jobs to be done", _PATIENCE_S, every_s=0.05)
    done = _done(services)
    kill = _kill(services, doomed)
    wait_until(lambda: _has_ended(services), "the batch to end", _PATIENCE_S, every_s=1.0)
    seconds = time.monotonic() - began
    return {"jobs": options.jobs, "killed after": done, "run_s": round(seconds, 1)} | _outcome(services, [kill])


def kills(services: Services, _options: argparse.Namespace) -> dict[str, Any]:
    """Kill a worker and start another, five times."""
    fill(services.backend.database, services.plan(), Shape(_JOBS_WITH_KILLS // 20, 20))
    services.start("dispatcher")
    workers = [services.worker(slots=_SLOTS, engine=_SLOW) for _ in range(2)]
    made: list[Kill] = []
    for number in range(_KILLS):
        wanted = (number + 1) * _JOBS_WITH_KILLS // (_KILLS + 2)
        wait_until(lambda wanted=wanted: _done(services) >= wanted, "jobs to be done", _PATIENCE_S)  # type: ignore[misc]
        doomed = workers.pop(0)
        wait_until(lambda doomed=doomed: _held(services, doomed) > 1, "it to hold jobs", _PATIENCE_S)  # type: ignore[misc]
        made.append(_kill(services, doomed))
        workers.append(services.worker(slots=_SLOTS, engine=_SLOW))
    wait_until(lambda: _has_ended(services), "the batch to end", _PATIENCE_S)
    return {"jobs": _JOBS_WITH_KILLS, "kills": _KILLS} | _outcome(services, made)


def overhead(services: Services, options: argparse.Namespace) -> dict[str, Any]:
    """The overhead per job of docmill and of plain Celery."""
    return measure_overhead(services, options.overhead_jobs)


RUNS = {"takeover": takeover, "kills": kills, "overhead": overhead}


def _done(services: Services) -> int:
    return int(services.rows("SELECT jobs_succeeded FROM batches")[0][0])


def _has_ended(services: Services) -> bool:
    return str(services.rows("SELECT state FROM batches")[0][0]) == "completed"


def _held(services: Services, worker: subprocess.Popen[bytes]) -> int:
    return int(
        services.rows("SELECT count(*) FROM jobs WHERE state = 'running' AND owner LIKE :o", o=f"%-{worker.pid}")[0][0]
    )


def _kill(services: Services, worker: subprocess.Popen[bytes]) -> Kill:
    worker.kill()
    worker.wait()
    return Kill(database_now(services.backend.database), f"%-{worker.pid}", _held(services, worker))


def _outcome(services: Services, made: list[Kill]) -> dict[str, Any]:
    """The outcome of the jobs that the killed workers were running, and of all jobs."""
    check(services.backend.database.engine, ended=True)
    firsts, lasts, again = [], [], 0
    for kill in made:
        taken = services.rows(
            """SELECT n.started_at - :at AS seconds, r.prompt_tokens + r.completion_tokens AS tokens
               FROM attempts a JOIN attempts n ON n.job_id = a.job_id AND n.epoch = a.epoch + 1
               JOIN results r ON r.job_id = a.job_id
               WHERE a.outcome = 'lost' AND a.worker LIKE :owner""",
            at=kill.at, owner=kill.owner,
        )  # fmt: skip
        assert len(taken) == kill.held, (len(taken), kill.held)
        firsts.append(min(row.seconds for row in taken))
        lasts.append(max(row.seconds for row in taken))
        again += sum(row.tokens for row in taken)
    tokens = services.rows("SELECT prompt_tokens + completion_tokens FROM batches")[0][0]
    too_late = services.rows("SELECT count(*) FROM attempts WHERE outcome = 'fenced'")[0][0]
    missing = services.rows("SELECT count(*) FROM jobs WHERE state <> 'succeeded'")[0][0]
    doubled = services.rows(
        "SELECT count(*) FROM (SELECT job_id FROM attempts WHERE outcome = 'succeeded' "
        "GROUP BY job_id HAVING count(*) > 1) twice"
    )[0][0]
    return {
        "missing": missing,
        "doubled": doubled,
        "jobs held by the killed": [kill.held for kill in made],
        "first taken over after s": [round(first, 1) for first in firsts],
        "all taken over after s": [round(last, 1) for last in lasts],
        "mean of these s": round(statistics.mean(lasts), 1),
        "tokens computed again, at most": f"{again} of {tokens}: {again / tokens:.2%}",
        "leases that living workers lost": too_late,
    }


def _table(report: dict[str, Any]) -> str:
    lines = [f"# {report['machine']}", f"database {report['database']}"]
    for name in RUNS:
        if name in report:
            lines += ["", name, *(f"  {key:32} {value}" for key, value in report[name].items())]
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", choices=DATABASES, default="sqlite")
    parser.add_argument("--jobs", type=int, default=20_000, help="jobs in the takeover run (default 20,000)")
    parser.add_argument("--overhead-jobs", type=int, default=3_000, help="jobs in the overhead run (default 3,000)")
    parser.add_argument("--lease", type=float, help="worker.lease_s (default: docmill's own)")
    parser.add_argument("--only", nargs="+", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--home", help="home with the demo model (default: a new one, the model is downloaded)")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
