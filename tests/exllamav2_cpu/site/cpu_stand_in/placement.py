"""`cuda:0` means the CPU: changes to torch and to two modules of exllamav2, made before the rest of it is imported.

Importing names from `exllamav2.compat` and `exllamav2.device` is how the package's other modules get at tensors'
places, and they do it after `ext.py` has imported `exllamav2_ext`. So changing those two is enough there.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from functools import wraps
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.attention.bias  # brings torch._dynamo, which looks at the real torch.cuda
from torch.multiprocessing.reductions import StorageWeakRef

from cpu_stand_in.devices import Gpu, forward_pass_begins, gpus

_matmul = torch.matmul
_as_float: dict[int, tuple[StorageWeakRef, torch.Tensor]] = {}


def install() -> None:
    """Put the fake GPUs in the place of CUDA."""
    if torch.cuda.is_available():
        raise RuntimeError("there is a real GPU here: use the real extension, not the CPU stand-in")
    for name in ("arange", "empty", "full", "ones", "tensor", "zeros"):
        setattr(torch, name, _placing(getattr(torch, name)))
    torch.matmul = _matmul_in_fp32
    _install_cuda()
    sys.modules["exllamav2.compat"].__dict__["safe_move_tensor"] = _move
    device = sys.modules["exllamav2.device"].__dict__
    device["set_device_streams"] = forward_pass_begins  # every forward pass begins with it
    device["global_streams"].update(dict.fromkeys(range(len(gpus()))))  # so that no torch.cuda.Stream is made


def _gpu(device: Any) -> Gpu | None:
    """The GPU that `device` (a string, number or torch.device) names, None for the CPU."""
    kind, _, index = f"cuda:{device}".partition(":") if isinstance(device, int) else str(device).partition(":")
    if kind != "cuda":
        return None
    if int(index or 0) >= len(gpus()):
        raise RuntimeError(f"CUDA error: invalid device ordinal: {device} (CPU stand-in)")
    return gpus()[int(index or 0)]


def _asked_gpu(device: Any) -> Gpu:
    """The GPU of a question put to torch.cuda; None means the first."""
    gpu = _gpu("cuda" if device is None else device)
    if gpu is None:
        raise ValueError(f"Expected a cuda device, but got: {device}")
    return gpu


def _placing(factory: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    @wraps(factory)
    def make(*args: Any, device: Any = None, pin_memory: bool = False, **kwargs: Any) -> torch.Tensor:
        gpu = _gpu(device)
        tensor = factory(*args, device=device if gpu is None else "cpu", **kwargs)
        if gpu is not None:
            gpu.take(tensor)
        return tensor

    return make


def _move(tensor: Any, device: Any, non_blocking: bool = False) -> Any:
    """In the place of `exllamav2.compat.safe_move_tensor`: a copy, as a real move would be."""
    if isinstance(tensor, tuple):
        return tuple(_move(part, device) for part in tensor)
    gpu = _gpu(device)
    if gpu is None or gpu.holds(tensor):
        return tensor
    moved = tensor.clone()
    gpu.take(moved)
    return moved


def _matmul_in_fp32(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """fp16 in, fp32 sums, fp16 out: as on a GPU, and faster here than PyTorch's own fp16 product."""
    if a.dtype != torch.half:
        return _matmul(a, b)
    return _matmul(a.float(), _float(b)).half()


def _float(matrix: torch.Tensor) -> torch.Tensor:
    """The matrix as fp32; weights (what lies on a GPU) are converted once."""
    if not any(gpu.holds(matrix) for gpu in gpus()):
        return matrix.float()
    kept = _as_float.get(matrix.data_ptr())
    if kept is None or kept[0].expired() or kept[1].shape != matrix.shape:
        kept = _as_float[matrix.data_ptr()] = (StorageWeakRef(matrix.untyped_storage()), matrix.float())
    return kept[1]


def _install_cuda() -> None:
    cuda: Any = torch.cuda
    nothing = ("synchronize", "set_stream", "set_device", "empty_cache", "init")
    for name in nothing:
        setattr(cuda, name, lambda *args, **kwargs: None)
    for name in ("device", "stream"):
        setattr(cuda, name, lambda *args, **kwargs: contextlib.nullcontext())
    cuda.is_available = lambda: bool(gpus())
    cuda.device_count = lambda: len(gpus())
    cuda.current_device = lambda: 0
    cuda.get_device_name = lambda device=None: _properties(device).name
    cuda.get_device_capability = lambda device=None: (8, 6)
    cuda.get_device_properties = _properties
    cuda.memory_allocated = lambda device=None: _asked_gpu(device).allocated_bytes
    cuda.memory_reserved = cuda.memory_allocated
    cuda.max_memory_allocated = lambda device=None: _asked_gpu(device).peak_bytes
    cuda.max_memory_reserved = cuda.max_memory_allocated
    cuda.reset_peak_memory_stats = _reset_peak
    cuda.mem_get_info = _free_and_total


def _properties(device: Any = None) -> SimpleNamespace:
    gpu = _asked_gpu(device)
    return SimpleNamespace(name=f"CPU stand-in {gpu.number}", major=8, minor=6, total_memory=gpu.total_bytes)


def _free_and_total(device: Any = None) -> tuple[int, int]:
    gpu = _asked_gpu(device)
    return gpu.total_bytes - gpu.allocated_bytes, gpu.total_bytes


def _reset_peak(device: Any = None) -> None:
    gpu = _asked_gpu(device)
    gpu.peak_bytes = gpu.allocated_bytes
