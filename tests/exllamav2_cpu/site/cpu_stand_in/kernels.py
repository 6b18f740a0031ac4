"""Loading, norms, rotary embedding and the small things: kernels that an unquantized model needs."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch

from cpu_stand_in.devices import model_is_loading

KERNELS = (
    "count_match",
    "fast_fadd_cpu",
    "head_norm",
    "partial_strings_match",
    "rms_norm",
    "rope_",
    "softcap_",
    "stloader_read",
)

_FP16_MAX = 65504.0


def stloader_read(filename: str, offset: int, size: int, target: torch.Tensor) -> None:
    """Read `size` bytes of a file into a tensor."""
    model_is_loading()
    data = np.fromfile(filename, dtype=np.uint8, count=size, offset=offset)
    if data.nbytes != size:
        raise RuntimeError(f"{filename} ends before byte {offset + size}")
    target.view(-1).view(torch.uint8).copy_(torch.from_numpy(data))


def rms_norm(x: torch.Tensor, w: torch.Tensor, y: torch.Tensor, epsilon: float) -> None:
    """y = x / rms(x) * w over the last dimension; x and y are fp16 or fp32."""
    values = x.float()
    if x.dtype == torch.half:
        values = values.clamp(-_FP16_MAX, _FP16_MAX)
    y.copy_(values * torch.rsqrt(values.square().mean(-1, keepdim=True) + epsilon) * w.float())


def head_norm(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor, y: torch.Tensor, epsilon: float, rms: bool) -> None:
    """Normalize each head by itself. x, y: (..., heads, head_dim), w and the optional b: (heads, head_dim)."""
    values = x.float()
    if not rms:
        values = values - values.mean(-1, keepdim=True)
    normalized = (values * torch.rsqrt(values.square().mean(-1, keepdim=True) + epsilon) * w.float()).half()
    y.copy_(normalized if b.is_meta else normalized + b)


def rope_(
    x: torch.Tensor,
    sin: torch.Tensor,
    cos: torch.Tensor,
    past_len: int,
    num_heads: int,
    head_dim: int,
    offsets: torch.Tensor,
    neox_style: bool,
) -> None:
    """Rotate x (batch, tokens, heads, head_dim) in place; row i of a sequence stands at past_len + offset + i."""
    if x.dtype != torch.half or not (offsets.is_meta or offsets.dtype == torch.int):
        raise RuntimeError("rope_ wants x as fp16 and offsets as int32")
    rows = x.view(x.shape[0], -1, num_heads, head_dim)
    at = torch.arange(rows.shape[1]).unsqueeze(0)
    at = at + past_len if offsets.is_meta else at + max(past_len, 0) + offsets.view(-1, 1)
    size = cos.shape[-1]
    sin_at, cos_at = (table.view(-1, size)[at.clamp(min=0)].unsqueeze(2).float() for table in (sin, cos))
    part = rows[..., :size].float()
    if neox_style:
        turned = torch.cat((-part[..., size // 2 :], part[..., : size // 2]), -1)
    else:
        turned = torch.stack((-part[..., 1::2], part[..., ::2]), -1).flatten(-2)
    rows[..., :size] = (part * cos_at + turned * sin_at).half()


def softcap_(x: torch.Tensor, scale: float) -> None:
    """x = scale * tanh(x / scale), in place."""
    x.copy_(torch.tanh(x.float() / scale) * scale)


def count_match(a: torch.Tensor, b: torch.Tensor, max_a: int) -> int:
    """How many ids at the beginning of a (1, n) and b (1, m) are the same, at most max_a."""
    n = min(max_a, b.shape[1])
    differing = (a[0, :n] != b[0, :n]).nonzero()
    return int(differing[0]) if len(differing) else n


def fast_fadd_cpu(a: torch.Tensor, b: torch.Tensor) -> None:
    """Add b to every row of a, in place."""
    a.view(-1, b.numel()).add_(b.view(1, -1))


def partial_strings_match(text: Any, offsets: Any, strings: Any) -> int:
    """Where the first of the strings that is in the text begins; -2 where the text ends in the beginning of one.

    All are UTF-32 in buffers of bytes; `offsets` (int32, bytes) say where in `strings` each begins and ends.
    """
    haystack, bounds, joined = (np.frombuffer(buffer, dtype=np.uint32).tolist() for buffer in (text, offsets, strings))
    for begin, end in pairwise(bounds):
        needle = joined[begin // 4 : end // 4]
        for at in range(len(haystack)):
            seen = haystack[at : at + len(needle)]
            if seen == needle[: len(seen)]:
                return at if len(seen) == len(needle) else -2
    return -1
