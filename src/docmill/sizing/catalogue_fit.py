"""How a catalogue model fits a machine: on GPUs or in memory, with which window and cache type, how many jobs at once.

Computed from published dimensions by the same arithmetic that the engines use. It counts all the memory that the
machine has, not what is free at the moment.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from docmill.catalogue.model_entry import QUANTIZATIONS, CatalogueEntry, PyPISource
from docmill.engine_table import engine_info
from docmill.settings.defaults import DEFAULT_SLOTS
from docmill.sizing.cpu_kv_cache import KV_SHARE
from docmill.sizing.gpu_memory import CacheType
from docmill.sizing.gpu_plan import plan_only
from docmill.sizing.machine import Machine
from docmill.sizing.model_memory import openvino_can_run
from docmill.sizing.model_shape import computed_shape

_CPU_SLOTS = 8  # a CPU gains nothing from more jobs at once
_GPU_THREADS = 8  # more threads do not make sampling faster
_SHORTEST_WINDOW, _SHORT_WINDOW = 2048, 4096
_SYSTEM_BYTES, _SYSTEM_SHARE = 3 << 29, 0.15  # memory left to the system and other programs, whichever is more
_KV_BYTES = {CacheType.FP16: 2.0, CacheType.Q8: 34 / 32, CacheType.Q4: 18 / 32}  # per element, llama.cpp and OpenVINO
_GPTQ_BITS = 4.25  # 4 bits in groups of 128


class Place(StrEnum):
    """Where a model's weights and cache are kept."""

    GPU = "GPU"
    MEMORY = "memory"


_ENOUGH = {Place.GPU: 4, Place.MEMORY: 2}  # jobs at once that make a smaller cache type or window unnecessary


@dataclass(frozen=True, slots=True)
class Fit:
    """`slots` jobs of a full `window` run at once; with 0 the model does not fit.

    `needed_bytes` is what weights, cache and engine need together, `gpus` the number of GPUs that share the model.
    `model` is its name in config.yaml after the command `pull` was run.
    """

    place: Place
    engine: str
    model: str
    pull: str
    bits: float
    window: int
    cache_type: CacheType
    slots: int
    threads: int
    weights_bytes: int
    needed_bytes: int
    available_bytes: int
    download_bytes: int
    gpus: int = 0

    @property
    def fits(self) -> bool:
        """At least one job of a full window fits."""
        return self.slots > 0

    def is_roomy(self, window: int) -> bool:
        """Several jobs of the whole window run at once, with a cache type that costs almost no quality."""
        is_light = self.cache_type is not CacheType.Q4
        return is_light and self.window >= window and self.slots >= _ENOUGH[self.place]

    @property
    def missing_bytes(self) -> int:
        """The memory that one job of the window lacks; 0 if the model fits."""
        return 0 if self.fits else max(0, self.needed_bytes - self.available_bytes)


def fit(entry: CatalogueEntry, machine: Machine, longest_window: int) -> Fit:
    """The best way to run a model: on GPUs if it fits there, otherwise in memory. Windows in tokens."""
    on_gpus = list(_on_gpus(entry, machine, longest_window))
    in_memory = _in_memory(entry, machine, longest_window)
    window = min(entry.context_window, longest_window)
    best = next((option for option in on_gpus if option.is_roomy(window)), None)
    best = best or next((option for option in (*on_gpus, in_memory) if option.fits), None)
    return best or (on_gpus or [in_memory])[0]


def _on_gpus(entry: CatalogueEntry, machine: Machine, longest_window: int) -> Iterator[Fit]:
    """The best fit on the largest GPU, then the best one on all GPUs together."""
    sizes = sorted((gpu.total_bytes for gpu in machine.gpus), reverse=True)
    for vram in dict.fromkeys((tuple(sizes[:1]), tuple(sizes))):
        if vram:
            yield _best(_gpu_fits(entry, machine, longest_window, vram))


