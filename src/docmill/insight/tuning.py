"""Find the settings with which this machine reads most: the real engine, a small grid, one setting after another.

Each setting is varied while the others stay at the best found so far (coordinate descent): a handful of runs instead
of hundreds. What is measured is text: how many tokens of documents are done a second, answers included.
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
from docmill.producer.intake.sources import Document
from docmill.producer.model_text import ModelText
from docmill.producer.task_files import Task
from docmill.worker.batcher import Batcher
from docmill.worker.engines.base import EngineError, Request
from docmill.worker.engines.spec import EngineSpec

_LOOKAHEAD = 3
_BETTER = 1.03  # what is less than 3 % faster is noise: the earlier, simpler setting stays


@dataclass(frozen=True, slots=True)
class Settings:
    """What is varied. `chunk_tokens` in tokens; None for the engine's own choice."""

    threads: int | None
    batch_size: int
    quantization: str | None
    chunk_tokens: int


@dataclass(frozen=True, slots=True)
class Measured:
    """One run. `text_tokens_per_s`: tokens of documents done a second; None where it could not run, with why."""

    varied: str
    settings: Settings
    text_tokens_per_s: float | None
    jobs: int = 0
    seconds: float = 0.0
    peak_memory_bytes: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True)
class Grid:
    """The values to try, in this order; the first of each is where it starts. An empty one is not varied."""

    threads: Sequence[int | None]
    batch_size: Sequence[int]
    quantization: Sequence[str | None]
    chunk_tokens: Sequence[int]

    @property
    def start(self) -> Settings:
        return Settings(self.threads[0], self.batch_size[0], self.quantization[0], self.chunk_tokens[0])

    @property
    def runs(self) -> int:
        """How many runs there will be."""
        return 1 + sum(len(getattr(self, name)) - 1 for name in _VARIED)


@dataclass(frozen=True, slots=True)
class Workload:
    """What every run does: this document's first `text_tokens` by this task, `output_tokens` an answer."""

    document: Document
    task: Task
    text: ModelText
    text_tokens: int
    output_tokens: int


_VARIED = ("threads", "batch_size", "quantization", "chunk_tokens")


def tune(spec: EngineSpec, grid: Grid, workload: Workload) -> Iterator[Measured]:
    """Run the grid, one measurement after the other. Raises EngineError when not even the first can run."""
    best = measure(spec, grid.start, workload, varied="start")
    if best.text_tokens_per_s is None:
        raise EngineError(f"the model does not run here: {best.error}")
    yield best
    for name in _VARIED:
        start = best.settings
        for value in getattr(grid, name)[1:]:
            tried = measure(spec, replace(start, **{name: value}), workload, varied=name)
            yield tried
            if tried.text_tokens_per_s and tried.text_tokens_per_s > _BETTER * (best.text_tokens_per_s or 0.0):
                best = tried


def best_of(measured: Sequence[Measured]) -> Measured:
    """The one that `tune` went on from at the end."""
    best = measured[0]
    for tried in measured[1:]:
        if (tried.text_tokens_per_s or 0.0) > _BETTER * (best.text_tokens_per_s or 0.0):
            best = tried
    return best


def measure(spec: EngineSpec, settings: Settings, workload: Workload, *, varied: str) -> Measured:
    """Load the engine so, do the work, end it."""
    made = replace(spec, threads=settings.threads, slots=settings.batch_size, quantization=settings.quantization)
    try:
        requests, text_tokens = _requests(made, settings, workload)
        batcher = Batcher(made)
        try:
            batcher.start()
            return _run(batcher, requests, settings, text_tokens, varied=varied)
        finally:
            batcher.close()
    except EngineError as error:
        return Measured(varied, settings, None, error=str(error))


def _run(
    batcher: Batcher, requests: Sequence[Request], settings: Settings, text_tokens: int, *, varied: str
) -> Measured:
    began = time.monotonic()
    with ThreadPoolExecutor(max_workers=settings.batch_size + _LOOKAHEAD) as pool:
        completions = list(pool.map(batcher.generate, requests))
    seconds = time.monotonic() - began
    return Measured(
        varied,
        settings,
        text_tokens / seconds,
        jobs=len(requests),
        seconds=seconds,
        peak_memory_bytes=max(done.peak_memory_bytes for done in completions),
    )


def _requests(spec: EngineSpec, settings: Settings, workload: Workload) -> tuple[list[Request], int]:
    """The jobs of one run, and the tokens of the text in them."""
    text = workload.text
    wishes = PlanRequest(
        model=text.model.name,
        max_tokens=workload.output_tokens,
        context_window=spec.window,
        chunk_tokens=settings.chunk_tokens,
        summary_tokens=workload.output_tokens,
        sampling={"temperature": 0.0},
    )
    plan = make_plan(wishes, workload.task, text)
    count = max(1, workload.text_tokens // plan.chunk_tokens)
    chunks = list(islice(split_document(workload.document, plan, workload.task, text), count))
    requests = [
        Request(
            id=f"tune-{chunk.index}",
            prompt_ids=tuple(chunk.prompt.ids),
            max_tokens=workload.output_tokens,
            sampling=plan.sampling,
            stop_token_ids=text.tokenizer.eos_ids,
        )
        for chunk in chunks
    ]
    return requests, sum(chunk.tokens for chunk in chunks)


def grid_for(spec: EngineSpec, cores: int, *, on_cpu: bool, quick: bool, room_tokens: int) -> Grid:
    """The grid for this engine and machine; `room_tokens` is the largest chunk that fits the window."""
    threads = [None, *(n for n in ((1, cores * 2) if quick else (1, cores // 2, cores * 2)) if n >= 1)]
    slots = [spec.slots, *(n for n in ((4,) if quick else (1, 2, 4, 8, 32)) if n != spec.slots)]
    chunks = [n for n in ((1000, 500) if quick else (1000, 500, 2000, 4000)) if n <= room_tokens] or [room_tokens]
    return Grid(
        threads=list(dict.fromkeys(threads)) if on_cpu and cores > 1 else [None],
        batch_size=slots,
        quantization=[spec.quantization] if quick else list(dict.fromkeys([spec.quantization, "fp16", "int8", "int4"])),
        chunk_tokens=chunks,
    )


def as_config(model: str, settings: Settings) -> dict[str, Any]:
    """The best settings as sections of config.yaml."""
    optimization = {
        "threads": settings.threads, "batch_size": settings.batch_size, "quantization": settings.quantization,
    }  # fmt: skip
    return {
        "llm": {
            "model": model,
            "chunk_tokens": settings.chunk_tokens,
            "optimization": {name: value for name, value in optimization.items() if value is not None},
        }
    }
