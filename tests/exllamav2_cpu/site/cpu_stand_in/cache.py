"""The cache's kernels: moving pages, and the quantized caches.

Tensors and calls are those of the CUDA kernels, so memory is what it is there, and "6 bits" are 8 for keys and 4 for
values as there. The numbers are not: here each 32 values are rounded with one scale, without the Hadamard rotation
that precedes it on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch

KERNELS = ("cache_rotate", "fp16_to_q_kv", "q_to_fp16_kv")

_BITS = {4: (4, 4), 6: (8, 4), 8: (8, 8)}  # of keys and of values
_GROUP = 32


def cache_rotate(cache: torch.Tensor, order: torch.Tensor, temp: torch.Tensor) -> None:
    """Page order[i] becomes what order[i + 1] was, the last what the first was. cache: (pages, anything)."""
    if temp.numel() * temp.element_size() != cache[0].numel() * cache.element_size():
        raise RuntimeError("cache_rotate wants a buffer of one page")
    pages = order.tolist()
    first = cache[pages[0]].clone()
    for to, source in pairwise(pages):
        cache[to].copy_(cache[source])
    cache[pages[-1]].copy_(first)


def fp16_to_q_kv(
    k_in: torch.Tensor,
    k_out: torch.Tensor,
    k_scales: torch.Tensor,
    v_in: torch.Tensor,
    v_out: torch.Tensor,
    v_scales: torch.Tensor,
    batch_size: int,
    offset: int,
    width: int,
    page_size: int,
    cache_seqlens: torch.Tensor,
    block_table: torch.Tensor,
    wbits: int,
) -> None:
    """Store `width` new tokens of each sequence, behind what it has."""
    sides = zip((k_in, v_in), (k_out, v_out), (k_scales, v_scales), _BITS[wbits], strict=True)
    for source, target, scales, bits in sides:
        for row, begin, end in _spans(
            batch_size, offset, width, page_size, cache_seqlens, block_table, new_tokens=width
        ):
            quantized, scale = _quantize(source[row, begin:end], bits)
            target[row, begin:end] = quantized[..., ::2] | quantized[..., 1::2] << 4 if bits == 4 else quantized
            scales[row, begin:end] = scale


def q_to_fp16_kv(
    k_in: torch.Tensor,
    k_out: torch.Tensor,
    k_scales: torch.Tensor,
    v_in: torch.Tensor,
    v_out: torch.Tensor,
    v_scales: torch.Tensor,
    batch_size: int,
    offset: int,
    width: int,
    page_size: int,
    cache_seqlens: torch.Tensor,
    block_table: torch.Tensor,
    wbits: int,
) -> None:
    """Unpack the tokens that each sequence has."""
    sides = zip((k_in, v_in), (k_out, v_out), (k_scales, v_scales), _BITS[wbits], strict=True)
    for source, target, scales, bits in sides:
        for row, begin, end in _spans(batch_size, offset, width, page_size, cache_seqlens, block_table, new_tokens=0):
            packed = source[row, begin:end]
            quantized = torch.stack((packed & 15, packed >> 4), -1).flatten(-2) if bits == 4 else packed
            target[row, begin:end] = _restore(quantized, scales[row, begin:end], bits)


def _spans(
    batch_size: int,
    offset: int,
    width: int,
    page_size: int,
    seqlens: torch.Tensor,
    table: torch.Tensor,
    *,
    new_tokens: int,
) -> Iterator[tuple[int, int, int]]:
    """(row, begin, end) in the cache: with pages the sequences' tokens or only new ones, without them as told."""
    if not page_size:
        for row in range(batch_size):
            yield row, offset, offset + width
        return
    for past, pages in zip(seqlens.tolist(), table.tolist(), strict=True):
        at, last = (past, past + new_tokens) if new_tokens else (0, past)
        while at < last:
            page, within = divmod(at, page_size)
            count = min(last - at, page_size - within)
            begin = pages[page] * page_size + within
            yield 0, begin, begin + count
            at += count


def _quantize(x: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    groups = x.float().unflatten(-1, (-1, _GROUP))
    top = (1 << (bits - 1)) - 1
    scale = (groups.abs().amax(-1, keepdim=True) / top).clamp(min=1e-6).half()
    quantized = (groups / scale.float()).round().clamp(-top, top) + top + 1
    return quantized.to(torch.uint8).flatten(-2), scale.squeeze(-1)


def _restore(quantized: torch.Tensor, scale: torch.Tensor, bits: int) -> torch.Tensor:
    groups = quantized.float().unflatten(-1, (-1, _GROUP)) - (1 << (bits - 1))
    return (groups * scale.float().unsqueeze(-1)).flatten(-2).half()
