"""A report as a JSON object. Times are seconds since 1970, durations seconds, sizes bytes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from docmill.insight.report.comparison import Comparison
from docmill.insight.report.cost import Cost
from docmill.insight.report.report_data import ReportData
from docmill.storage.reads.batch_timeline import Distribution

_SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}


def to_json(data: ReportData, cost: Cost | None, comparison: Comparison | None) -> dict[str, Any]:
    """The data of the page, unrounded."""
    status, done = data.status, data.succeeded
    return {
        "batch": status.id,
        "state": status.state,
        "model": status.model,
        "task": status.task,
        "metadata": dict(status.metadata),
        "created_at": status.created_at,
        "began_at": data.span.began_at if data.attempts_total else None,
        "ended_at": status.ended_at,
        "documents": {
            "total": status.documents_total,
            "open": status.documents_open,
            "failed": status.documents_failed,
        },
        "jobs": {"total": status.jobs_total, "reused": status.jobs_reused}
        | {str(state): count for state, count in status.jobs_by_state.items()},
        "attempts": {str(outcome): totals.attempts for outcome, totals in data.outcomes.items()},
        "prompt_tokens": done.prompt_tokens,
        "cached_tokens": data.cached_tokens,
        "completion_tokens": done.completion_tokens,
        "reused_tokens": data.reused_tokens,
        "working_s": data.span.seconds,
        "elapsed_s": status.elapsed_s,
        "tokens_per_s": data.tokens_per_s,
        "occupancy": data.occupancy,
        "peak_memory_bytes": data.peak_memory_bytes,
        "peak_vram_bytes": data.peak_vram_bytes,
        "durations": {str(duration): _percentiles(found) for duration, found in data.durations.items()},
        "course": asdict(data.timeline) if data.timeline else None,
        "levels": [row._asdict() for row in data.levels],
        "largest_documents": [row._asdict() for row in data.documents],
        "failures": [row._asdict() for row in data.failed_attempts],
        "failed_documents": [row._asdict() for row in data.failed_documents],
        "slowest_jobs": [row._asdict() for row in data.slowest],
        "workers": [asdict(worker) for worker in data.workers],
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
    measures = {
        m.key: {"this": m.this, "earlier": m.earlier, "ratio": m.ratio, "verdict": m.verdict or None}
        for m in comparison.measures
    }
    return {"batch": comparison.earlier.status.id, "remarks": list(comparison.remarks), "measures": measures}
