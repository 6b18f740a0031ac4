"""The figures of a report, each drawn from the data of one or two batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from docmill.formatting import number, percent, precise_duration
from docmill.insight.report import chart_style as colour
from docmill.insight.report.chart_style import Figure, draw
from docmill.insight.report.report_data import ReportData
from docmill.insight.report.timeline import Timeline
from docmill.storage.reads.batch_timeline import Distribution, Duration, WorkerUsage

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TIME_UNITS = (
    (2 * 86400.0, 86400.0, "days"),
    (3 * 3600.0, 3600.0, "hours"),
    (180.0, 60.0, "minutes"),
    (0.0, 1.0, "seconds"),
)
_GIB = 1 << 30
_SHORTEST_S = 0.001
_GUIDES = {0.5: "p50", 0.9: "p90", 0.99: "p99"}
_DASHED, _DOTTED = (0, (5, 1.5)), (0, (1, 1.2))
_LINES = {
    Duration.WAIT: (colour.WAITING, _DOTTED),
    Duration.PREFILL: (colour.READ, "solid"),
    Duration.DECODE: (colour.WRITTEN, _DASHED),
}
_TICKS_S = (
    *(step * size for size in (0.001, 0.01, 0.1, 1.0) for step in (1, 2, 5)), 10.0, 20.0,
    *(minutes * 60.0 for minutes in (1, 2, 5, 10, 20)), *(hours * 3600.0 for hours in (1, 2, 5, 10, 24, 48, 120, 240)),
)  # fmt: skip
_MOST_TICKS = 6


def throughput(timeline: Timeline) -> Figure:
    """Tokens read and written per second over time, stacked."""
    both = [read + written for read, written in zip(timeline.read_per_s, timeline.written_per_s, strict=True)]
    peak = max(both)

    def paint(axes: Axes) -> None:
        edges = _time_axis(axes, timeline.edges_s())
        axes.stairs(timeline.read_per_s, edges, fill=True, color=colour.READ, label="read", linewidth=0)
        below = timeline.read_per_s
        axes.stairs(both, edges, baseline=below, fill=True, color=colour.WRITTEN, label="written", linewidth=0)
        axes.set_ylim(0, peak * 1.05 or 1)
        axes.yaxis.set_major_formatter(
            lambda value, _: f"{value / 1000:g} k" if value and peak >= 10_000 else f"{value:,.0f}"
        )
        axes.set_ylabel("tokens/s")
        _legend(axes)

    return draw(
        "throughput",
        "Tokens per second over time",
        f"Tokens read and written in each of {len(both)} equal intervals; the peak is {number(peak)}/s.",
        paint,
    )


def occupancy(timeline: Timeline) -> Figure:
    """Jobs in the engines, and slots, over time."""

    def paint(axes: Axes) -> None:
        edges = _time_axis(axes, timeline.edges_s())
        axes.stairs(timeline.running, edges, fill=True, color=colour.RUNNING, label="jobs in the engine", linewidth=0)
        if any(timeline.slots):
            axes.stairs(timeline.slots, edges, baseline=None, color=colour.INK, label="slots", linestyle=_DASHED)
        axes.set_ylim(0, max(*timeline.running, *timeline.slots, 1) * 1.08)
        axes.set_ylabel("jobs")
        _legend(axes)

    share = timeline.occupancy
    used = f"; {percent(share)} of them were in use on average" if share is not None else ""
    return draw(
        "occupancy",
        "Jobs in the engine over time",
        f"Jobs of this batch that an engine was reading or writing, and the number of slots{used}.",
        paint,
    )


def durations(data: ReportData) -> Figure:
    """The share of attempts whose wait, prefill and decode took at most a given time."""
    found = {duration: data.durations[duration] for duration in _LINES if duration in data.durations}

    def paint(axes: Axes) -> None:
        for duration, distribution in found.items():
            line, dashes = _LINES[duration]
            axes.plot(_visible(distribution), distribution.shares, color=line, linestyle=dashes, label=duration)
        _cumulative(axes, list(found.values()))

    medians = ", ".join(f"{name} {precise_duration(d.at(0.5))}" for name, d in found.items())
    description = f"Cumulative shares on a logarithmic axis. Medians: {medians}."
    return draw("durations", "How long jobs waited, read and wrote", description, paint)


def overlaid(duration: Duration, this: Distribution, earlier: Distribution) -> Figure:
    """One duration's distribution in two batches."""

    def paint(axes: Axes) -> None:
        axes.plot(_visible(earlier), earlier.shares, color=colour.MUTED, linestyle=_DASHED, label="earlier")
        axes.plot(_visible(this), this.shares, color=_LINES[duration][0], label="this batch")
        _cumulative(axes, [this, earlier])

    return draw(
        f"against-{duration}",
        f"{duration.capitalize()}, this batch and the earlier one",
        f"The median is {precise_duration(this.at(0.5))} in this batch and {precise_duration(earlier.at(0.5))} in the "
        "earlier one.",
        paint,
        height_in=3.0,
    )


