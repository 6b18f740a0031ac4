"""How a catalogue model would lie on a machine: where, in which window, with which cache type, how many jobs at once.

Computed from published dimensions, by the same arithmetic that the engines use (docmill.sizing.gpu_plan and
docmill.worker.engines).
It counts with all the memory that the machine has, not with what is free at the moment.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeVar

from docmill.catalogue.model_entry import QUANTIZATIONS, Entry, PyPISource
from docmill.engine_table import engine_info
from docmill.insight.machine import Machine
from docmill.sizing.catalogue_dimensions import dimensions_of, shape_of
from docmill.sizing.cpu_kv_cache import KV_SHARE
from docmill.sizing.gpu_memory import CacheType
from docmill.sizing.gpu_plan import plan_only

GPU_SLOTS, CPU_SLOTS = 16, 8  # wanted; on a CPU more at once gain nothing
_GPU_THREADS = 8  # more do not sample faster
_SHORTEST_WINDOW, _SHORT_WINDOW = 2048, 4096
_SYSTEM_BYTES, _SYSTEM_SHARE = 3 << 29, 0.15  # what the system and other programs keep of the memory
_GGUF_BITS = QUANTIZATIONS["Q4_K_M"]
_KV_BYTES = {CacheType.FP16: 2.0, CacheType.Q8: 34 / 32, CacheType.Q4: 18 / 32}  # a number, on a CPU
# Where the catalogue has no EXL2 conversion: GPTQ ones, 4 bits in groups of 128, which exllamav2 loads as well.
_GPTQ = {"llama-2-13b-chat": "TheBloke/Llama-2-13B-chat-GPTQ"}
_GPTQ_BITS = 4.25


class Place(StrEnum):
    """Where a model's weights and cache lie."""

    GPU = "GPU"
    MEMORY = "memory"


_ENOUGH = {Place.GPU: 4, Place.MEMORY: 2}  # jobs at once for which neither cache nor window is made smaller


@dataclass(frozen=True, slots=True)
class Fit:
    """`slots` jobs of a full `window` run at once; 0: it does not fit, and `missing_bytes` are lacking for one.

    `needed_bytes` is what weights, cache and the engine's own take together. `gpus` is over how many the model is
    laid. `model` is its name in config.yaml once `pull` has been run.
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
        """Enough jobs at once, each of the whole window, with a cache that costs next to nothing."""
        is_light = self.cache_type is not CacheType.Q4
        return is_light and self.window >= window and self.slots >= _ENOUGH[self.place]

    @property
    def missing_bytes(self) -> int:
        """What is lacking for one job of the window."""
        return 0 if self.fits else max(0, self.needed_bytes - self.available_bytes)


class _Slotted(Protocol):
    @property
    def slots(self) -> int: ...


_HasSlots = TypeVar("_HasSlots", bound=_Slotted)


@dataclass(frozen=True, slots=True)
class _Room:
    """What the computer's memory has room for."""

    window: int
    cache_type: CacheType
    slots: int


def fit(entry: Entry, machine: Machine, longest_window: int) -> Fit:
    """The best place for a model: on the GPUs where it has room there, in memory else. Windows in tokens."""
    on_gpus = list(_on_gpus(entry, machine, longest_window))
    in_memory = _in_memory_best(entry, machine, longest_window)
    window = min(entry.context_window, longest_window)
    best = next((option for option in on_gpus if option.is_roomy(window)), None)
    best = best or next((option for option in (*on_gpus, in_memory) if option.fits), None)
    return best or (on_gpus or [in_memory])[0]


def _on_gpus(entry: Entry, machine: Machine, longest_window: int) -> Iterator[Fit]:
    """On the largest GPU alone, then laid over all of them."""
    sizes = sorted((gpu.total_bytes for gpu in machine.gpus), reverse=True)
    bits, engine, model, pull = _conversion(entry)
    shape = shape_of(entry, bits)
    for vram in dict.fromkeys((tuple(sizes[:1]), tuple(sizes))):
        if not vram:
            continue
        plan = _best(
            (
                plan_only(shape, vram, window, cache, _wanted(engine, window))
                for window, cache in _settings(entry.context_window, longest_window, _cache_types(engine))
            ),
            _ENOUGH[Place.GPU],
        )
        yield Fit(
            place=Place.GPU,
            engine=engine,
            model=model,
            pull=pull,
            bits=bits,
            window=plan.window,
            cache_type=plan.cache_type,
            slots=plan.slots,
            threads=min(_GPU_THREADS, machine.cpu.engine_threads),
            weights_bytes=plan.weights_bytes,
            needed_bytes=sum(device.used_bytes for device in plan.devices),
            available_bytes=sum(vram),
            download_bytes=plan.weights_bytes + plan.embedding_bytes if engine == "exllamav2" else _gguf_bytes(entry),
            gpus=len(plan.devices),
        )


