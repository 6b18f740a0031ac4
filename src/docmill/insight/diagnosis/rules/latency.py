"""High latency: jobs wait for a slot, the context window is too large, or slots are idle."""

from __future__ import annotations

from collections.abc import Iterator

from docmill.formatting import percent
from docmill.insight.diagnosis.registry import Host, RuleSection
from docmill.insight.findings import Finding
from docmill.storage.reads.batch_evidence import Evidence

LATENCY = RuleSection("latency")
_LONG_WAIT_RUNS = 20  # a job that waits this many times its own run time waits for the queue
_LONG_WAIT_S = 1.0
_UNUSED_WINDOW = 4  # times the longest job
_SMALLEST_WINDOW = 512
_LOW_OCCUPANCY = 0.4
_JOBS_PER_SLOT = 4  # with fewer jobs, most of the run is start and end


@LATENCY.rule
def queue_wait(evidence: Evidence, _: Host) -> Iterator[Finding]:
    """Jobs wait long for a free slot."""
    if evidence.waited_s is None or not evidence.succeeded:
        return
    slots = sum(worker.slots for worker in evidence.workers)
    yield LATENCY.judged(
        "queue wait",
        f"on average, a job waited {evidence.waited_s:,.1f} s in the queue and then ran for {evidence.run_s:,.1f} s",
        is_bad=_is_long_wait(evidence),
        advice=(
            f"{slots} slots are too few for {evidence.jobs:,} jobs: add slots (worker.slots, if they fit in memory) "
            "or workers"
        ),
    )


@LATENCY.rule
def unused_window(evidence: Evidence, _: Host) -> Iterator[Finding]:
    """The context window is larger than the jobs need, and the jobs wait for slots."""
    window = int(evidence.plan.get("context_window", 0))
    longest = evidence.longest_tokens
    if not window or not longest:
        return
    enough = max(_SMALLEST_WINDOW, 1 << (longest - 1).bit_length())
    yield LATENCY.judged(
        "context window",
        f"the context window is {window:,} tokens; the longest prompt plus its output is {longest:,} tokens",
        is_bad=_is_long_wait(evidence) and window >= _UNUSED_WINDOW * longest,
        advice=(
            f"set llm.context_window to {enough:,}: the memory this frees holds about {window // enough} times as "
            "many slots (`docmill plan`), and jobs wait for slots here"
        ),
    )


@LATENCY.rule
def occupancy(evidence: Evidence, _: Host) -> Iterator[Finding]:
    """The engine's slots are idle while jobs wait."""
    for worker in evidence.workers:
        if worker.occupancy is not None:
            yield LATENCY.judged(
                "occupancy",
                f"{worker.name}: its {worker.slots} slots were busy {percent(worker.occupancy)} of the time, with "
                f"{worker.batch_size:.1f} jobs at once",
                is_bad=worker.occupancy < _LOW_OCCUPANCY and worker.jobs >= _JOBS_PER_SLOT * worker.slots,
                advice=(
                    "the engine is waiting for jobs: see the findings on the processor, raise worker.lookahead, and "
                    "read the dispatcher's log"
                ),
            )


def _is_long_wait(evidence: Evidence) -> bool:
    return (evidence.waited_s or 0.0) > max(_LONG_WAIT_S, _LONG_WAIT_RUNS * evidence.run_s)
