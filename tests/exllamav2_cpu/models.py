"""Model directories for exllamav2, made here: tiny random ones of any architecture, and SmolLM2 from its GGUF.

Names, shapes and config.json are those of the models on the Hugging Face Hub; tokenizer and chat template are
SmolLM2's. Nothing here imports torch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import AddedToken

from docmill.catalogue.fingerprint import quick_fingerprint
from docmill.catalogue.gguf_file import GgufHeader, read_header
from docmill.producer.gguf_tokenizer import build_tokenizer
from tests.exllamav2_cpu.architectures import ARCHITECTURES, Shape, config_of, weight_shapes

__all__ = ["ARCHITECTURES", "Shape", "smollm2", "tiny_model"]

_CONTROL = 3  # llama.cpp's token type
_CONVERSION = 1  # of SmolLM2: a new number makes cached directories be built again

Weights = dict[str, NDArray[np.float16]]


def tiny_model(
    directory: Path,
    gguf: Path,
    architecture: str = "LlamaForCausalLM",
    *,
    shape: Shape | None = None,
    seed: int = 0,
    eos_token_ids: Sequence[int] | None = None,
) -> Path:
    """Write a model of random weights into `directory`, with the vocabulary of `gguf`. Loads in about a second.

    `eos_token_ids` go into generation_config.json; config.json has the first. None: the GGUF's own.
    """
    shape = shape or Shape()
    header = _header(gguf)
    eos = list(header.eos_ids if eos_token_ids is None else eos_token_ids)
    directory.mkdir(parents=True, exist_ok=True)
    _write_tokenizer(directory, gguf, eos)
    config = config_of(architecture, shape, len(header.tokens))
    config |= {"bos_token_id": header.bos_id, "eos_token_id": eos[0], "pad_token_id": eos[0]}
    _write_json(directory / "config.json", config)
    random = np.random.default_rng(seed)
    weights = {
        name: _random(random, name, dims, is_gemma=architecture.startswith("Gemma"))
        for name, dims in weight_shapes(architecture, shape, len(header.tokens)).items()
    }
    _write_weights(directory, weights)
    return directory


def smollm2(gguf: Path, cache: Path) -> Path:
    """SmolLM2-135M itself in fp16, converted from its GGUF into `cache` where it is not there yet (a few seconds)."""
    directory = cache / f"smollm2-hf-{_CONVERSION}-{quick_fingerprint(gguf)}"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{directory}.lock"):
        if not (directory / "config.json").is_file():
            directory.mkdir(exist_ok=True)
            _convert(gguf, directory)
    return directory


def _random(random: np.random.Generator, name: str, dims: tuple[int, ...], *, is_gemma: bool) -> NDArray[np.float16]:
    if is_gemma and "norm" in name:  # Gemma adds 1 itself; what layers add must outweigh the tied embedding
        return np.full(dims, 3 if "post" in name else 0, np.float16)
    if "norm" in name:
        return np.ones(dims, np.float16)
    # The head's are larger, so that some tokens are clearly more probable than others.
    size = np.float32(dims[-1] ** -0.5 * (3 if name == "lm_head.weight" else 1))
    return (random.standard_normal(dims, np.float32) * size).astype(np.float16)


@lru_cache(maxsize=1)
def _header(gguf: Path) -> GgufHeader:
    return read_header(gguf)


@lru_cache(maxsize=1)
def _tokenizer_json(gguf: Path) -> str:
    header = _header(gguf)
    tokenizer = build_tokenizer(header, gguf.name)
    control = [AddedToken(token, normalized=False, special=True) for token in _control_tokens(header).values()]
    tokenizer.add_special_tokens(control)
    text: str = tokenizer.to_str()
    return text


def _control_tokens(header: GgufHeader) -> dict[int, str]:
    return {i: header.tokens[i] for i, kind in enumerate(header.token_types) if kind == _CONTROL}


def _write_tokenizer(directory: Path, gguf: Path, eos_token_ids: list[int]) -> None:
    header = _header(gguf)
    (directory / "tokenizer.json").write_text(_tokenizer_json(gguf), encoding="utf-8")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": header.add_bos,
        "bos_token": None if header.bos_id is None else header.tokens[header.bos_id],
        "eos_token": header.tokens[eos_token_ids[0]],
        "chat_template": header.chat_template,
        "model_max_length": header.context_window,
        "added_tokens_decoder": {
            str(i): {"content": token, "special": True} for i, token in _control_tokens(header).items()
        },
    }
    _write_json(directory / "tokenizer_config.json", config)
    generation = {"bos_token_id": header.bos_id, "eos_token_id": eos_token_ids}
    _write_json(directory / "generation_config.json", generation)


def _convert(gguf: Path, directory: Path) -> None:
    from gguf import GGUFReader
    from gguf.quants import dequantize

    header = _header(gguf)
    reader = GGUFReader(gguf)

    def value(key: str) -> Any:
        return reader.fields[f"llama.{key}"].contents()

    heads, kv_heads = value("attention.head_count"), value("attention.head_count_kv")
    weights: Weights = {}
    for tensor in reader.tensors:
        name = _hub_name(tensor.name)
        weight = dequantize(tensor.data, tensor.tensor_type)
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            weight = _unpermute(weight, heads if "q_proj" in name else kv_heads)
        weights[name] = np.ascontiguousarray(weight, np.float16)
    _write_weights(directory, weights)
    eos = list(header.eos_ids)
    _write_tokenizer(directory, gguf, eos)
    shape = Shape(
        layers=value("block_count"),
        hidden=value("embedding_length"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=value("embedding_length") // heads,
        intermediate=value("feed_forward_length"),
        context_window=header.context_window,
    )
    config = config_of("LlamaForCausalLM", shape, len(header.tokens))
    config |= {
        "rope_theta": float(value("rope.freq_base")),
        "rms_norm_eps": float(value("attention.layer_norm_rms_epsilon")),
        "tie_word_embeddings": "lm_head.weight" not in weights,
        "bos_token_id": header.bos_id,
        "eos_token_id": eos[0],
        "pad_token_id": eos[0],
    }
    _write_json(directory / "config.json", config)  # last: it says that the directory is whole


def _hub_name(name: str) -> str:
    top = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
    parts = {
        "attn_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
    match name.split("."):
        case ["blk", layer, part, "weight"]:
            return f"model.layers.{layer}.{parts[part]}.weight"
        case [part, "weight"]:
            return f"{top[part]}.weight"
    raise ValueError(f"{name} is not a tensor of a Llama")


def _unpermute(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """llama.cpp keeps the two numbers that are rotated together side by side, the Hub half a head apart."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _write_weights(directory: Path, weights: Weights) -> None:
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
