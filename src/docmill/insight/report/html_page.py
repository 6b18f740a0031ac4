"""A report as one HTML file that needs nothing else: no network, no scripts, no fonts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from docmill import formatting
from docmill.formatting import keep_together
from docmill.insight.report.chart_style import Figure, require_matplotlib
from docmill.insight.report.charts import durations, memory, occupancy, overlaid, throughput, utilization
from docmill.insight.report.comparison import Comparison
from docmill.insight.report.cost import Cost
from docmill.insight.report.report_data import ReportNumbers
from docmill.storage.reads.batch_timeline import Distribution, Duration
from docmill.storage.states import AttemptOutcome, JobState

_SERIES_ROWS = 12
_SHOWN_SHARES = (0.5, 0.9, 0.99, 1.0)
_NAMES = {
    Duration.WAIT: "wait for a slot",
    Duration.QUEUE: "queue in the engine",
    Duration.PREFILL: "prefill (reading)",
    Duration.DECODE: "decode (writing)",
    Duration.RUN: "claim to stored result",
}


@dataclass(frozen=True, slots=True)
class Tile:
    """One of the large numbers at the top; `note` says what it is made of."""

    name: str
    value: str
    note: str = ""


def render(numbers: ReportNumbers, cost: Cost | None, comparison: Comparison | None) -> str:
    """The page. Raises PlotsUnavailable without matplotlib."""
    require_matplotlib()
    environment = Environment(
        loader=PackageLoader("docmill.insight.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": formatting.number, "compact": formatting.compact, "rate": formatting.rate,
        "ratio": formatting.ratio, "percent": formatting.percent, "seconds": formatting.precise_duration,
        "brief": formatting.short_duration, "moment": formatting.moment, "iso": formatting.iso,
        "energy": formatting.energy, "gib": formatting.gib, "together": keep_together, "draw": _drawn,
    }  # fmt: skip
    course = numbers.course
    return environment.get_template("report.html").render(
        n=numbers,
        status=numbers.status,
        cost=cost,
        comparison=comparison,
        lead=lead(numbers),
        tiles=list(_tiles(numbers, cost)),
        throughput=throughput(course) if course and numbers.tokens else None,
        occupancy=occupancy(course) if course else None,
        series=list(_series(numbers)),
        durations=durations(numbers) if _has_shapes(numbers) else None,
        percentiles=[(_NAMES[duration], d, _shown(d)) for duration, d in numbers.durations.items()],
        usage=[figure for figure in (memory(numbers), utilization(numbers)) if figure],
        overlays=list(_overlays(numbers, comparison)),
        money=lambda amount: formatting.money(amount, cost.prices.currency if cost else ""),
        counted=formatting.counted,
        outcomes=[(o, t) for o, t in numbers.outcomes.items() if o is not AttemptOutcome.SUCCEEDED],
        is_final=numbers.status.state.is_terminal,
        most_document_tokens=max((d.prompt_tokens + d.completion_tokens for d in numbers.documents), default=0),
        most_failures=max((failed.attempts for failed in numbers.failed_attempts), default=0),
        made_at=time.time(),
    )


def lead(numbers: ReportNumbers) -> str:
    """The report in one or two sentences."""
    status = numbers.status
    if not numbers.attempts_total:
        return "No job of this batch has run yet." if not status.state.is_terminal else "No job of this batch ran."
    succeeded = status.jobs_by_state[JobState.SUCCEEDED]
    began = "" if status.state.is_terminal else "So far "
    said = f"{began}{succeeded:,} of {formatting.counted(status.jobs_total, 'job')} succeeded"
    said += f" in {formatting.precise_duration(numbers.span.seconds)}"
    if numbers.tokens_per_s:
        said += f", at {formatting.rate(numbers.tokens_per_s)} tokens a second"
    if numbers.occupancy is not None:
        said += f" with {formatting.percent(numbers.occupancy)} of the slots in use"
    failed = status.jobs_by_state[JobState.FAILED]
    tail = f" {formatting.counted(failed, 'job')} failed." if failed else ""
    return f"{said}.{tail}"


def _tiles(numbers: ReportNumbers, cost: Cost | None) -> Iterator[Tile]:
    status, done = numbers.status, numbers.succeeded
    finished = status.documents_total - status.documents_open - status.documents_failed
    failed = f"{status.documents_failed:,} failed" if status.documents_failed else ""
    opened = f"{status.documents_open:,} open" if status.documents_open else ""
    yield Tile(
        "documents done", f"{finished:,} of {status.documents_total:,}", ", ".join(filter(None, (failed, opened)))
    )
    jobs = status.jobs_by_state
    ended_badly = ", ".join(
        f"{jobs[state]:,} {state}" for state in (JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED) if jobs[state]
    )
    yield Tile("jobs succeeded", f"{jobs[JobState.SUCCEEDED]:,} of {status.jobs_total:,}", ended_badly)
    cached = numbers.cached_tokens
    share = formatting.percent(cached / done.prompt_tokens) if cached and done.prompt_tokens else None
    yield Tile("tokens read", formatting.compact(done.prompt_tokens), f"{share} from cache" if share else "")
    yield Tile("tokens written", formatting.compact(done.completion_tokens))
    if numbers.reused_tokens or status.jobs_reused:
        yield Tile(
            "tokens reused",
            formatting.compact(numbers.reused_tokens),
            f"by {formatting.counted(status.jobs_reused, 'equal job')}",
        )
    if numbers.tokens_per_s is not None:
        written = formatting.rate(numbers.written_per_s) if numbers.written_per_s else "0"
        yield Tile("tokens a second", formatting.rate(numbers.tokens_per_s), f"{written} written")
    whole = f"{formatting.precise_duration(status.elapsed_s)} since it was submitted"
    yield Tile("time at work", formatting.precise_duration(numbers.span.seconds), whole)
    if numbers.occupancy is not None:
        slots = sum(worker.slots for worker in numbers.workers)
        yield Tile("slots in use", formatting.percent(numbers.occupancy), f"of {slots:,} on average")
    if cost and cost.total is not None:
        per = cost.per_million_tokens
        note = f"{formatting.money(per, cost.prices.currency)} a million tokens" if per is not None else ""
        yield Tile("cost", formatting.money(cost.total, cost.prices.currency), note)


def _series(numbers: ReportNumbers) -> Iterator[tuple[float, float, float, float, float]]:
    """The figures' numbers in few rows: seconds, tokens read and written a second, jobs and slots."""
    course = numbers.course
    if course is None:
        return
    together = -(-len(course.running) // _SERIES_ROWS)
    columns = (course.read_per_s, course.written_per_s, course.running, course.slots)
    for first in range(0, len(course.running), together):
        parts = [column[first : first + together] for column in columns]
        read, written, running, slots = (sum(part) / len(part) for part in parts)
        yield first * course.width_s, read, written, running, slots


def _has_shapes(numbers: ReportNumbers) -> bool:
    return any(duration in numbers.durations for duration in (Duration.WAIT, Duration.PREFILL, Duration.DECODE))


def _shown(distribution: Distribution) -> list[float]:
    return [distribution.at(share) for share in _SHOWN_SHARES]


def _overlays(numbers: ReportNumbers, comparison: Comparison | None) -> Iterator[Figure]:
    if comparison is None:
        return
    earlier = comparison.earlier.durations
    for duration in (Duration.WAIT, Duration.PREFILL, Duration.DECODE):
        if duration in numbers.durations and duration in earlier:
            yield overlaid(duration, numbers.durations[duration], earlier[duration])


def _drawn(figure: Figure) -> Markup:
    return Markup(figure.svg)  # noqa: S704 - drawn here, from numbers
