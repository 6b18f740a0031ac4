"""Occupancy of many workers on one machine: real worker processes, each with a slow simulated engine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.filling import Shape, check, fill
from benchmarks.services import Services, database_now

_SLOTS = 4
_STEPS_PER_S = 5.0
_MAX_TOKENS = 300  # the simulated engine writes 233 of them on average: 47 s per job, 60 s at most
_JOB_S = 47.0
_LONGEST_JOB_S = 62.0
_START_EVERY_S = 2.0  # workers start one after the other


def measure_occupancy(home: Path, url: str, workers: int, minutes: float) -> dict[str, Any]:
    """Busy slot time divided by total slot time, while all workers are running and jobs remain."""
    slots = workers * _SLOTS
    needed = slots * ((minutes + 4) * 60 + workers * _START_EVERY_S) / _JOB_S
    with Services(home, url) as services:
        plan = services.plan(max_tokens=_MAX_TOKENS, summary_tokens=_MAX_TOKENS)
        shape = Shape(documents=int(needed / 10) + 1, jobs_a_document=10, max_tokens=_MAX_TOKENS)
        fill(services.backend.database, plan, shape)
        services.start("dispatcher")
        processes = []
        for _ in range(workers):
            processes.append(services.worker(slots=_SLOTS, engine={"decode_steps_per_s": _STEPS_PER_S}))
            time.sleep(_START_EVERY_S)
        services.wait_for_workers(workers, timeout_s=300.0)
        time.sleep(10.0)
        began = database_now(services.backend.database)
        psutil.cpu_percent()
        time.sleep(minutes * 60)
        machine_busy = psutil.cpu_percent()
        ended = database_now(services.backend.database)
        rss_mb = [_rss_mb(process.pid) for process in processes]
        time.sleep(_LONGEST_JOB_S)  # jobs that were running at the end of the window have ended by then
        spans = _spans(services, began)
        lost = services.rows("SELECT count(*) FROM attempts WHERE outcome IN ('lost', 'fenced')")[0][0]
        left = services.rows("SELECT count(*) FROM jobs WHERE state = 'queued'")[0][0]
        check(services.backend.database.engine)
    busy_s = sum(max(0.0, min(to, ended) - max(since, began)) for since, to in spans)
    return {
        "workers": workers,
        "slots": slots,
        "seconds": round(ended - began, 1),
        "jobs ended in them": sum(began <= to <= ended for _, to in spans),
        "jobs left at the end": left,
        "leases lost since the first start": lost,
        "occupancy": round(busy_s / (slots * (ended - began)), 4),
        "machine busy, %": round(machine_busy, 1),
        "MB a worker with its engine": round(sum(rss_mb) / len(rss_mb)),
    }


def _spans(services: Services, since: float) -> list[tuple[float, float]]:
    """When each job occupied a slot of its engine: from the end of its wait to its last token."""
    rows = services.rows(
        "SELECT started_at + queue_s, started_at + queue_s + prefill_s + decode_s FROM attempts "
        "WHERE outcome = 'succeeded' AND finished_at >= :since",
        since=since,
    )
    return [(row[0], row[1]) for row in rows]


def _rss_mb(pid: int) -> float:
    process = psutil.Process(pid)
    return sum(one.memory_info().rss for one in (process, *process.children(recursive=True))) / 1e6
