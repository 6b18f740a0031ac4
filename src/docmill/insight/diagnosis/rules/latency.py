"""High latency: jobs wait for a slot, the window is larger than they need, or slots stand empty."""

from __future__ import annotations

from collections.abc import Iterator

from docmill.insight.diagnosis.rule_input import Surroundings, judged
from docmill.insight.findings import Finding
from docmill.storage.reads.batch_evidence import Evidence

_SECTION = "latency"
_WAITS_AS_LONG = 20  # times its own running: the queue is what a job waits for
_WAITS_S = 1.0
_WINDOW_UNUSED = 4  # times the longest job
_SMALLEST_WINDOW = 512
_LITTLE_OCCUPANCY = 0.4
_JOBS_A_SLOT = 4  # fewer than these, and the ramp and the tail are most of the run


def queue_wait(evidence: Evidence, _: Surroundings) -> Iterator[Finding]:
    """Jobs wait long for a free slot."""
    if evidence.waited_s is None or not evidence.succeeded:
        return
    slots = sum(worker.slots for worker in evidence.workers)
    yield judged(
        _SECTION,
        "queue wait",
        f"a job waited {evidence.waited_s:,.1f} s to be taken, and then ran {evidence.run_s:,.1f} s (means)",
        is_bad=_waits_long(evidence),
        advice=(
            f"{slots} slots are too few for {evidence.jobs:,} jobs: more slots (worker.slots, where the memory "
            "allows) or more workers take them earlier"
        ),
    )


def unused_window(evidence: Evidence, _: Surroundings) -> Iterator[Finding]:
    """The context window is larger than the documents need, while slots are what the jobs wait for."""
    window = int(evidence.plan.get("context_window", 0))
    longest = evidence.longest_tokens
    if not window or not longest:
        return
    enough = max(_SMALLEST_WINDOW, 1 << (longest - 1).bit_length())
    yield judged(
        _SECTION,
        "context window",
        f"the window is {window:,} tokens, the longest prompt and output together are {longest:,}",
        is_bad=_waits_long(evidence) and window >= _WINDOW_UNUSED * longest,
        advice=(
            f"llm.context_window: {enough:,} is enough; the memory it frees holds about {window // enough} times as "
            "many slots (`docmill plan`), and slots are what jobs wait for here"
        ),
    )


def occupancy(evidence: Evidence, _: Surroundings) -> Iterator[Finding]:
    """The engine's slots stand empty while there is work."""
    for worker in evidence.workers:
        share = worker.occupancy
        if share is None:
            continue
        yield judged(
            _SECTION,
            "occupancy",
            f"{worker.name}: its {worker.slots} slots worked {share:.0%} of their time, {worker.batch_size:.1f} jobs "
            "at once",
            is_bad=share < _LITTLE_OCCUPANCY and worker.jobs >= _JOBS_A_SLOT * worker.slots,
            advice=(
                "the engine is not given enough to do: see the findings on the processor, raise worker.lookahead, "
                "and look at the dispatcher's log"
            ),
        )


def _waits_long(evidence: Evidence) -> bool:
    waited_s = evidence.waited_s or 0.0
    return waited_s > max(_WAITS_S, _WAITS_AS_LONG * evidence.run_s)
