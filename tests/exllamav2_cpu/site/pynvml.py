"""Stands in for nvidia-ml-py: the fake GPUs of the stand-in, as a driver would name them."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace

_GIB = 1 << 30


class NVMLError(Exception):
    """As in the real one."""


def nvmlInit() -> None:  # noqa: N802
    if os.environ.get("DOCMILL_TEST_GPUS") == "0":
        raise NVMLError("Driver Not Loaded")


def nvmlShutdown() -> None:  # noqa: N802
    """Nothing to shut down."""


def nvmlSystemGetDriverVersion() -> str:  # noqa: N802
    return "570.00"


def nvmlDeviceGetCount() -> int:  # noqa: N802
    return int(os.environ.get("DOCMILL_TEST_GPUS", "1"))


def nvmlDeviceGetHandleByIndex(index: int) -> int:  # noqa: N802
    return index


def nvmlDeviceGetUUID(handle: int) -> str:  # noqa: N802
    return str(handle)  # the stand-in's torch knows its devices by number only


def nvmlDeviceGetName(handle: int) -> str:  # noqa: N802
    return f"Stand-in {handle}"


def nvmlDeviceGetMemoryInfo(handle: int) -> SimpleNamespace:  # noqa: N802
    sizes = [int(size) for size in os.environ.get("DOCMILL_TEST_VRAM_BYTES", str(24 * _GIB)).split(",")]
    total = sizes[min(handle, len(sizes) - 1)]
    return SimpleNamespace(total=total, free=total, used=_GIB)


def nvmlDeviceGetUtilizationRates(handle: int) -> SimpleNamespace:  # noqa: N802
    return SimpleNamespace(gpu=50, memory=10)


def nvmlDeviceGetPowerUsage(handle: int) -> int:  # noqa: N802
    return round(1000 * _watts(handle))


def nvmlDeviceGetTotalEnergyConsumption(handle: int) -> int:  # noqa: N802
    return round(1000 * _watts(handle) * time.monotonic())


def _watts(handle: int) -> float:
    """What the board draws all the time; one that was not given a power does not tell, as older boards."""
    watts = [float(part) for part in os.environ.get("DOCMILL_TEST_POWER_W", "").split(",") if part]
    if not watts:
        raise NVMLError("Not Supported")
    return watts[min(handle, len(watts) - 1)]