def _gpu_fits(entry: CatalogueEntry, machine: Machine, longest_window: int, vram: tuple[int, ...]) -> Iterator[Fit]:
    bits, engine, model, pull = _conversion(entry)
    shape = computed_shape(entry, bits)
    shared_tokens = engine_info(engine).shared_kv_tokens
    for window, cache_type in _windows_and_caches(entry.context_window, longest_window, engine):
        wanted = DEFAULT_SLOTS if shared_tokens is None else min(DEFAULT_SLOTS, shared_tokens // window)
        plan = plan_only(shape, vram, window, cache_type, max(1, wanted))
        yield Fit(
            place=Place.GPU,
            engine=engine,
            model=model,
            pull=pull,
            bits=bits,
            window=plan.window,
            cache_type=cache_type,
            slots=plan.slots,
            threads=min(_GPU_THREADS, machine.cpu.engine_threads),
            weights_bytes=plan.weights_bytes,
            needed_bytes=sum(device.used_bytes for device in plan.devices),
            available_bytes=sum(vram),
            download_bytes=plan.weights_bytes + plan.embedding_bytes if engine == "exllamav2" else _gguf_bytes(entry),
            gpus=len(plan.devices),
        )


def _conversion(entry: CatalogueEntry) -> tuple[float, str, str, str]:
    """What to load on a GPU: bits per weight, engine, name in config.yaml, command that downloads it."""
    if "exllamav2" in entry.engines and entry.exl2 is not None:
        return _exl2_bits(entry.exl2.revision), "exllamav2", entry.name, f"docmill models pull {entry.name} --exl2"
    if entry.gptq is not None:
        return _GPTQ_BITS, "exllamav2", entry.gptq.repo, f"docmill models pull {entry.gptq.reference}"
    return 8 * _gguf_bytes(entry) / entry.parameter_count, "llamacpp", entry.name, f"docmill models pull {entry.name}"


def _gguf_bytes(entry: CatalogueEntry) -> int:
    return entry.source.size_bytes if isinstance(entry.source, PyPISource) else entry.computed_sizes["Q4_K_M"]


def _exl2_bits(revision: str | None) -> float:
    """EXL2 branches are named after their bits: `4_25`, `4.0bpw`."""
    found = re.match(r"(\d+)[._](\d+)", revision or "")
    return float(f"{found[1]}.{found[2]}") if found else QUANTIZATIONS["EXL2 4.65"]


def _in_memory(entry: CatalogueEntry, machine: Machine, longest_window: int) -> Fit:
    """With OpenVINO if docmill would choose it and its F16 weights fit, otherwise with llama.cpp at 4 bits."""
    if openvino_can_run(entry):
        found = _best(_memory_fits(entry, machine, longest_window, "openvino", entry.computed_sizes["fp16"]))
        if found.fits:
            return found
    return _best(_memory_fits(entry, machine, longest_window, "llamacpp", _gguf_bytes(entry)))


def _memory_fits(
    entry: CatalogueEntry, machine: Machine, longest_window: int, engine: str, weights_bytes: int
) -> Iterator[Fit]:
    total = machine.memory.usable_bytes
    available = max(0, total - max(_SYSTEM_BYTES, int(total * _SYSTEM_SHARE)))
    budget = max(0, available - weights_bytes) * KV_SHARE
    most_tokens = engine_info(engine).shared_kv_tokens or total
    for window, cache_type in _windows_and_caches(entry.context_window, longest_window, engine):
        bytes_per_token = entry.dimensions.kv_values * _KV_BYTES[cache_type]
        slots = min(_CPU_SLOTS, min(most_tokens, int(budget / bytes_per_token)) // window)
        cache_bytes = int(max(1, slots) * window * bytes_per_token)
        yield Fit(
            place=Place.MEMORY,
            engine=engine,
            model=entry.name,
            pull=f"docmill models pull {entry.name}",
            bits=8 * weights_bytes / entry.parameter_count,
            window=window,
            cache_type=cache_type,
            slots=slots,
            threads=machine.cpu.engine_threads,
            weights_bytes=weights_bytes,
            needed_bytes=weights_bytes + (cache_bytes if slots else int(cache_bytes / KV_SHARE)),
            available_bytes=available,
            download_bytes=_gguf_bytes(entry),
        )


def _windows_and_caches(model_window: int, longest: int, engine: str) -> Iterator[tuple[int, CacheType]]:
    """Windows and cache types of this engine in order of preference.

    An 8-bit cache costs the least quality, then half of a long window, then a 4-bit cache, then a short window.
    """
    windows = [min(model_window, longest)]
    while windows[-1] // 2 >= _SHORTEST_WINDOW:
        windows.append(windows[-1] // 2)
    cache_types = [CacheType.from_quantization(precision) for precision in engine_info(engine).kv_precisions]
    light = tuple(cache for cache in cache_types if cache in (CacheType.FP16, CacheType.Q8))
    heavy = tuple(cache for cache in cache_types if cache not in light)
    short = [window for window in windows[1:] if window < _SHORT_WINDOW]
    for lengths in ([window for window in windows if window not in short], short):
        for types in (light, heavy):
            yield from ((window, cache_type) for window in lengths for cache_type in types)


def _best(fits: Iterable[Fit]) -> Fit:
    """The first with enough jobs at once, otherwise the first with the most."""
    seen: list[Fit] = []
    for option in fits:
        if option.slots >= _ENOUGH[option.place]:
            return option
        seen.append(option)
    return max(seen, key=lambda option: option.slots)
