"""The NVIDIA GPUs that this process may use, as the driver reports them (nvidia-ml-py), without CUDA or torch."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from docmill.errors import DocmillError


class NoGpu(DocmillError):
    """No GPU is available. The message says why."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU. `index` is the driver's number; `free_bytes` was free when the GPU was read."""

    index: int
    uuid: str
    name: str
    total_bytes: int
    free_bytes: int


def read_gpus() -> list[Gpu]:
    """The GPUs that CUDA_VISIBLE_DEVICES selects, in its order. Raises NoGpu."""
    with _driver() as nvml:
        found = [_read(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]
    gpus = visible(found, os.environ.get("CUDA_VISIBLE_DEVICES"))
    if not gpus:
        raise NoGpu(f"CUDA_VISIBLE_DEVICES selects none of the {len(found)} GPUs of this machine")
    return gpus


def driver_version() -> str | None:
    """The version of the NVIDIA driver; None without a driver or nvidia-ml-py."""
    with suppress(NoGpu), _driver() as nvml, suppress(nvml.NVMLError):
        return str(nvml.nvmlSystemGetDriverVersion())
    return None


def visible(gpus: Iterable[Gpu], wanted: str | None) -> list[Gpu]:
    """The GPUs that a value of CUDA_VISIBLE_DEVICES selects by index or UUID.

    As in CUDA, an unknown entry ends the list. CUDA's indices equal the driver's if CUDA_DEVICE_ORDER is PCI_BUS_ID;
    UUIDs are always unambiguous.
    """
    gpus = list(gpus)
    if wanted is None:
        return gpus
    chosen: list[Gpu] = []
    for name in (part.strip() for part in wanted.split(",")):
        match = [gpu for gpu in gpus if name and (name == str(gpu.index) or gpu.uuid.startswith(name))]
        if len(match) != 1:
            break
        chosen += match
    return chosen


@contextmanager
def _driver() -> Iterator[Any]:
    """The module pynvml, connected to the driver within the block. Raises NoGpu."""
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        raise NoGpu("GPUs cannot be detected without nvidia-ml-py (pip install nvidia-ml-py)") from None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        raise NoGpu(f"this machine has no NVIDIA GPU or driver ({error})") from None
    try:
        yield nvml
    finally:
        nvml.nvmlShutdown()


def _read(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    return Gpu(index, nvml.nvmlDeviceGetUUID(handle), nvml.nvmlDeviceGetName(handle), memory.total, memory.free)
