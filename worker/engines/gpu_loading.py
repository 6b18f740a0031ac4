"""Load a model directory on GPUs as planned, and with a smaller KV cache if the plan does not fit.

First the number of cache tokens is reduced, down to one job of a full window; then smaller cache types are tried,
unless the user chose one. If nothing fits, the error contains the numbers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
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
    """The size of a KV cache: the type of keys and values, and the tokens for all jobs together."""

    cache_type: CacheType
    tokens: int


def read_shape(spec: EngineSpec) -> ModelShape:
    """The shape of the model in its directory. Raises ModelUnusable."""
    if spec.model.kind is not ModelKind.DIRECTORY:
        raise ModelUnusable(
            f"{spec.model.path} is not a model directory, the only format that {spec.engine} runs; "
            "llamacpp runs GGUF files"
        )
    try:
        return read_model_shape(spec.model.path)
    except CatalogueError as error:
        raise ModelUnusable(str(error)) from error


def plan_for_gpus(spec: EngineSpec, shape: ModelShape, torch: Any) -> GpuPlan:
    """What `docmill plan` computes, for the GPUs that torch sees. Raises ModelUnusable."""
    _refuse_cpu_settings(spec)
    devices = torch.cuda.device_count()
    if not devices:
        raise ModelUnusable(f"{spec.engine} needs an NVIDIA GPU, and torch finds none; see docs/gpu.md")
    free_bytes = [torch.cuda.mem_get_info(index)[0] for index in range(devices)]
    cache_type = CacheType.from_quantization(spec.kv_precision)
    return plan_gpu(shape, free_bytes, spec.window, cache_type, spec.slots)


def gpu_split(spec: EngineSpec) -> list[float] | None:
    """The option `gpu_split`: GiB of weights on each GPU."""
    split = spec.options.get("gpu_split")
    return [float(part) for part in split] if split else None


def _refuse_cpu_settings(spec: EngineSpec) -> None:
    """Raise ModelUnusable for settings that an engine on GPUs does not support."""
    if spec.cuda_enabled is False:
        raise ModelUnusable(
            f"optimization.cuda_enabled: false is not supported: {spec.engine} runs on GPUs only; remove it, or use "
            "a GGUF model with --engine llamacpp"
        )
    if isinstance(spec.cuda_layers, int):
        raise ModelUnusable(
            f"optimization.cuda_layers: {spec.cuda_layers} is not supported: {spec.engine} keeps all layers on GPUs; "
            "write cuda_layers: all, or use a GGUF model with --engine llamacpp"
        )


def load_stepping_down(spec: EngineSpec, plan: GpuPlan, load: Callable[[CacheSize], T | None]) -> tuple[T, CacheSize]:
    """Call `load` with smaller and smaller caches until it no longer returns None, which means out of memory.

    Raises ModelUnusable with the plan's numbers if the smallest cache does not fit either.
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
    last = f", even with {tried.tokens:,} cache tokens of {tried.cache_type}" if tried else ""
    advice = f"; what would help: {'; '.join(a.sentence for a in plan.advice[:3])}" if plan.advice else ""
    return (
        f"{spec.model.name} does not fit: {plan.weights_bytes / 2**30:.2f} GiB of weights and "
        f"{plan.cache_bytes_per_token:,} bytes per cache token, {free} GiB free{last}{advice}; "
        "`docmill plan` shows the details"
    )


def plan_and_reality(plan: GpuPlan, size: CacheSize, allocated_bytes: int) -> str:
    """For the log: the planned and the allocated memory, without reserve and activations."""
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
    """The end-of-text tokens in generation_config.json or config.json: a number or a list of numbers."""
    for name in ("generation_config.json", "config.json"):
        try:
            value: Any = json.loads((directory / name).read_text("utf-8")).get("eos_token_id")
        except (OSError, ValueError, AttributeError):
            continue
        if value is not None:
            return tuple(int(i) for i in (value if isinstance(value, list) else [value]))
    return ()
