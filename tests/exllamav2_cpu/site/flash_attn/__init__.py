"""A stand-in for flash-attn on a CPU: the functions that exllamav2 0.3.2 calls, in PyTorch. For tests only."""

from __future__ import annotations

from typing import Any

import torch

__version__ = "2.8.3+cpu.standin"

_PAGE = 256  # flash-attn wants pages of a multiple of this many tokens


def flash_attn_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
) -> torch.Tensor:
    """Attention of q (batch, new tokens, heads, head_dim) over k and v (batch, tokens, kv heads, head_dim)."""
    _check(q, dropout_p)
    rows = [_attend(*qkv, softmax_scale, causal, window_size, softcap) for qkv in zip(q, k, v, strict=True)]
    return torch.stack(rows)


def flash_attn_with_kvcache(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    k: torch.Tensor | None = None,
    v: torch.Tensor | None = None,
    cache_seqlens: torch.Tensor | None = None,
    block_table: torch.Tensor | None = None,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
) -> torch.Tensor:
    """Attention over a cache of pages (pages, page size, kv heads, head_dim); k and v are first written behind it.

    `cache_seqlens` (batch) are the tokens each sequence has in the cache, `block_table` (batch, n) its pages.
    """
    _check(q)
    if cache_seqlens is None or block_table is None:
        raise NotImplementedError("the CPU stand-in of flash-attn has only the paged cache")
    if cache_seqlens.dtype != torch.int32 or block_table.dtype != torch.int32 or k_cache.shape[1] % _PAGE:
        raise RuntimeError(f"lengths and block table must be int32, the page size a multiple of {_PAGE}")
    rows = []
    for i, (past, pages) in enumerate(zip(cache_seqlens.tolist(), block_table.long(), strict=True)):
        length = past
        if k is not None and v is not None:
            length += k.shape[1]
            at = torch.arange(past, length)
            slots = pages[at // k_cache.shape[1]], at % k_cache.shape[1]
            k_cache[slots], v_cache[slots] = k[i], v[i]
        used = pages[: -(-length // k_cache.shape[1])]
        keys, values = (cache[used].flatten(0, 1)[:length] for cache in (k_cache, v_cache))
        rows.append(_attend(q[i], keys, values, softmax_scale, causal, window_size, softcap))
    return torch.stack(rows)


def flash_attn_varlen_func(*args: Any, **kwargs: Any) -> torch.Tensor:
    """Vision models only."""
    raise NotImplementedError("the CPU stand-in of flash-attn has no flash_attn_varlen_func")


def _check(q: torch.Tensor, dropout_p: float = 0.0) -> None:
    if q.dtype != torch.half or q.shape[-1] > 256 or dropout_p:
        raise RuntimeError("the CPU stand-in of flash-attn wants fp16, head_dim of at most 256 and no dropout")


def _attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    softmax_scale: float | None,
    causal: bool,
    window_size: tuple[int, int],
    softcap: float,
) -> torch.Tensor:
    """One sequence. The mask is aligned to the lower right: the last of q sees all of k. fp32 inside, fp16 out."""
    new, total = q.shape[0], k.shape[0]
    queries = q.transpose(0, 1).float().unflatten(0, (k.shape[1], -1))  # kv heads, heads each, new, head_dim
    keys, values = (t.transpose(0, 1).float().unsqueeze(1) for t in (k, v))
    scores = queries @ keys.transpose(-1, -2) * (softmax_scale or q.shape[-1] ** -0.5)
    if softcap:
        scores = torch.tanh(scores / softcap) * softcap
    distance = torch.arange(total - new, total).view(-1, 1) - torch.arange(total)
    hidden = torch.zeros_like(distance, dtype=torch.bool)
    if causal:
        hidden |= distance < 0
    if window_size[0] >= 0:
        hidden |= distance > window_size[0]
    scores = scores.masked_fill(hidden, float("-inf"))
    return (scores.softmax(-1) @ values).flatten(0, 1).transpose(0, 1).contiguous().half()
