"""What the real exllamav2 allocates for a model directory. Runs in a `Child`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Real:
    """In bytes. `caches` and `unpacked` are by bits per value."""

    scratch: int
    weights: int
    tables: int
    caches: dict[int, int]
    unpacked: dict[int, int]


def measure(directory: Path, chunk: int, window: int, tokens: int) -> Real:
    """Build the model without loading it, and caches of `tokens` tokens; return their sizes."""
    import exllamav2
    from exllamav2.device import ExLlamaV2DeviceContext

    config = exllamav2.ExLlamaV2Config(str(directory))
    config.max_input_len, config.max_seq_len = chunk, window
    model = exllamav2.ExLlamaV2(config)
    model.cache_map = dict.fromkeys(range(config.num_hidden_layers), "cuda:0")
    context = ExLlamaV2DeviceContext(model, 0, 0)
    context.prepare_sincos()
    caches = {
        bits: getattr(exllamav2, name)(model, max_seq_len=tokens)
        for bits, name in (
            (16, "ExLlamaV2Cache"), (8, "ExLlamaV2Cache_Q8"), (6, "ExLlamaV2Cache_Q6"), (4, "ExLlamaV2Cache_Q4")
        )
    }  # fmt: skip
    return Real(
        scratch=max(module.scratch_space_fixed() for module in model.modules),
        weights=sum(module.weight_footprint() for module in model.modules[1:]),
        tables=_size(context.sin or []) + _size(context.cos or []),
        caches={bits: _size(cache.all_tensors()) for bits, cache in caches.items()},
        unpacked={
            bits: sum(_size(pair) for pair in getattr(cache, "temp_tensors", {}).values())
            for bits, cache in caches.items()
        },
    )


def _size(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
