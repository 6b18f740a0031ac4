"""A report's numbers as a JSON object: times are Unix seconds, durations seconds, sizes bytes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from docmill.insight.report.comparison import Comparison
from docmill.insight.report.cost import Cost
from docmill.insight.report.report_data import ReportNumbers
from docmill.storage.reads.batch_timeline import Distribution

_SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}


def as_record(numbers: ReportNumbers, cost: Cost | None, comparison: Comparison | None) -> dict[str, Any]:
    """What the page shows, unrounded."""
    status, done, course = numbers.status, numbers.succeeded, numbers.course
    return {
        "batch": status.id,
        "state": status.state,
        "model": status.model,
        "task": status.task,
        "metadata": dict(status.metadata),
        "created_at": status.created_at,
        "began_at": numbers.span.began_at if numbers.attempts_total else None,
        "ended_at": status.ended_at,
        "documents": {
            "total": status.documents_total,
            "open": status.documents_open,
            "failed": status.documents_failed,
        },
        "jobs": {"total": status.jobs_total, "reused": status.jobs_reused}
        | {str(state): count for state, count in status.jobs_by_state.items()},
        "attempts": {str(outcome): totals.attempts for outcome, totals in numbers.outcomes.items()},
        "prompt_tokens": done.prompt_tokens,
        "cached_tokens": numbers.cached_tokens,
        "completion_tokens": done.completion_tokens,
        "reused_tokens": numbers.reused_tokens,
        "working_s": numbers.span.seconds,
        "elapsed_s": status.elapsed_s,
        "tokens_per_s": numbers.tokens_per_s,
        "occupancy": numbers.occupancy,
        "peak_memory_bytes": numbers.peak_memory_bytes,
        "peak_vram_bytes": numbers.peak_vram_bytes,
        "durations": {str(duration): _percentiles(found) for duration, found in numbers.durations.items()},
        "course": asdict(course) if course else None,
        "levels": [asdict(level) for level in numbers.levels],
        "largest_documents": [asdict(document) for document in numbers.documents],
        "failures": [asdict(failed) for failed in numbers.failed_attempts],
        "failed_documents": [asdict(document) for document in numbers.failed_documents],
        "slowest_jobs": [asdict(job) for job in numbers.slowest],
        "workers": [asdict(worker) for worker in numbers.workers],
        "cost": _cost(cost) if cost else None,
        "against": _comparison(comparison) if comparison else None,
    }


def _percentiles(found: Distribution) -> dict[str, float]:
    return {"count": found.count, "mean": found.mean} | {name: found.at(share) for name, share in _SHARES.items()}


def _cost(cost: Cost) -> dict[str, Any]:
    return asdict(cost) | {
        "total": cost.total,
        "per_document": cost.per_document,
        "per_million_tokens": cost.per_million_tokens,
    }


def _comparison(comparison: Comparison) -> dict[str, Any]:
    rows = {
        row.key: {"this": row.this, "earlier": row.earlier, "ratio": row.ratio, "verdict": row.verdict or None}
        for row in comparison.rows
    }
    return {"batch": comparison.earlier.status.id, "remarks": list(comparison.remarks), "measures": rows}