def memory(data: ReportData) -> Figure | None:
    """All workers' memory over time; None without samples."""
    rss = _sum_over_workers(data, lambda usage: usage.rss_bytes / _GIB)
    vram = _sum_over_workers(data, lambda usage: usage.vram_bytes and usage.vram_bytes / _GIB)
    if len(rss) < 2:
        return None

    def paint(axes: Axes) -> None:
        _plot(axes, data, rss, color=colour.READ, label="memory")
        if vram:
            _plot(axes, data, vram, color=colour.WRITTEN, linestyle=_DASHED, label="VRAM")
        axes.set_ylim(0, max(*rss.values(), *vram.values()) * 1.15)
        axes.set_ylabel("GiB")
        _legend(axes)

    of_gpus = f", and of GPU memory {max(vram.values()):.1f} GiB" if vram else ""
    description = f"Of all workers and engines together. The peak is {max(rss.values()):.1f} GiB{of_gpus}."
    return draw("memory", "Memory over time", description, paint)


def utilization(data: ReportData) -> Figure | None:
    """Busy cores and GPUs over time; None without samples."""
    cores = _sum_over_workers(data, lambda usage: usage.cpu_percent / 100)
    gpus = _sum_over_workers(data, lambda usage: usage.gpu_percent)
    gpu_workers = len({usage.worker for usage in data.usage if usage.gpu_percent is not None})
    if len(cores) < 2:
        return None

    def paint(axes: Axes) -> None:
        _plot(axes, data, cores, color=colour.RUNNING, label="busy cores")
        axes.set_ylim(0, max(cores.values()) * 1.15 or 1)
        axes.set_ylabel("cores")
        if gpus:
            right = axes.twinx()
            mean = {at_s: load / gpu_workers for at_s, load in gpus.items()}
            _plot(right, data, mean, color=colour.OTHER, linestyle=_DASHED)
            axes.plot([], [], color=colour.OTHER, linestyle=_DASHED, label="GPU %")
            right.set_ylim(0, 105)
            right.grid(visible=False)
        _legend(axes)

    mean = sum(cores.values()) / len(cores)
    of_gpus = ", and the mean utilization of the GPUs" if gpus else ""
    description = f"Busy cores of all workers and engines together, {mean:.1f} on average{of_gpus}."
    return draw("utilization", "Processors over time", description, paint)


def _time_axis(axes: Axes, at_s: Sequence[float], length_s: float | None = None) -> list[float]:
    """Label the time axis in a unit that suits its length, by default the last moment; the moments in that unit."""
    length_s = at_s[-1] if length_s is None else length_s
    size, unit = next((size, unit) for least, size, unit in _TIME_UNITS if length_s >= least)
    axes.set_xlim(0, length_s / size)
    axes.set_xlabel(f"{unit} since the first job began")
    return [at / size for at in at_s]


def _plot(axes: Axes, data: ReportData, points: dict[float, float], **style: Any) -> None:
    axes.plot(_time_axis(axes, list(points), data.span.seconds), list(points.values()), **style)


def _cumulative(axes: Axes, shown: Sequence[Distribution]) -> None:
    """A logarithmic axis of durations and an axis of shares, with guides at the percentiles of the table."""
    values = [value for distribution in shown for value in _visible(distribution)]
    least, most = min(values) * 0.9, max(2 * _SHORTEST_S, *values) * 1.1
    axes.set_xscale("log")
    axes.set_xlim(least, most)
    axes.set_ylim(0, 1.02)
    axes.minorticks_off()
    ticks = [tick for tick in _TICKS_S if least <= tick <= most]
    ticks = ticks[:: -(-len(ticks) // _MOST_TICKS) or 1]
    axes.set_xticks(ticks, [_tick_label(tick) for tick in ticks])
    axes.set_yticks([0, *_GUIDES], ["0", *_GUIDES.values()])
    for share in _GUIDES:
        axes.axhline(share, color=colour.GRID, linewidth=1.0, zorder=0)
    _legend(axes)


def _tick_label(seconds: float) -> str:
    """`5 ms`, `0.2 s`, `20 s`, `5 min`, `2 h`, `2 d`."""
    for least, size, unit in ((172800.0, 86400.0, "d"), (3600.0, 3600.0, "h"), (60.0, 60.0, "min")):
        if seconds >= least:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s" if seconds >= 0.1 else f"{seconds * 1000:g} ms"


def _visible(distribution: Distribution) -> list[float]:
    """The values; those too short for a logarithmic axis at its left end."""
    return [max(_SHORTEST_S, value) for value in distribution.values]


def _legend(axes: Axes) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, borderaxespad=0.2, handlelength=1.8)


def _sum_over_workers(data: ReportData, read: Callable[[WorkerUsage], float | None]) -> dict[float, float]:
    """The sum over the workers by moment in seconds. A worker without a sample keeps its last one until it ends."""
    ended_s = {worker.name: worker.ended_at - data.span.began_at for worker in data.workers}
    last: dict[str, float] = {}
    sums: dict[float, float] = {}
    for at_s, usages in groupby(data.usage, key=lambda usage: usage.at_s):
        measured = ((usage.worker, read(usage)) for usage in usages)
        last |= {worker: value for worker, value in measured if value is not None}
        working = [value for worker, value in last.items() if ended_s[worker] >= at_s]
        if working:
            sums[at_s] = sum(working)
    return sums
