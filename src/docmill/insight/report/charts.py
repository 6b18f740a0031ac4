"""The figures of a report, each from numbers of one or two batches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from docmill.formatting import number, percent, precise_duration
from docmill.insight.report.chart_style import (
    GRID,
    INK,
    MUTED,
    OTHER,
    READ,
    RUNNING,
    WAITING,
    WRITTEN,
    Drawing,
    Figure,
    tick_label,
    ticks_between,
)
from docmill.insight.report.report_data import ReportNumbers
from docmill.insight.report.timeline import Course
from docmill.storage.reads.batch_timeline import Distribution, Duration, SamplesOfWorker

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_UNITS = (
    (2 * 86400.0, 86400.0, "days"),
    (3 * 3600.0, 3600.0, "hours"),
    (180.0, 60.0, "minutes"),
    (0.0, 1.0, "seconds"),
)
_GIB = 1 << 30
_SHORTEST_S = 0.001
_GUIDES = (0.5, 0.9, 0.99)
_LINES = {
    Duration.WAIT: (WAITING, (0, (1, 1.2)), "wait"),
    Duration.PREFILL: (READ, "solid", "prefill"),
    Duration.DECODE: (WRITTEN, (0, (5, 1.5)), "decode"),
}


def throughput(course: Course) -> Figure:
    """Tokens read and written a second over time, stacked."""
    peak = max(read + written for read, written in zip(course.read_per_s, course.written_per_s, strict=True))
    drawing = Drawing(
        "throughput",
        "Tokens a second over time",
        f"Tokens read and written in each of {len(course.running)} equal intervals; most at once {number(peak)}/s.",
    )
    with drawing as axes:
        edges = _elapsed(axes, course.edges_s())
        both = [read + written for read, written in zip(course.read_per_s, course.written_per_s, strict=True)]
        axes.stairs(course.read_per_s, edges, fill=True, color=READ, label="read", linewidth=0)
        axes.stairs(both, edges, baseline=course.read_per_s, fill=True, color=WRITTEN, label="written", linewidth=0)
        axes.set_ylim(0, peak * 1.05 or 1)
        axes.yaxis.set_major_formatter(
            lambda value, _: f"{value / 1000:g} k" if value and peak >= 10_000 else f"{value:,.0f}"
        )
        axes.set_ylabel("tokens/s")
        _legend(axes, 2)
    return drawing.figure()


def occupancy(course: Course) -> Figure:
    """Jobs in the engines and slots over time."""
    share = course.occupancy
    told = f"; {percent(share)} of them were in use on average" if share is not None else ""
    drawing = Drawing(
        "occupancy",
        "Jobs in the engine over time",
        f"Jobs of this batch that an engine read or wrote, and the slots there were{told}.",
    )
    with drawing as axes:
        edges = _elapsed(axes, course.edges_s())
        axes.stairs(course.running, edges, fill=True, color=RUNNING, label="jobs in the engine", linewidth=0)
        if any(course.slots):
            axes.stairs(
                course.slots, edges, baseline=None, color=INK, label="slots", linestyle=(0, (4, 2)), linewidth=1.4
            )
        axes.set_ylim(0, max(*course.running, *course.slots, 1) * 1.08)
        axes.set_ylabel("jobs")
        _legend(axes, 2)
    return drawing.figure()


def durations(numbers: ReportNumbers) -> Figure:
    """The share of attempts whose wait, prefill and decode took at most so long."""
    found = {duration: numbers.durations[duration] for duration in _LINES if duration in numbers.durations}
    told = "; ".join(f"half of the attempts: {name} within {precise_duration(d.at(0.5))}" for name, d in found.items())
    drawing = Drawing("durations", "How long jobs waited, read and wrote", f"Cumulative shares on a log axis; {told}.")
    with drawing as axes:
        for duration, distribution in found.items():
            colour, dashes, name = _LINES[duration]
            axes.plot(_visible(distribution), distribution.shares, color=colour, linestyle=dashes, label=name)
        _cumulative(axes, list(found.values()))
        _legend(axes, 3)
    return drawing.figure()


def overlaid(duration: Duration, this: Distribution, earlier: Distribution) -> Figure:
    """One duration's distribution in two batches."""
    colour, _, name = _LINES[duration]
    median, earlier_median = (precise_duration(distribution.at(0.5)) for distribution in (this, earlier))
    drawing = Drawing(
        f"against-{name}",
        f"{name.capitalize()}, this batch and the earlier one",
        f"Half of the attempts took at most {median} in this batch, {earlier_median} in the earlier one.",
        height_in=3.0,
    )
    with drawing as axes:
        axes.plot(_visible(earlier), earlier.shares, color=MUTED, linestyle=(0, (4, 2)), label="earlier")
        axes.plot(_visible(this), this.shares, color=colour, label="this batch")
        _cumulative(axes, [this, earlier])
        _legend(axes, 2)
    return drawing.figure()


