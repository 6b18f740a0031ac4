"""A bottleneck outside the engine: one busy thread, the worker's Python code, the database, the tokenizer."""

from __future__ import annotations

from collections.abc import Iterator

from docmill.engine_table import CPU_ENGINES
from docmill.insight.diagnosis.registry import Host, RuleSection
from docmill.insight.findings import Finding
from docmill.storage.reads.batch_evidence import Evidence

PROCESSOR = RuleSection("processor")
_ONE_CORE, _STARVED = 115.0, 60.0  # percent of a core
_BUSY_WORKER = 25.0  # percent of a core
_LOW_OCCUPANCY = 0.4
_OVERHEAD, _OVERHEAD_S = 0.5, 0.05  # share of the engine's time; shorter is ignored
_INTAKE, _INTAKE_S = 1.0, 3.0  # share of the time of the jobs; shorter is ignored


@PROCESSOR.rule
def one_thread(evidence: Evidence, host: Host) -> Iterator[Finding]:
    """A busy engine uses one core, or less because other programs use the processor."""
    for worker in evidence.workers:
        used = worker.engine_cpu_percent
        if used is None or worker.engine not in CPU_ENGINES:
            continue
        is_busy = (worker.occupancy or 0.0) > _LOW_OCCUPANCY
        what = f"{worker.name}: its engine used {used:.0f} % of one of {host.cores} cores"
        yield PROCESSOR.judged(
            "one thread",
            what,
            is_bad=_STARVED < used < _ONE_CORE and host.cores > 1 and is_busy,
            advice=f"set optimization.threads to {host.cores}, one for each physical core",
        )
        if used <= _STARVED and is_busy:
            yield PROCESSOR.warning(
                "other programs",
                f"{what}, although its slots were busy",
                "other programs use the processor: run the worker alone, or on another machine",
            )


@PROCESSOR.rule
def busy_worker(evidence: Evidence, _: Host) -> Iterator[Finding]:
    """The engine waits for the worker's own Python code."""
    for worker in evidence.workers:
        used, engine = worker.worker_cpu_percent, worker.engine_cpu_percent
        if used is not None and engine is not None:
            yield PROCESSOR.judged(
                "engine starved",
                f"{worker.name}: the worker used {used:.0f} % of one core, its engine {engine:.0f} %",
                is_bad=used > max(_BUSY_WORKER, engine) and (worker.occupancy or 0.0) < _LOW_OCCUPANCY,
                advice="the jobs are too short for one worker: larger chunks (--chunk-tokens), or several workers here",
            )


@PROCESSOR.rule
def slow_database(evidence: Evidence, _: Host) -> Iterator[Finding]:
    """Claiming and storing take as long as the engine."""
    if evidence.succeeded and evidence.engine_s:
        yield PROCESSOR.judged(
            "database",
            f"on average, an attempt took {evidence.engine_s * 1000:,.0f} ms in the engine and "
            f"{evidence.overhead_s * 1000:,.0f} ms outside it (mostly storing)",
            is_bad=evidence.overhead_s > max(_OVERHEAD_S, _OVERHEAD * evidence.engine_s),
            advice=(
                "the database slows the engine down: use larger chunks, which make fewer jobs, a faster disk, or "
                "Postgres (`docmill doctor` measures both)"
            ),
        )


@PROCESSOR.rule
def slow_intake(evidence: Evidence, _: Host) -> Iterator[Finding]:
    """Reading, splitting and tokenizing the documents took longer than the jobs."""
    if evidence.work_s:
        yield PROCESSOR.judged(
            "tokenizing",
            f"splitting and tokenizing took {evidence.submit_s:,.1f} s, the jobs {evidence.work_s:,.1f} s after that",
            is_bad=evidence.submit_s > max(_INTAKE_S, _INTAKE * evidence.work_s),
            advice=(
                "submit the documents as several batches from several processes: each uses its own core, and the "
                "engine starts with the first batch"
            ),
        )
