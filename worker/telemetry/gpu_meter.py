"""What this process' GPUs do and draw, from the driver (nvidia-ml-py). What a card does not tell is None.

The energy counter is the board's own, in GPUs since Volta; it and the power are those of the whole board, whoever
uses it, and so is the memory.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

from docmill.sizing.gpu_devices import NoGpu, read_gpus

log = logging.getLogger(__name__)


class GpuMeter:
    """Open handles on some GPUs: a reading takes microseconds to milliseconds, not the driver's start each time."""

    def __init__(self, nvml: Any, handles: Sequence[Any]) -> None:
        self._nvml = nvml
        self._handles = handles

    def energy_j(self) -> float | None:
        """Joules that all of them have drawn since the driver was loaded."""
        return self._sum(lambda gpu: self._nvml.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1000)

    def power_w(self) -> float | None:
        """Watts that all of them draw now."""
        return self._sum(lambda gpu: self._nvml.nvmlDeviceGetPowerUsage(gpu) / 1000)

    def used_bytes(self) -> int | None:
        """Their memory in use."""
        used = self._sum(lambda gpu: self._nvml.nvmlDeviceGetMemoryInfo(gpu).used)
        return None if used is None else int(used)

    def busy_percent(self) -> float | None:
        """Percent of the last moments in which a kernel ran, the mean of all of them."""
        total = self._sum(lambda gpu: self._nvml.nvmlDeviceGetUtilizationRates(gpu).gpu)
        return None if total is None else total / len(self._handles)

    def _sum(self, read: Callable[[Any], float]) -> float | None:
        try:
            return float(sum(read(gpu) for gpu in self._handles))
        except self._nvml.NVMLError:
            return None


def open_gpu_meter() -> GpuMeter | None:
    """A meter on the GPUs that CUDA_VISIBLE_DEVICES leaves; None where they cannot be asked."""
    try:
        gpus = read_gpus()
        nvml: Any = importlib.import_module("pynvml")
        nvml.nvmlInit()
    except NoGpu as error:
        log.info("GPUs are not measured: %s", error)
        return None
    return GpuMeter(nvml, [nvml.nvmlDeviceGetHandleByIndex(gpu.index) for gpu in gpus])
