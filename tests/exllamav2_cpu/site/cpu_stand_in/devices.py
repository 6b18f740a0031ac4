"""The GPUs that are not there: how many, how much memory, what lies in it, and what goes wrong at which step.

The environment says:
    DOCMILL_TEST_GPUS                how many (1); CUDA_VISIBLE_DEVICES chooses among them
    DOCMILL_TEST_VRAM_BYTES          memory of each (24 GiB), or a comma-separated list, one for each
    DOCMILL_TEST_OOM_AT_STEP         out of memory at this forward pass, counted from 1 since the model was loaded
    DOCMILL_TEST_CUDA_ERROR_AT_STEP  the same, with an illegal memory access
    DOCMILL_TEST_FAULT_ONCE          a path: the fault happens only where this file is not, and makes it
GPUs are read once, at the first question; faults at every step.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import torch
from torch.multiprocessing.reductions import StorageWeakRef

_GIB = 1 << 30


class Gpu:
    """One fake GPU. `number` is the machine's own, whatever CUDA_VISIBLE_DEVICES makes of it.

    What is allocated on it by name is counted; the results of arithmetic are not.
    """

    def __init__(self, number: int, total_bytes: int) -> None:
        self.number, self.total_bytes, self.peak_bytes = number, total_bytes, 0
        self._held: dict[int, tuple[StorageWeakRef, int]] = {}

    @property
    def allocated_bytes(self) -> int:
        """Bytes of what lies on it now."""
        self._held = {key: held for key, held in self._held.items() if not held[0].expired()}
        return sum(nbytes for _, nbytes in self._held.values())

    def holds(self, tensor: torch.Tensor) -> bool:
        """Whether this tensor's memory was allocated here."""
        held = self._held.get(tensor.untyped_storage()._cdata)
        return held is not None and not held[0].expired()

    def take(self, tensor: torch.Tensor) -> None:
        """Count a new tensor's memory. Raises torch.OutOfMemoryError when it does not fit."""
        storage = tensor.untyped_storage()
        allocated = self.allocated_bytes
        if allocated + storage.nbytes() > self.total_bytes:
            raise torch.OutOfMemoryError(
                f"CUDA out of memory. Tried to allocate {storage.nbytes()} bytes. GPU {self.number} has a total "
                f"capacity of {self.total_bytes} bytes of which {self.total_bytes - allocated} bytes are free. "
                "(CPU stand-in)"
            )
        reference = StorageWeakRef(storage)
        self._held[reference.cdata] = (reference, storage.nbytes())
        self.peak_bytes = max(self.peak_bytes, allocated + storage.nbytes())


@cache
def gpus() -> list[Gpu]:
    """The GPUs this process may use, in the order it numbers them."""
    count = int(os.environ.get("DOCMILL_TEST_GPUS", "1"))
    sizes = [int(size) for size in os.environ.get("DOCMILL_TEST_VRAM_BYTES", str(24 * _GIB)).split(",")]
    everyone = [Gpu(number, sizes[min(number, len(sizes) - 1)]) for number in range(count)]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return everyone
    return [everyone[int(number)] for number in visible.split(",") if number.strip().isdecimal()]


class _Steps:
    forward_passes = 0


def model_is_loading() -> None:
    """Weights are read: the next forward pass is the first."""
    _Steps.forward_passes = 0


def forward_pass_begins() -> None:
    """Count a forward pass. Raises the fault that the environment has put there."""
    _Steps.forward_passes += 1
    if _is_time_for("DOCMILL_TEST_OOM_AT_STEP"):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. (CPU stand-in)")
    if _is_time_for("DOCMILL_TEST_CUDA_ERROR_AT_STEP"):
        raise RuntimeError("CUDA error: an illegal memory access was encountered (CPU stand-in)")


def _is_time_for(variable: str) -> bool:
    if os.environ.get(variable) != str(_Steps.forward_passes):
        return False
    once = os.environ.get("DOCMILL_TEST_FAULT_ONCE")
    if once is None:
        return True
    try:
        Path(once).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