def memory(numbers: ReportNumbers) -> Figure | None:
    """All workers' memory over time; None without samples."""
    rss = _by_bucket(numbers, lambda sample: sample.rss_bytes)
    if len(rss) < 2:
        return None
    vram = _by_bucket(numbers, lambda sample: sample.vram_bytes)
    of_gpus = f", {_gib(vram):.1f} GiB of VRAM" if vram else ""
    drawing = Drawing(
        "memory",
        "Memory over time",
        f"Of all workers and engines together; at most {_gib(rss):.1f} GiB at once{of_gpus}.",
    )
    with drawing as axes:
        for points, colour, dashes, name in ((rss, READ, "solid", "memory"), (vram, WRITTEN, (0, (5, 1.5)), "VRAM")):
            if points:
                edges = _elapsed(axes, [at for at, _ in points], whole=numbers.span.seconds)
                axes.plot(edges, [size / _GIB for _, size in points], color=colour, linestyle=dashes, label=name)
        axes.set_ylim(0, max(_gib(rss), _gib(vram)) * 1.15)
        axes.set_ylabel("GiB")
        _legend(axes, 2)
    return drawing.figure()


def utilization(numbers: ReportNumbers) -> Figure | None:
    """Cores and GPUs at work over time; None without samples."""
    cpu = _by_bucket(numbers, lambda sample: sample.cpu_percent)
    if len(cpu) < 2:
        return None
    gpu = _by_bucket(numbers, lambda sample: sample.gpu_percent)
    mean = sum(load for _, load in cpu) / len(cpu) / 100
    drawing = Drawing(
        "utilization",
        "Processors over time",
        f"Cores at work in all workers and engines together, {mean:.1f} on average"
        + ("; and the mean share of their time that GPUs worked." if gpu else "."),
    )
    with drawing as axes:
        edges = _elapsed(axes, [at for at, _ in cpu], whole=numbers.span.seconds)
        axes.plot(edges, [load / 100 for _, load in cpu], color=RUNNING, label="cores at work")
        axes.set_ylim(0, max(load for _, load in cpu) / 100 * 1.15 or 1)
        axes.set_ylabel("cores")
        if gpu:
            beside = axes.twinx()
            workers = max(1, len({sample.worker for sample in numbers.samples if sample.gpu_percent is not None}))
            edges = _elapsed(axes, [at for at, _ in gpu], whole=numbers.span.seconds)
            beside.plot(edges, [load / workers for _, load in gpu], color=OTHER, linestyle=(0, (5, 1.5)))
            axes.plot([], [], color=OTHER, linestyle=(0, (5, 1.5)), label="GPU %")
            beside.set_ylim(0, 105)
            beside.grid(visible=False)
        _legend(axes, 2)
    return drawing.figure()


def _elapsed(axes: Axes, at_s: Sequence[float], whole: float | None = None) -> list[float]:
    """Label the axis in a unit that suits the whole length; the moments in that unit."""
    length_s = whole if whole is not None else at_s[-1]
    size, unit = next((size, unit) for least, size, unit in _UNITS if length_s >= least)
    axes.set_xlim(0, length_s / size)
    axes.set_xlabel(f"{unit} since the first job began")
    return [at / size for at in at_s]


def _cumulative(axes: Axes, shown: Sequence[Distribution]) -> None:
    """A log axis of durations over an axis of shares, with guides at the percentiles that the table names."""
    values = [value for distribution in shown for value in _visible(distribution)]
    least, most = min(values), max(2 * _SHORTEST_S, *values)
    axes.set_xscale("log")
    axes.set_xlim(least * 0.9, most * 1.1)
    axes.set_ylim(0, 1.02)
    axes.minorticks_off()
    ticks = list(ticks_between(least * 0.9, most * 1.1))
    axes.set_xticks(ticks, [tick_label(tick) for tick in ticks])
    axes.set_yticks([0, *_GUIDES], ["0", "p50", "p90", "p99"])
    for share in _GUIDES:
        axes.axhline(share, color=GRID, linewidth=1.0, zorder=0)


def _visible(distribution: Distribution) -> list[float]:
    """The values, what is too short for a log axis at its left end."""
    return [max(_SHORTEST_S, value) for value in distribution.values]


def _legend(axes: Axes, columns: int) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=columns, borderaxespad=0.2, handlelength=1.8)


def _by_bucket(numbers: ReportNumbers, read: Callable[[SamplesOfWorker], float | None]) -> list[tuple[float, float]]:
    """(Middle of the bucket in seconds, sum over the workers); a worker without a sample there keeps its last one."""
    return list(_carried(numbers, read))


def _carried(numbers: ReportNumbers, read: Callable[[SamplesOfWorker], float | None]) -> Iterator[tuple[float, float]]:
    by_bucket: dict[int, list[SamplesOfWorker]] = defaultdict(list)
    for sample in numbers.samples:
        by_bucket[sample.bucket].append(sample)
    last: dict[str, float] = {}
    for bucket in sorted(by_bucket):
        at = numbers.span.began_at + bucket * numbers.sample_width_s
        last = {name: value for name, value in last.items() if _works(numbers, name, at)}
        for sample in by_bucket[bucket]:
            value = read(sample)
            if value is not None:
                last[sample.worker] = value
        if last:
            yield (bucket + 0.5) * numbers.sample_width_s, sum(last.values())


def _works(numbers: ReportNumbers, worker: str, at: float) -> bool:
    return any(known.name == worker and known.ended_at >= at for known in numbers.workers)


def _gib(points: Sequence[tuple[float, float]]) -> float:
    return max((size for _, size in points), default=0.0) / _GIB
