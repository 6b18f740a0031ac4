"""Memory: attempts that failed for lack of it, and peaks close to the limit."""

from __future__ import annotations

from collections.abc import Iterator

from docmill.formatting import gib_of
from docmill.insight.diagnosis.registry import Host, RuleSection
from docmill.insight.findings import Finding
from docmill.storage.reads.batch_evidence import Evidence

MEMORY = RuleSection("memory")
_NEAR_MEMORY, _NEAR_VRAM = 0.9, 0.97  # an engine allocates most of a GPU's memory at once, as planned
_OUT_OF_MEMORY = ("out of memory", "outofmemory", "cannot allocate", "bad_alloc", "oom")
_ADVICE = (
    "store keys and values in fewer bits (optimization.quantization: int8 or int4), use a smaller llm.context_window, "
    "or fewer slots (optimization.batch_size); `docmill plan` computes what fits on a GPU"
)


@MEMORY.rule
def out_of_memory(evidence: Evidence, _: Host) -> Iterator[Finding]:
    """Attempts that ran out of memory."""
    hits = [f for f in evidence.failures if any(word in f"{f.kind} {f.message}".lower() for word in _OUT_OF_MEMORY)]
    attempts = sum(failure.attempts for failure in hits)
    yield MEMORY.judged(
        "out of memory",
        f"{attempts:,} attempts ran out of memory: {hits[0].message[:200]}" if hits else "no attempt ran out of memory",
        is_bad=bool(hits),
        advice=_ADVICE,
    )


@MEMORY.rule
def near_its_limit(evidence: Evidence, host: Host) -> Iterator[Finding]:
    """The peak is close to all the memory there is."""
    for name, peak, limit, near in (
        ("memory", evidence.peak_memory_bytes, host.memory_bytes, _NEAR_MEMORY),
        ("GPU memory", evidence.peak_vram_bytes or 0, host.vram_bytes, _NEAR_VRAM),
    ):
        if peak and limit:
            yield MEMORY.judged(
                f"peak of {name}",
                f"the engine's peak was {gib_of(peak, limit)} of {name}",
                is_bad=peak >= near * limit,
                advice=f"a longer prompt may not fit: {_ADVICE}",
            )
