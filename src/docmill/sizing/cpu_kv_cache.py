"""How many tokens the key-value cache of a CPU engine may hold.

OpenVINO's cache grows on demand and llama.cpp's is allocated in full at the start. If either outgrows the memory, the
kernel kills the process. Both engines therefore start a request only when its prompt and its longest possible output
fit the part of this budget that the running requests leave.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil

from docmill.catalogue.errors import ModelDamaged
from docmill.catalogue.gguf_file import header_values

KV_SHARE = 0.5  # of the memory that the weights leave free


def kv_cache_tokens(
    window: int,
    slots: int,
    *,
    bytes_per_token: float,
    reserved_bytes: int = 0,
    most_tokens: int | None = None,
    configured: int | None = None,
) -> int:
    """The cache budget in tokens: a window for every slot if the free memory allows it, and at least one window.

    `reserved_bytes` of the free memory are not available to the cache, because the weights are still to be loaded.
    `configured` tokens replace the computation from free memory, and the engine's limit `most_tokens`.
    """
    wanted = window * slots
    if configured is None:
        free_bytes = max(0, psutil.virtual_memory().available - reserved_bytes)
        fitting = int(free_bytes * KV_SHARE / bytes_per_token)
        return max(window, min(wanted, fitting, most_tokens or wanted))
    return max(window, min(wanted, int(configured)))


def kv_values_per_token(path: Path) -> int:
    """Key and value elements that a GGUF model caches for one token in all layers. Raises ModelDamaged."""
    values = header_values(path)
    architecture = values.get("general.architecture")

    def value(key: str, default: Any = None) -> Any:
        return values.get(f"{architecture}.{key}", default)

    try:
        heads = _largest(value("attention.head_count"))
        key_length = value("attention.key_length", value("embedding_length") // heads)
        value_length = value("attention.value_length", key_length)
        kv_heads = _largest(value("attention.head_count_kv", heads))
        return int(value("block_count") * kv_heads * (key_length + value_length))
    except (TypeError, ZeroDivisionError) as error:
        raise ModelDamaged(path, f"its header does not give the size of keys and values ({error})") from error


def _largest(count: Any) -> int:
    """Some files give one number for each layer instead of one for all."""
    return max(count) if isinstance(count, list) else int(count)
