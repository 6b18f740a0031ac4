"""How many tokens' keys and values an engine on this machine may keep at once.

OpenVINO's cache grows as it is needed and llama.cpp's is taken in full at the start: where either outgrows the
memory, the kernel kills the process. So both hand over a request only when its prompt and its longest output fit
what the others leave.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import psutil

from worker.engines.spec import EngineSpec

_SHARE = 0.5  # of the memory that the weights leave


def kv_tokens(spec: EngineSpec, weights: Path, *, bytes_per_value: float) -> int:
    """The budget in tokens: what all slots can need, as far as it fits the free memory, but one window at least.

    `options["kv_tokens"]` sets it by hand. `weights` is the GGUF that will be loaded.
    """
    needed = spec.window * spec.slots
    if "kv_tokens" in spec.options:
        return max(spec.window, min(needed, int(spec.options["kv_tokens"])))
    stat = weights.stat()
    free_bytes = max(0, psutil.virtual_memory().available - stat.st_size) * _SHARE
    values = _values_a_token(weights, stat.st_size, stat.st_mtime_ns)
    return max(spec.window, min(needed, int(free_bytes / (values * bytes_per_value))))


@lru_cache(maxsize=8)
def _values_a_token(path: Path, size: int, mtime_ns: int) -> int:
    """Numbers kept for one token in all layers, keys and values."""
    del size, mtime_ns  # part of the cache's key: a file that changed is read again
    import gguf

    fields = gguf.GGUFReader(path).fields
    architecture = fields["general.architecture"].contents()

    def value(key: str, default: Any = None) -> Any:
        field = fields.get(f"{architecture}.{key}")
        return default if field is None else field.contents()

    heads = _most(value("attention.head_count"))
    head_size = value("attention.key_length", value("embedding_length") // heads)
    both = head_size + value("attention.value_length", head_size)
    return int(value("block_count") * _most(value("attention.head_count_kv", heads)) * both)


def _most(count: Any) -> int:
    """Some files give one number for every layer."""
    return max(count) if isinstance(count, list) else int(count)
