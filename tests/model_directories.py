"""Model directories that look real to whoever reads only their headers: the weights are holes in sparse files."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

Tensors = dict[str, tuple[str, list[int]]]  # name to type and shape
_SIZES = {"F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2}

MISTRAL_7B: Mapping[str, Any] = {
    "architectures": ["MistralForCausalLM"],
    "model_type": "mistral",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 32768,
    "max_position_embeddings": 32768,
}


def write_safetensors(path: Path, tensors: Tensors) -> None:
    """A file of these tensors, all zeros, that takes no room on the disk."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in tensors.items():
        start, end = end, end + prod(shape) * _SIZES[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)


def write_exl2(directory: Path, bits: float = 4.65, **changes: Any) -> Path:
    """A Llama-like EXL2 model: every matrix but the embedding at so many bits a weight. None removes a key."""
    config = {**MISTRAL_7B, "quantization_config": {"quant_method": "exl2", "bits": bits}, **changes}
    write_config(directory, {key: value for key, value in config.items() if value is not None})
    hidden, inter, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    keys = 1024

    def packed(elements: int) -> tuple[str, list[int]]:
        return "I32", [int(elements * bits / 32)]

    tensors: Tensors = {
        "model.embed_tokens.weight": ("F16", [vocab, hidden]),
        "model.norm.weight": ("F16", [hidden]),
        "lm_head.q_weight": packed(hidden * vocab),
    }
    for layer in range(config["num_hidden_layers"]):
        for name, columns in (("q", hidden), ("k", keys), ("v", keys), ("o", hidden)):
            tensors[f"model.layers.{layer}.self_attn.{name}_proj.q_weight"] = packed(hidden * columns)
        for name in ("gate", "up", "down"):
            tensors[f"model.layers.{layer}.mlp.{name}_proj.q_weight"] = packed(hidden * inter)
        for name in ("input", "post_attention"):
            tensors[f"model.layers.{layer}.{name}_layernorm.weight"] = ("F16", [hidden])
    write_safetensors(directory / "output.safetensors", tensors)
    return directory


def write_small(directory: Path, config: Mapping[str, Any], tensors: Tensors, prefix: str = "") -> Path:
    """A model of two layers, each of 1000 + 3000 bytes, an embedding of 800 and a norm of 16, and these tensors."""
    write_config(directory, config)
    own: Tensors = {
        f"{prefix}model.embed_tokens.weight": ("F16", [400]),
        f"{prefix}model.norm.weight": ("F16", [8]),
    }
    for layer in range(2):
        own[f"{prefix}model.layers.{layer}.self_attn.q_proj.weight"] = ("BF16", [500])
        own[f"{prefix}model.layers.{layer}.mlp.up_proj.weight"] = ("F16", [1500])
    write_safetensors(directory / "model.safetensors", own | tensors)
    return directory


def write_config(directory: Path, config: Mapping[str, Any]) -> None:
    """The directory and its config.json."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config), "utf-8")