def _wanted(engine: str, window: int) -> int:
    shared_tokens = engine_info(engine).shared_kv_tokens
    return GPU_SLOTS if shared_tokens is None else max(1, min(GPU_SLOTS, shared_tokens // window))


def _cache_types(engine: str) -> tuple[CacheType, ...]:
    return tuple(CacheType.from_quantization(precision) for precision in engine_info(engine).kv_precisions)


def _conversion(entry: Entry) -> tuple[float, str, str, str]:
    """What to load on a GPU: bits a weight, engine, name in config.yaml, how to pull it."""
    if "exllamav2" in entry.engines and entry.exl2 is not None:
        return _bits(entry.exl2.revision), "exllamav2", entry.name, f"docmill models pull {entry.name} --exl2"
    if entry.name in _GPTQ:
        repo = _GPTQ[entry.name]
        return _GPTQ_BITS, "exllamav2", repo, f"docmill models pull hf:{repo}"
    return 8 * _gguf_bytes(entry) / entry.parameter_count, "llamacpp", entry.name, f"docmill models pull {entry.name}"


def _gguf_bytes(entry: Entry) -> int:
    return entry.source.size_bytes if isinstance(entry.source, PyPISource) else entry.computed_sizes["Q4_K_M"]


def _bits(revision: str | None) -> float:
    """`4_25` and `4.0bpw` are how EXL2 branches are called."""
    found = re.match(r"(\d+)[._](\d+)", revision or "")
    return float(f"{found[1]}.{found[2]}") if found else QUANTIZATIONS["EXL2 4.65"]


def _in_memory_best(entry: Entry, machine: Machine, longest_window: int) -> Fit:
    """By OpenVINO where docmill would choose it and its F16 weights fit, by llama.cpp at 4 bits else."""
    f16_bytes = 2 * entry.parameter_count
    if "openvino" in entry.engines and f16_bytes <= engine_info("openvino").f16_weights_bytes_max:
        found = _in_memory(entry, machine, longest_window, "openvino", f16_bytes)
        if found.fits:
            return found
    return _in_memory(entry, machine, longest_window, "llamacpp", _gguf_bytes(entry))


def _in_memory(entry: Entry, machine: Machine, longest_window: int, engine: str, weights_bytes: int) -> Fit:
    total = machine.memory.usable_bytes
    available = max(0, total - max(_SYSTEM_BYTES, int(total * _SYSTEM_SHARE)))
    values = dimensions_of(entry).kv_values
    most_tokens = engine_info(engine).shared_kv_tokens or total
    budget = max(0, available - weights_bytes) * KV_SHARE
    room = _best(
        (
            _Room(window, cache, min(CPU_SLOTS, int(min(most_tokens, budget / (values * _KV_BYTES[cache]))) // window))
            for window, cache in _settings(entry.context_window, longest_window, _cache_types(engine))
        ),
        _ENOUGH[Place.MEMORY],
    )
    cache_bytes = int(max(1, room.slots) * room.window * values * _KV_BYTES[room.cache_type])
    return Fit(
        place=Place.MEMORY,
        engine=engine,
        model=entry.name,
        pull=f"docmill models pull {entry.name}",
        bits=8 * weights_bytes / entry.parameter_count,
        window=room.window,
        cache_type=room.cache_type,
        slots=room.slots,
        threads=machine.cpu.engine_threads,
        weights_bytes=weights_bytes,
        needed_bytes=weights_bytes + (cache_bytes if room.slots else int(cache_bytes / KV_SHARE)),
        available_bytes=available,
        download_bytes=_gguf_bytes(entry),
    )


def _settings(model_window: int, longest: int, caches: tuple[CacheType, ...]) -> Iterator[tuple[int, CacheType]]:
    """Windows and cache types, the most wanted first: 8 bits cost least, then half of a long window, then 4 bits."""
    windows = [min(model_window, longest)]
    while windows[-1] // 2 >= _SHORTEST_WINDOW:
        windows.append(windows[-1] // 2)
    light = tuple(cache for cache in caches if cache in (CacheType.FP16, CacheType.Q8))
    heavy = tuple(cache for cache in caches if cache not in light)
    short = [window for window in windows[1:] if window < _SHORT_WINDOW]
    for some in ([window for window in windows if window not in short], short):
        for kinds in (light, heavy):
            yield from ((window, cache) for window in some for cache in kinds)


def _best(settings: Iterable[_HasSlots], enough: int) -> _HasSlots:
    """The first with enough jobs at once, else the first with the most."""
    best: _HasSlots | None = None
    for setting in settings:
        if setting.slots >= enough:
            return setting
        best = setting if best is None or setting.slots > best.slots else best
    assert best is not None  # noqa: S101 - every model has a window
    return best
