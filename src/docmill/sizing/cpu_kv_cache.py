"""How many tokens' keys and values an engine on this machine may keep at once.

OpenVINO's cache grows as it is needed and llama.cpp's is taken in full at the start: where either outgrows the
memory, the kernel kills the process. So both hand over a request only when its prompt and its longest output fit
what the others leave.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil

from docmill.catalogue.errors import ModelDamaged
from docmill.catalogue.gguf_file import header_values
from docmill.worker.engines.spec import EngineSpec

KV_SHARE = 0.5  # of the memory that the weights leave


def kv_tokens(spec: EngineSpec, *, bytes_a_token: float, spoken_for_bytes: int = 0) -> int:
    """The budget in tokens: what all slots can need, as far as it fits the free memory, but one window at least.

    `options["kv_tokens"]` sets it by hand. `spoken_for_bytes` of the free memory are for something else.
    """
    needed = spec.window * spec.slots
    if "kv_tokens" in spec.options:
        fitting = int(spec.options["kv_tokens"])
    else:
        free_bytes = max(0, psutil.virtual_memory().available - spoken_for_bytes)
        fitting = int(free_bytes * KV_SHARE / bytes_a_token)
    return max(spec.window, min(needed, fitting))


def values_a_token(path: Path) -> int:
    """Numbers that a model in a GGUF keeps for one token in all layers, keys and values. Raises ModelDamaged."""
    values = header_values(path)
    architecture = values.get("general.architecture")

    def value(key: str, default: Any = None) -> Any:
        return values.get(f"{architecture}.{key}", default)

    try:
        heads = _most(value("attention.head_count"))
        head_size = value("attention.key_length", value("embedding_length") // heads)
        both = head_size + value("attention.value_length", head_size)
        return int(value("block_count") * _most(value("attention.head_count_kv", heads)) * both)
    except (TypeError, ZeroDivisionError) as error:
        raise ModelDamaged(path, f"its header does not tell the size of its keys and values ({error})") from error


def _most(count: Any) -> int:
    """Some files give one number for every layer."""
    return max(count) if isinstance(count, list) else int(count)
