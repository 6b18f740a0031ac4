"""Energy, power, memory and utilization of this process's GPUs, from the driver (nvidia-ml-py).

All figures are those of whole GPUs, including what other processes use. None means that a GPU does not report it;
energy counters exist since Volta.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

from docmill.sizing.gpu_devices import NoGpu, read_gpus

log = logging.getLogger(__name__)


class GpuMeter:
    """Keeps the GPUs' handles open, so that a reading takes at most milliseconds."""

    def __init__(self, nvml: Any, handles: Sequence[Any]) -> None:
        self._nvml = nvml
        self._handles = handles

    def energy_j(self) -> float | None:
        """Joules drawn by all GPUs since the driver was loaded."""
        return self._sum(lambda gpu: self._nvml.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1000)

    def power_w(self) -> float | None:
        """Watts drawn by all GPUs now."""
        return self._sum(lambda gpu: self._nvml.nvmlDeviceGetPowerUsage(gpu) / 1000)

    def used_bytes(self) -> int | None:
        """Memory in use on all GPUs."""
        used = self._sum(lambda gpu: self._nvml.nvmlDeviceGetMemoryInfo(gpu).used)
        return None if used is None else int(used)

    def busy_percent(self) -> float | None:
        """Mean utilization: percent of the last sample period in which a kernel ran."""
        total = self._sum(lambda gpu: self._nvml.nvmlDeviceGetUtilizationRates(gpu).gpu)
        return None if total is None else total / len(self._handles)

    def _sum(self, read: Callable[[Any], float]) -> float | None:
        try:
            return float(sum(read(gpu) for gpu in self._handles))
        except self._nvml.NVMLError:
            return None


def open_gpu_meter() -> GpuMeter | None:
    """A meter for the GPUs in CUDA_VISIBLE_DEVICES, None if the driver does not find any."""
    try:
        gpus = read_gpus()
        nvml: Any = importlib.import_module("pynvml")
        nvml.nvmlInit()
    except NoGpu as error:
        log.info("GPUs are not measured: %s", error)
        return None
    return GpuMeter(nvml, [nvml.nvmlDeviceGetHandleByIndex(gpu.index) for gpu in gpus])
