"""A report as one HTML file that needs nothing else: no network, no scripts, no fonts."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from docmill import formatting
from docmill.formatting import compact, counted, money, percent, precise_duration, rate
from docmill.insight.report.chart_style import Figure, require_matplotlib
from docmill.insight.report.charts import durations, memory, occupancy, overlaid, throughput, utilization
from docmill.insight.report.comparison import Comparison
from docmill.insight.report.cost import Cost
from docmill.insight.report.report_data import ReportData
from docmill.insight.report.timeline import Timeline
from docmill.storage.reads.batch_timeline import Duration
from docmill.storage.states import AttemptOutcome, JobState

_TIMELINE_ROWS = 12
_SHOWN_SHARES = (0.5, 0.9, 0.99, 1.0)
_DRAWN_DURATIONS = (Duration.WAIT, Duration.PREFILL, Duration.DECODE)
_DURATION_NAMES = {
    Duration.WAIT: "wait for a slot",
    Duration.QUEUE: "queue in the engine",
    Duration.PREFILL: "prefill (reading)",
    Duration.DECODE: "decode (writing)",
    Duration.RUN: "claim to stored result",
}


@dataclass(frozen=True, slots=True)
class Tile:
    """One of the large numbers at the top, and a note on what it consists of."""

    name: str
    value: str
    note: str = ""


def render(data: ReportData, cost: Cost | None, comparison: Comparison | None) -> str:
    """The page. Raises DocmillError without matplotlib."""
    require_matplotlib()
    environment = Environment(
        loader=PackageLoader("docmill.insight.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {name: function for name, function in vars(formatting).items() if callable(function)}
    timeline = data.timeline
    drawn = [duration for duration in _DRAWN_DURATIONS if duration in data.durations]
    earlier = comparison.earlier.durations if comparison else {}
    return environment.get_template("report.html").render(
        n=data,
        status=data.status,
        cost=cost,
        comparison=comparison,
        lead=_lead(data),
        tiles=list(_tiles(data, cost)),
        throughput=throughput(timeline) if timeline and data.tokens else None,
        occupancy=occupancy(timeline) if timeline else None,
        timeline_rows=list(_timeline_rows(timeline)) if timeline else [],
        durations=durations(data) if drawn else None,
        percentiles=[
            (_DURATION_NAMES[duration], found, [found.at(share) for share in _SHOWN_SHARES])
            for duration, found in data.durations.items()
        ],
        usage=[figure for figure in (memory(data), utilization(data)) if figure],
        overlays=[overlaid(name, data.durations[name], earlier[name]) for name in drawn if name in earlier],
        svg=_svg,
        currency=cost.prices.currency if cost else "",
        outcomes=[(o, t) for o, t in data.outcomes.items() if o is not AttemptOutcome.SUCCEEDED],
        is_final=data.status.state.is_terminal,
        most_document_tokens=max((d.prompt_tokens + d.completion_tokens for d in data.documents), default=0),
        most_failures=max((failed.attempts for failed in data.failed_attempts), default=0),
        made_at=time.time(),
    )


def _lead(data: ReportData) -> str:
    """The report in one or two sentences."""
    status = data.status
    jobs, is_final = status.jobs_by_state, status.state.is_terminal
    if not data.attempts_total:
        return "No job of this batch ran." if is_final else "No job of this batch has run yet."
    sentence = "" if is_final else "So far "
    sentence += f"{jobs[JobState.SUCCEEDED]:,} of {counted(status.jobs_total, 'job')} succeeded"
    sentence += f" in {precise_duration(data.span.seconds)}"
    if data.tokens_per_s:
        sentence += f", at {rate(data.tokens_per_s)} tokens per second"
    if data.occupancy is not None:
        sentence += f" with {percent(data.occupancy)} of the slots in use"
    failed = jobs[JobState.FAILED]
    return f"{sentence}. {counted(failed, 'job')} failed." if failed else f"{sentence}."


def _tiles(data: ReportData, cost: Cost | None) -> Iterator[Tile]:
    status, totals, jobs = data.status, data.succeeded, data.status.jobs_by_state
    finished = status.documents_total - status.documents_open - status.documents_failed
    unfinished = ((status.documents_failed, "failed"), (status.documents_open, "open"))
    yield Tile("documents done", f"{finished:,} of {status.documents_total:,}", _counts(unfinished))
    failed = ((jobs[state], state) for state in (JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED))
    yield Tile("jobs succeeded", f"{jobs[JobState.SUCCEEDED]:,} of {status.jobs_total:,}", _counts(failed))
    cached = f"{percent(data.cached_tokens / totals.prompt_tokens)} from cache" if data.cached_tokens else ""
    yield Tile("tokens read", compact(totals.prompt_tokens), cached)
    yield Tile("tokens written", compact(totals.completion_tokens))
    if data.reused_tokens or status.jobs_reused:
        yield Tile("tokens reused", compact(data.reused_tokens), f"from {counted(status.jobs_reused, 'identical job')}")
    if data.tokens_per_s is not None:
        yield Tile("tokens per second", rate(data.tokens_per_s), f"{rate(data.written_per_s or 0)} written")
    elapsed = f"{precise_duration(status.elapsed_s)} since it was submitted"
    yield Tile("working time", precise_duration(data.span.seconds), elapsed)
    if data.occupancy is not None:
        yield Tile("slots in use", percent(data.occupancy), f"of {data.slots:,} on average")
    if cost and cost.total is not None:
        per, currency = cost.per_million_tokens, cost.prices.currency
        note = "" if per is None else f"{money(per, currency)} per million tokens"
        yield Tile("cost", money(cost.total, currency), note)


def _counts(counts: Iterable[tuple[int, str]]) -> str:
    return ", ".join(f"{count:,} {name}" for count, name in counts if count)


def _timeline_rows(timeline: Timeline) -> Iterator[tuple[float, ...]]:
    """The figures' numbers in few rows: seconds since the start, tokens read and written per second, jobs, slots."""
    size = -(-len(timeline.running) // _TIMELINE_ROWS)
    columns = (timeline.read_per_s, timeline.written_per_s, timeline.running, timeline.slots)
    for first in range(0, len(timeline.running), size):
        parts = [column[first : first + size] for column in columns]
        yield first * timeline.width_s, *(sum(part) / len(part) for part in parts)


def _svg(figure: Figure) -> Markup:
    return Markup(figure.svg)  # noqa: S704 - drawn by docmill, from numbers
