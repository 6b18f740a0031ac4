"""How to load a model on GPUs, and what to change if it does not fit. Pure functions; see gpu_memory.py."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from docmill.settings.defaults import DEFAULT_SLOTS
from docmill.sizing.gpu_memory import PAGE_TOKENS, CacheType, DeviceUse, GpuLayout
from docmill.sizing.model_shape import ModelShape

CHUNK_TOKENS = (2048, 1024, 512)  # max_input_len: prompt tokens per forward pass, in order of preference
_BITS = (8.0, 6.0, 5.0, 4.65, 4.0, 3.5, 3.0, 2.5)  # bits per weight at which EXL2 models are published
_SHORTEST_WINDOW = 2048  # tokens; a shorter window is never suggested
_SMALL_WINDOW = 4096


class Change(StrEnum):
    """What can be changed if too few jobs fit, the cheapest change first."""

    CACHE_TYPE = "cache type"
    WINDOW = "window"
    BOTH = "cache type and window"
    SPLIT = "split"
    WEIGHTS = "weights"
    GPU = "gpu"


@dataclass(frozen=True, slots=True)
class GpuPlan:
    """How a model would be loaded.

    `weights_bytes` are on GPUs, `embedding_bytes` in the computer's memory. `cache_tokens` is the size of the cache to
    allocate, a multiple of 256: a full window for each of `slots` jobs, and one more window whose pages keep shared
    prompts. `most_cache_tokens` is the largest cache that fits. `max_input_len` is the number of prompt tokens that
    one forward pass processes.
    """

    window: int
    cache_type: CacheType
    weights_bytes: int
    embedding_bytes: int
    cache_bytes_per_token: int
    unpacked_bytes_per_token: int
    most_cache_tokens: int
    cache_tokens: int
    slots: int
    slots_wanted: int
    max_input_len: int
    devices: tuple[DeviceUse, ...]
    advice: tuple[Advice, ...] = ()

    @property
    def fits(self) -> bool:
        """At least one job of a full window fits."""
        return self.slots > 0

    @property
    def missing_bytes(self) -> int:
        """The memory that one job lacks; 0 if the model fits."""
        return 0 if self.fits else -min(0, min(device.free_bytes for device in self.devices))


@dataclass(frozen=True, slots=True)
class Advice:
    """One change with everything else unchanged, and the plan that results (without advice of its own)."""

    change: Change
    sentence: str
    plan: GpuPlan


def plan_gpu(
    shape: ModelShape,
    vram_bytes: Sequence[int],
    window: int,
    cache_type: CacheType = CacheType.FP16,
    slots_wanted: int = DEFAULT_SLOTS,
) -> GpuPlan:
    """Plan one model on one GPU, or split by layers over several GPUs in the given order.

    `vram_bytes` is the free memory of each GPU, `window` the longest prompt and output of a job together (capped at
    the model's own window), `slots_wanted` the number of jobs that should run at once. Raises ValueError without a
    GPU.
    """
    plan = plan_only(shape, tuple(vram_bytes), window, cache_type, slots_wanted)
    if plan.slots >= slots_wanted:
        return plan
    return replace(plan, advice=tuple(_advise(shape, plan, tuple(vram_bytes))))


def plan_only(
    shape: ModelShape, vram_bytes: tuple[int, ...], window: int, cache_type: CacheType, slots_wanted: int
) -> GpuPlan:
    """Like `plan_gpu`, but without advice, which takes many plans. The prompt chunk is the largest that fits a job."""
    if not vram_bytes:
        raise ValueError("a plan needs a GPU")
    window = min(window, shape.max_position)
    job_tokens = _whole_pages(window)
    for chunk in CHUNK_TOKENS:
        layout = GpuLayout(shape, vram_bytes, window, cache_type, min(chunk, job_tokens))
        most = layout.most_tokens()
        if most >= job_tokens:
            break
    slots = min(slots_wanted, most // job_tokens)
    tokens = min(most, (slots + 1) * job_tokens) if slots else 0
    return GpuPlan(
        window=window,
        cache_type=cache_type,
        weights_bytes=shape.weights_bytes,
        embedding_bytes=shape.embedding_bytes,
        cache_bytes_per_token=cache_type.bytes_per_token(shape),
        unpacked_bytes_per_token=cache_type.unpacked_bytes(shape),
        most_cache_tokens=most,
        cache_tokens=tokens,
        slots=slots,
        slots_wanted=slots_wanted,
        max_input_len=layout.chunk,
        devices=layout.place(tokens or job_tokens),
    )


def _advise(shape: ModelShape, plan: GpuPlan, vram: tuple[int, ...]) -> Iterator[Advice]:
    """The changes that let more jobs run, the cheapest first."""
    best = plan.slots
    for change, sentence, other in _changes(shape, plan, vram):
        if other.slots <= plan.slots or (change is Change.BOTH and other.slots <= best):
            continue
        best = max(best, other.slots)
        yield Advice(change, f"{sentence}: {other.slots} {'job' if other.slots == 1 else 'jobs'} at once", other)


def _changes(shape: ModelShape, plan: GpuPlan, vram: tuple[int, ...]) -> Iterator[tuple[Change, str, GpuPlan]]:
    window, cache, wanted = plan.window, plan.cache_type, plan.slots_wanted
    for smaller in cache.smaller:
        yield Change.CACHE_TYPE, f"a {smaller} cache", plan_only(shape, vram, window, smaller, wanted)
    other = _shorter_window(shape, plan, vram)
    yield Change.WINDOW, f"a window of {other.window:,} tokens", other
    if cache.smaller:
        smallest = cache.smaller[-1]
        other = _shorter_window(shape, plan_only(shape, vram, window, smallest, wanted), vram)
        yield Change.BOTH, f"a {smallest} cache and a window of {other.window:,} tokens", other
    other = plan_only(shape, (*vram, vram[-1]), window, cache, wanted)
    yield Change.SPLIT, f"split over {len(vram) + 1} GPUs (one more like the last)", other
    bits, other = _fewer_bits(shape, plan, vram)
    what = f"{bits:g} bits per weight" if bits else "a smaller model"
    size = f"{_gib(other.weights_bytes)} instead of {_gib(plan.weights_bytes)}"
    yield Change.WEIGHTS, f"{what} ({size})", other
    if not (plan.fits or other.fits):
        low = plan_only(shape, vram, min(window, _SMALL_WINDOW), CacheType.Q4, wanted)
        other = _smaller_model(shape, low, vram)
        setting = f"a q4 cache and a window of {other.window:,} tokens"
        yield Change.WEIGHTS, f"a model of {_gib(other.weights_bytes)}, {setting}", other
    for jobs in sorted({plan.slots + 1, wanted}):
        needed = _needed(shape, plan, jobs)
        yield Change.GPU, f"one GPU with {_gib(needed)} free", plan_only(shape, (needed,), window, cache, wanted)


def _shorter_window(shape: ModelShape, plan: GpuPlan, vram: tuple[int, ...]) -> GpuPlan:
    """The longest window with which the wanted number of jobs run, or at least one more than now."""
    best = plan
    for target in (plan.slots_wanted, plan.slots + 1):
        low, high = 0, plan.window // PAGE_TOKENS
        while low < high:
            middle = -(-(low + high) // 2)
            other = plan_only(shape, vram, middle * PAGE_TOKENS, plan.cache_type, plan.slots_wanted)
            if other.slots >= target:
                low, best = middle, other
            else:
                high = middle - 1
        if low * PAGE_TOKENS >= _SHORTEST_WINDOW:
            return best
    return plan


def _fewer_bits(shape: ModelShape, plan: GpuPlan, vram: tuple[int, ...]) -> tuple[float, GpuPlan]:
    """The most bits per weight with which the wanted number of jobs run, or at least one more than now.

    Returns 0 bits and the plan of a smaller model if no quantization of this one fits.
    """
    offers: list[tuple[float, GpuPlan]] = []
    for bits in (bits for bits in _BITS if bits < shape.bits_per_weight):
        lighter = _scaled(shape, bits / shape.bits_per_weight)
        offers.append((bits, plan_only(lighter, vram, plan.window, plan.cache_type, plan.slots_wanted)))
    for target in (plan.slots_wanted, plan.slots + 1):
        for bits, other in offers:
            if other.slots >= target:
                return bits, other
    return 0.0, _smaller_model(shape, plan, vram)


def _smaller_model(shape: ModelShape, plan: GpuPlan, vram: tuple[int, ...]) -> GpuPlan:
    """The plan of a model whose weights are small enough for one job to fit, if there can be one."""
    left = max(0.0, 1 - 1.01 * plan.missing_bytes / plan.weights_bytes)
    return plan_only(_scaled(shape, left), vram, plan.window, plan.cache_type, plan.slots_wanted)


def _scaled(shape: ModelShape, factor: float) -> ModelShape:
    return replace(
        shape,
        attention_bytes=tuple(int(size * factor) for size in shape.attention_bytes),
        mlp_bytes=tuple(int(size * factor) for size in shape.mlp_bytes),
        head_bytes=int(shape.head_bytes * factor),
    )


def _needed(shape: ModelShape, plan: GpuPlan, jobs: int) -> int:
    """The memory that one GPU must have free for this number of jobs."""
    job_tokens = _whole_pages(plan.window)
    layout = GpuLayout(shape, (1 << 62,), plan.window, plan.cache_type, min(CHUNK_TOKENS[0], job_tokens))
    return layout.place(jobs * job_tokens)[0].used_bytes


def _whole_pages(tokens: int) -> int:
    return -(-tokens // PAGE_TOKENS) * PAGE_TOKENS


def _gib(size_bytes: int) -> str:
    return f"{math.ceil(size_bytes * 100 / (1 << 30)) / 100:.2f} GiB"
