"""Calls of single kernels, as the package makes them. These functions run inside a `Child`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def draw(logits: list[float], draws: int, settings: dict[str, Any]) -> list[int]:
    """Tokens that the package's sampler draws, at points that lie evenly between 0 and 1."""
    from types import SimpleNamespace

    import torch
    from exllamav2.generator import ExLlamaV2Sampler

    neutral = {"token_repetition_penalty": 1.0, "temperature": 1.0, "top_k": 0, "top_p": 0.0}
    chosen = ExLlamaV2Sampler.Settings(**(neutral | settings))
    tokenizer = SimpleNamespace(get_vocab_size=lambda: len(logits))
    tokens = []
    for i in range(draws):
        row = torch.tensor([[logits]])
        drawn = ExLlamaV2Sampler.sample(row, chosen, torch.zeros(1, 1).long(), (i + 0.5) / draws, tokenizer)
        tokens.append(int(drawn[0]))
    return tokens


def penalize(
    logits: list[float], sequence: list[int], penalty: float, sustain: int, frequency: float, presence: float
) -> list[float]:
    """Logits after the penalties."""
    import torch
    from exllamav2.ext import exllamav2_ext

    row = torch.tensor([[logits]])
    exllamav2_ext.apply_rep_penalty(torch.tensor([sequence]), penalty, sustain, 0, frequency, presence, row)
    penalized: list[float] = row[0, 0].tolist()
    return penalized


def allowed_by_both(size: int, first: list[int], second: list[int]) -> list[int]:
    """The ids that two filters leave."""
    import torch
    from exllamav2.ext import exllamav2_ext

    allowed = torch.zeros(1, size, dtype=torch.bool)
    exllamav2_ext.fast_fill_cpu_ones_bool(allowed)
    for ids in (first, second):
        exllamav2_ext.logit_filter_exclusive(allowed, [ids])
    left: list[int] = allowed[0].nonzero()[:, 0].tolist()
    return left


def find_strings(text: str, strings: list[str]) -> int:
    """Where one of the strings is in the text."""
    from exllamav2.ext import exllamav2_ext
    from exllamav2.generator.dynamic import _strings_to_utf32

    joined, offsets = _strings_to_utf32(strings)
    buffer = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint8)
    found: int = exllamav2_ext.partial_strings_match(buffer, offsets, joined)
    return found


def attend(options: dict[str, Any]) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """The last 7 of 600 tokens' attention: over scattered pages, in one piece, and by a loop over heads in fp32."""
    import exllamav2  # noqa: F401
    import torch
    from flash_attn import flash_attn_func, flash_attn_with_kvcache

    torch.manual_seed(0)
    past, new, heads, kv_heads, dim = 593, 7, 4, 2, 32
    q = torch.randn(1, new, heads, dim).half()
    k, v = (torch.randn(1, past + new, kv_heads, dim).half() for _ in range(2))
    pages = torch.tensor([[6, 1, 4]], dtype=torch.int32)
    k_cache, v_cache = (torch.full((8, 256, kv_heads, dim), 99.0).half() for _ in range(2))
    for cache, values in ((k_cache, k), (v_cache, v)):
        for position in range(past):
            cache[pages[0, position // 256], position % 256] = values[0, position]
    paged = flash_attn_with_kvcache(
        q,
        k_cache,
        v_cache,
        k[:, past:],
        v[:, past:],
        torch.tensor([past], dtype=torch.int32),
        pages,
        causal=True,
        **options,
    )
    whole = flash_attn_func(q, k, v, causal=True, **options)
    plain = torch.zeros(new, heads, dim)
    scale, cap = options.get("softmax_scale", dim**-0.5), options.get("softcap")
    for i in range(new):
        first = max(past + i - options["window_size"][0], 0) if "window_size" in options else 0
        for head in range(heads):
            keys, values = (t[0, first : past + i + 1, head // (heads // kv_heads)].float() for t in (k, v))
            scores = keys @ q[0, i, head].float() * scale
            plain[i, head] = (cap * torch.tanh(scores / cap) if cap else scores).softmax(0) @ values
    return paged[0].float().numpy(), whole[0].float().numpy(), plain.numpy()
