"""The NVIDIA GPUs that this process may use, from the driver (nvidia-ml-py), without CUDA or torch."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from docmill.worker.engines.base import EngineError


class NoGpu(EngineError):
    """No GPU can be seen. The message says why."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU. `index` is the driver's own count; memory in bytes, `free_bytes` at the moment it was read."""

    index: int
    uuid: str
    name: str
    total_bytes: int
    free_bytes: int


def read_gpus() -> list[Gpu]:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves, in its order. Raises NoGpu."""
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        raise NoGpu("GPUs cannot be read without nvidia-ml-py (pip install nvidia-ml-py)") from None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        raise NoGpu(f"there is no NVIDIA GPU or driver here ({error})") from None
    try:
        found = [_read(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]
    finally:
        nvml.nvmlShutdown()
    gpus = visible(found, os.environ.get("CUDA_VISIBLE_DEVICES"))
    if not gpus:
        raise NoGpu(f"none of the {len(found)} GPUs here is in CUDA_VISIBLE_DEVICES")
    return gpus


def driver_version() -> str | None:
    """The NVIDIA driver's version, None where there is none or it cannot be asked."""
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None
    try:
        return str(nvml.nvmlSystemGetDriverVersion())
    except nvml.NVMLError:
        return None
    finally:
        nvml.nvmlShutdown()


def visible(gpus: Iterable[Gpu], wanted: str | None) -> list[Gpu]:
    """What CUDA_VISIBLE_DEVICES leaves of the GPUs: indices or UUIDs; what follows an unknown one is ignored.

    CUDA counts as the driver does where CUDA_DEVICE_ORDER is PCI_BUS_ID; UUIDs are right in any order.
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


def _read(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    return Gpu(index, nvml.nvmlDeviceGetUUID(handle), nvml.nvmlDeviceGetName(handle), memory.total, memory.free)
