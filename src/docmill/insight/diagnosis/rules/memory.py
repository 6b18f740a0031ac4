"""Out of memory: attempts that ended so, and peaks close to the limit."""

from __future__ import annotations

from collections.abc import Iterator

from docmill.formatting import gib_of
from docmill.insight.diagnosis.rule_input import Surroundings, judged
from docmill.insight.findings import Finding
from docmill.storage.reads.batch_evidence import Evidence

_SECTION = "memory"
_MEMORY_NEAR, _VRAM_NEAR = 0.9, 0.97  # an engine takes most of a GPU at once, by its plan
_WORDS = ("out of memory", "outofmemory", "cannot allocate", "bad_alloc", "oom")
_ADVICE = (
    "keep keys and values smaller (optimization.quantization: int8 or int4), use a smaller llm.context_window, or "
    "fewer slots (optimization.batch_size); `docmill plan` computes what fits a GPU"
)


def ended_for_memory(evidence: Evidence, _: Surroundings) -> Iterator[Finding]:
    """Attempts that ended because memory did."""
    hits = [failure for failure in evidence.failures if _speaks_of_memory(f"{failure.kind} {failure.message}")]
    attempts = sum(failure.attempts for failure in hits)
    yield judged(
        _SECTION,
        "out of memory",
        f"{attempts:,} attempts ended for want of memory: {hits[0].message[:200]}"
        if hits
        else "no attempt ended for want of memory",
        is_bad=bool(hits),
        advice=_ADVICE,
    )


def near_its_limit(evidence: Evidence, around: Surroundings) -> Iterator[Finding]:
    """The peak is close to what there is."""
    peaks = (
        ("memory", evidence.peak_memory_bytes, around.memory_bytes, _MEMORY_NEAR),
        ("GPU memory", evidence.peak_vram_bytes or 0, around.vram_bytes, _VRAM_NEAR),
    )
    for name, peak, limit, near in peaks:
        if peak and limit:
            yield judged(
                _SECTION,
                f"peak of {name}",
                f"the engine's peak was {gib_of(peak, limit)} of {name}",
                is_bad=peak >= near * limit,
                advice=f"the next longer prompt may not fit: {_ADVICE}",
            )


def _speaks_of_memory(text: str) -> bool:
    return any(word in text.lower() for word in _WORDS)
