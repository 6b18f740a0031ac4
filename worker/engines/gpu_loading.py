"""Load a model directory on GPUs by its plan, and step down when the plan was too hopeful.

The order of the steps: fewer cache tokens, down to one job of a full window; then smaller cache types, where the
user left the type open. What fits no more is refused with the numbers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from docmill.catalogue.errors import CatalogueError
from docmill.catalogue.local_model import ModelKind
from docmill.sizing.gpu_memory import CacheType
from docmill.sizing.gpu_plan import GpuPlan, plan_gpu
from docmill.sizing.model_shape import ModelShape, read_model_shape
from docmill.worker.engines.base import ModelUnusable
from docmill.worker.engines.paged import PAGE_TOKENS
from docmill.worker.engines.spec import EngineSpec

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CacheSize:
    """One try: the type of keys and values, and how many tokens of them are kept for all jobs together."""

    cache_type: CacheType
    tokens: int


def read_shape(spec: EngineSpec) -> ModelShape:
    """The shape of the spec's model directory. Raises ModelUnusable."""
    if spec.model.kind is not ModelKind.DIRECTORY:
        raise ModelUnusable(
            f"{spec.model.path} is no model directory, which is what {spec.engine} runs; GGUF files run on llamacpp"
        )
    try:
        return read_model_shape(spec.model.path)
    except CatalogueError as error:
        raise ModelUnusable(str(error)) from error


def plan_of(spec: EngineSpec, shape: ModelShape, free_bytes: Sequence[int]) -> GpuPlan:
    """The plan of `docmill plan` for this worker, on GPUs that have so much free."""
    cache_type = CacheType.from_quantization(spec.kv_precision)
    return plan_gpu(shape, free_bytes, spec.window, cache_type, spec.slots)


def refuse_cpu_settings(spec: EngineSpec) -> None:
    """Raise ModelUnusable for settings that an engine on GPUs cannot follow."""
    if spec.cuda_enabled is False:
        raise ModelUnusable(
            f"optimization.cuda_enabled: false cannot be had: {spec.engine} runs on GPUs only; remove it, or use "
            "a GGUF model with --engine llamacpp"
        )
    if isinstance(spec.cuda_layers, int):
        raise ModelUnusable(
            f"optimization.cuda_layers: {spec.cuda_layers} cannot be had: {spec.engine} keeps all layers on GPUs; "
            "write cuda_layers: all, or use a GGUF model with --engine llamacpp"
        )


def load_stepping_down(spec: EngineSpec, plan: GpuPlan, load: Callable[[CacheSize], T | None]) -> tuple[T, CacheSize]:
    """Call `load` with ever smaller caches until it gives something else than None (out of memory).

    Raises ModelUnusable with the plan's numbers when the smallest does not fit either.
    """
    tried: CacheSize | None = None
    for size in _steps(spec, plan):
        loaded = load(size)
        if loaded is not None:
            return loaded, size
        tried = size
    raise ModelUnusable(_too_large(spec, plan, tried))


def _steps(spec: EngineSpec, plan: GpuPlan) -> Iterator[CacheSize]:
    least = -(-plan.window // PAGE_TOKENS) * PAGE_TOKENS
    if "kv_tokens" in spec.options:
        yield CacheSize(plan.cache_type, max(PAGE_TOKENS, int(spec.options["kv_tokens"]) // PAGE_TOKENS * PAGE_TOKENS))
        return
    types = (plan.cache_type, *(plan.cache_type.smaller if spec.quantization is None else ()))
    for cache_type in types:
        tokens = max(plan.cache_tokens, least)
        while tokens > least:
            yield CacheSize(cache_type, tokens)
            tokens = max(least, tokens * 3 // 4 // PAGE_TOKENS * PAGE_TOKENS)
        yield CacheSize(cache_type, least)


def _too_large(spec: EngineSpec, plan: GpuPlan, tried: CacheSize | None) -> str:
    free = " + ".join(f"{device.vram_bytes / 2**30:.2f}" for device in plan.devices)
    last = f", not even with {tried.tokens:,} cache tokens of {tried.cache_type}" if tried else ""
    advice = f"; what would help: {'; '.join(a.sentence for a in plan.advice[:3])}" if plan.advice else ""
    return (
        f"{spec.model.name} does not fit: {plan.weights_bytes / 2**30:.2f} GiB of weights and "
        f"{plan.cache_bytes_per_token:,} bytes for each cache token, {free} GiB free{last}{advice}; "
        "`docmill plan` shows the sums"
    )


def plan_and_reality(plan: GpuPlan, size: CacheSize, allocated_bytes: int) -> str:
    """What the plan said would be allocated against what was, for the log; reserve and activations left out."""
    planned = sum(
        device.weights_bytes + device.scratch_bytes + device.tables_bytes + device.cache_bytes
        for device in plan.devices
    )  # fmt: skip
    if size.tokens != plan.cache_tokens or size.cache_type is not plan.cache_type:
        return (
            f"{allocated_bytes / 2**30:.3f} GiB allocated with {size.tokens:,} cache tokens of {size.cache_type} "
            f"(planned: {plan.cache_tokens:,} of {plan.cache_type})"
        )
    return (
        f"{allocated_bytes / 2**30:.3f} GiB allocated, {planned / 2**30:.3f} planned "
        f"({(allocated_bytes - planned) / max(1, planned):+.1%})"
    )


def eos_ids(directory: Path) -> tuple[int, ...]:
    """Every end-of-text token that generation_config.json or config.json names: a number or a list of them."""
    for name in ("generation_config.json", "config.json"):
        try:
            value: Any = json.loads((directory / name).read_text("utf-8")).get("eos_token_id")
        except (OSError, ValueError, AttributeError):
            continue
        if value is not None:
            return tuple(int(i) for i in (value if isinstance(value, list) else [value]))
    return ()
