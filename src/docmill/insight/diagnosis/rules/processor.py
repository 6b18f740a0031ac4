"""A bottleneck beside the engine: one thread busy, the worker's Python, the database, the tokenizer."""

from __future__ import annotations

from collections.abc import Iterator

from docmill.engine_table import CPU_ENGINES
from docmill.insight.diagnosis.rule_input import Surroundings, judged
from docmill.insight.findings import Finding
from docmill.storage.reads.batch_evidence import Evidence

_SECTION = "processor"
_ONE_CORE, _STARVED = 115.0, 60.0  # percent of a core
_BUSY = 25.0  # percent of a core
_LITTLE_OCCUPANCY = 0.4
_OVERHEAD, _OVERHEAD_S = 0.5, 0.05  # of the engine's part of an attempt; and what nobody would notice
_SUBMIT, _SUBMIT_S = 1.0, 3.0  # of the work after it; and what nobody would notice


def one_thread(evidence: Evidence, around: Surroundings) -> Iterator[Finding]:
    """The engine works all the time, on one core; or not even that, because others use the processor."""
    for worker in evidence.workers:
        used = worker.engine_cpu_percent
        if used is None or worker.engine not in CPU_ENGINES:
            continue
        is_busy = (worker.occupancy or 0.0) > _LITTLE_OCCUPANCY
        what = f"{worker.name}: its engine used {used:.0f} % of a core; this machine has {around.cores}"
        yield judged(
            _SECTION,
            "one thread",
            what,
            is_bad=_STARVED < used < _ONE_CORE and around.cores > 1 and is_busy,
            advice=f"optimization.threads: {around.cores}, one for each physical core",
        )
        if used <= _STARVED and is_busy:
            yield judged(
                _SECTION,
                "other programs",
                f"{what}, and its slots had work",
                is_bad=True,
                advice="other programs take the processor from the engine: run it alone, or on another machine",
            )


def busy_worker(evidence: Evidence, _: Surroundings) -> Iterator[Finding]:
    """The worker's own Python is what the engine waits for."""
    for worker in evidence.workers:
        used, engine = worker.worker_cpu_percent, worker.engine_cpu_percent
        if used is None or engine is None:
            continue
        yield judged(
            _SECTION,
            "engine starved",
            f"{worker.name}: the worker used {used:.0f} % of a core, its engine {engine:.0f} %",
            is_bad=used > max(_BUSY, engine) and (worker.occupancy or 0.0) < _LITTLE_OCCUPANCY,
            advice="its jobs are too short for one worker: larger chunks (--chunk-tokens), or several workers here",
        )


def slow_database(evidence: Evidence, _: Surroundings) -> Iterator[Finding]:
    """Claiming and storing take as long as the engine's work."""
    if evidence.succeeded and evidence.engine_s:
        yield judged(
            _SECTION,
            "database",
            f"an attempt spent {evidence.overhead_s * 1000:,.0f} ms beside the engine (storing, mostly) and "
            f"{evidence.engine_s * 1000:,.0f} ms in it (means)",
            is_bad=evidence.overhead_s > max(_OVERHEAD_S, _OVERHEAD * evidence.engine_s),
            advice=(
                "the database is slower than the engine: larger chunks make fewer jobs; a faster disk, or Postgres, "
                "stores them sooner (`docmill doctor` measures both)"
            ),
        )


def slow_intake(evidence: Evidence, _: Surroundings) -> Iterator[Finding]:
    """Reading, cutting and tokenizing took longer than the engine."""
    if evidence.work_s:
        yield judged(
            _SECTION,
            "tokenizing",
            f"cutting and tokenizing took {evidence.submit_s:,.1f} s, the work after it {evidence.work_s:,.1f} s",
            is_bad=evidence.submit_s > max(_SUBMIT_S, _SUBMIT * evidence.work_s),
            advice=(
                "submit the documents as several batches from several processes: each uses a core of its own, and "
                "the engine begins with the first"
            ),
        )
