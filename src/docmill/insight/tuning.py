"""Find the settings with which this machine processes the most text, by running the real engine on a small grid.

One setting is varied at a time, the others keep the best values so far (coordinate descent): a handful of runs instead
of hundreds. The measure is tokens of document text per second, including the time to write the answers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from docmill.producer.batch_plan import PlanRequest, make_plan
from docmill.producer.chunking.document_chunks import split_document
from docmill.producer.intake.documents import Document
from docmill.producer.model_text import ModelText
from docmill.producer.task_files import Task
from docmill.worker.batcher import Batcher
from docmill.worker.engines.base import EngineError, Request
from docmill.worker.engines.spec import EngineSpec

_LOOKAHEAD = 3
_MIN_SPEEDUP = 1.03  # less is noise: the earlier, simpler setting stays
_VARIED = ("threads", "batch_size", "quantization", "chunk_tokens")


@dataclass(frozen=True, slots=True)
class TunedSettings:
    """The settings that are varied; None leaves the choice to the engine."""

    threads: int | None
    batch_size: int
    quantization: str | None
    chunk_tokens: int


@dataclass(frozen=True, slots=True)
class Measurement:
    """One run. `text_tokens_per_s` are tokens of document text per second, None if it could not run (see `error`)."""

    varied: str
    settings: TunedSettings
    text_tokens_per_s: float | None
    jobs: int = 0
    seconds: float = 0.0
    peak_memory_bytes: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True)
class Grid:
    """The values to try for each setting, in order; the first of each is the start."""

    threads: Sequence[int | None]
    batch_size: Sequence[int]
    quantization: Sequence[str | None]
    chunk_tokens: Sequence[int]

    @property
    def start(self) -> TunedSettings:
        return TunedSettings(*(getattr(self, name)[0] for name in _VARIED))

    @property
    def runs(self) -> int:
        """The number of runs."""
        return 1 + sum(len(getattr(self, name)) - 1 for name in _VARIED)


@dataclass(frozen=True, slots=True)
class Workload:
    """What every run processes: the document's first `text_tokens`, with answers of `output_tokens`."""

    document: Document
    task: Task
    text: ModelText
    text_tokens: int
    output_tokens: int


def tune(spec: EngineSpec, grid: Grid, workload: Workload) -> Iterator[Measurement]:
    """Run the grid, one measurement after the other. Raises EngineError if even the first cannot run."""
    measured = [measure(spec, grid.start, workload, varied="start")]
    if measured[0].text_tokens_per_s is None:
        raise EngineError(f"the model does not run here: {measured[0].error}")
    yield measured[0]
    for name in _VARIED:
        best = best_of(measured).settings
        for value in getattr(grid, name)[1:]:
            measured.append(measure(spec, replace(best, **{name: value}), workload, varied=name))
            yield measured[-1]


def best_of(measured: Sequence[Measurement]) -> Measurement:
    """The fastest; a later one must be faster by `_MIN_SPEEDUP`."""
    best = measured[0]
    for tried in measured[1:]:
        if (tried.text_tokens_per_s or 0.0) > _MIN_SPEEDUP * (best.text_tokens_per_s or 0.0):
            best = tried
    return best


def measure(spec: EngineSpec, settings: TunedSettings, workload: Workload, *, varied: str) -> Measurement:
    """Load the engine with these settings, run the workload, and unload it."""
    spec = replace(spec, threads=settings.threads, slots=settings.batch_size, quantization=settings.quantization)
    try:
        requests, text_tokens = _requests(spec, settings, workload)
        batcher = Batcher(spec)
        try:
            batcher.start()
            began = time.monotonic()
            with ThreadPoolExecutor(max_workers=settings.batch_size + _LOOKAHEAD) as pool:
                completions = list(pool.map(batcher.generate, requests))
            seconds = time.monotonic() - began
        finally:
            batcher.close()
    except EngineError as error:
        return Measurement(varied, settings, None, error=str(error))
    peak = max(completion.peak_memory_bytes for completion in completions)
    return Measurement(varied, settings, text_tokens / seconds, len(requests), seconds, peak)


def _requests(spec: EngineSpec, settings: TunedSettings, workload: Workload) -> tuple[list[Request], int]:
    """The jobs of one run, and the tokens of document text in them."""
    text, task = workload.text, workload.task
    plan_request = PlanRequest(
        model=text.model.name,
        max_tokens=workload.output_tokens,
        context_window=spec.window,
        chunk_tokens=settings.chunk_tokens,
        summary_tokens=workload.output_tokens,
        sampling={"temperature": 0.0},
    )
    plan = make_plan(plan_request, task, text)
    count = max(1, workload.text_tokens // plan.chunk_tokens)
    chunks = list(islice(split_document(workload.document, plan, task, text), count))
    requests = [
        Request(
            f"tune-{chunk.index}", tuple(chunk.prompt.ids), workload.output_tokens, plan.sampling,
            text.tokenizer.eos_ids,
        )
        for chunk in chunks
    ]  # fmt: skip
    return requests, sum(chunk.tokens for chunk in chunks)


def grid_for(spec: EngineSpec, cores: int, *, on_cpu: bool, quick: bool, max_chunk_tokens: int) -> Grid:
    """The grid for this engine and machine. `max_chunk_tokens` is the largest chunk that fits into the window."""
    threads = (1, cores * 2) if quick else (1, cores // 2, cores * 2)
    slots = (4,) if quick else (1, 2, 4, 8, 32)
    cache_types = () if quick else ("fp16", "int8", "int4")
    chunks = (1000, 500) if quick else (1000, 500, 2000, 4000)
    return Grid(
        threads=_distinct(None, *(n for n in threads if n >= 1)) if on_cpu and cores > 1 else [None],
        batch_size=_distinct(spec.slots, *slots),
        quantization=_distinct(spec.quantization, *cache_types),
        chunk_tokens=[n for n in chunks if n <= max_chunk_tokens] or [max_chunk_tokens],
    )


def _distinct(*values: Any) -> list[Any]:
    return list(dict.fromkeys(values))


def as_config(model: str, settings: TunedSettings) -> dict[str, Any]:
    """The settings as sections of config.yaml."""
    names = ("threads", "batch_size", "quantization")
    optimization = {name: value for name in names if (value := getattr(settings, name)) is not None}
    return {"llm": {"model": model, "chunk_tokens": settings.chunk_tokens, "optimization": optimization}}
