"""GGUF files of the catalogue's architectures: two layers, random weights, the first tokens of SmolLM2's vocabulary.

A byte-level vocabulary cut off behind any of its merges is a whole one: rarer words take more tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np

HIDDEN, HEADS, KV_HEADS, FEED_FORWARD, LAYERS, EXPERTS = 64, 4, 2, 128, 2, 4
TOKENS = 1024
_HEAD = HIDDEN // HEADS
_WINDOW = 512
_Dims = tuple[int, ...]

ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma2", "phi2", "phi3", "phimoe")


@lru_cache(maxsize=1)
def first_tokens(model: Path) -> dict[str, tuple[Any, Any, Any]]:
    """The tokenizer's fields of a GGUF file with the first tokens only: value, type, type of elements."""
    fields: dict[str, tuple[Any, Any, Any]] = {}
    for name, field in gguf.GGUFReader(model).fields.items():
        if not name.startswith("tokenizer.") or name == "tokenizer.chat_template":
            continue
        of_elements = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        value = field.contents(slice(TOKENS)) if of_elements is not None else field.contents()
        fields[name] = (value, field.types[0], of_elements)
    tokens = set(fields["tokenizer.ggml.tokens"][0])
    merges, *types = fields["tokenizer.ggml.merges"]
    fields["tokenizer.ggml.merges"] = ([merge for merge in merges if merge.replace(" ", "", 1) in tokens], *types)
    return fields


def write_tiny_gguf(path: Path, architecture: str, vocabulary: Path, *, chat_template: str | None = None) -> Path:
    """Write a model that loads and answers nonsense. `vocabulary` is the GGUF file whose tokens it takes."""
    writer = gguf.GGUFWriter(path, architecture)
    _add_dimensions(writer, architecture)
    for name, (value, kind, of_elements) in first_tokens(vocabulary).items():
        writer.add_key_value(name, value, kind, sub_type=of_elements)
    if chat_template is not None:
        writer.add_chat_template(chat_template)
    random = np.random.default_rng(7)
    for name, dims in _tensors(architecture):
        if name.endswith("norm.weight"):
            data = np.ones(dims, np.float32)
        elif len(dims) == 1:
            data = np.zeros(dims, np.float32)  # biases
        else:
            data = (random.standard_normal(dims) * 0.4).astype(np.float16)
        writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_dimensions(writer: Any, architecture: str) -> None:
    kv_heads = HEADS if architecture == "phi2" else KV_HEADS
    writer.add_context_length(_WINDOW)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(kv_heads)
    writer.add_rope_dimension_count(_HEAD)
    if architecture in ("phi2", "phimoe"):
        writer.add_layer_norm_eps(1e-5)
    if architecture != "phi2":
        writer.add_layer_norm_rms_eps(1e-5)
    if architecture == "gemma2":
        writer.add_key_length(_HEAD)
        writer.add_value_length(_HEAD)
        writer.add_sliding_window(256)
        writer.add_attn_logit_softcapping(50.0)
        writer.add_final_logit_softcapping(30.0)
    if architecture in ("phi3", "phimoe"):
        writer.add_rope_scaling_orig_ctx_len(_WINDOW)
        writer.add_sliding_window(_WINDOW)
    if architecture == "phimoe":
        writer.add_expert_count(EXPERTS)
        writer.add_expert_used_count(2)


def _tensors(architecture: str) -> Iterator[tuple[str, _Dims]]:
    """Names as llama.cpp has them; dimensions as numpy has them, the outputs first."""
    yield "token_embd.weight", (TOKENS, HIDDEN)
    yield "output_norm.weight", (HIDDEN,)
    if architecture != "gemma2":
        yield "output.weight", (TOKENS, HIDDEN)
    if architecture in ("phi2", "phimoe"):
        yield "output_norm.bias", (HIDDEN,)
        yield "output.bias", (TOKENS,)
    for layer in range(LAYERS):
        for name, dims in (*_attention(architecture), *_feed_forward(architecture)):
            yield f"blk.{layer}.{name}", dims


def _attention(architecture: str) -> Iterator[tuple[str, _Dims]]:
    keys = (HEADS if architecture == "phi2" else KV_HEADS) * _HEAD
    yield "attn_norm.weight", (HIDDEN,)
    yield "attn_output.weight", (HIDDEN, HIDDEN)
    if architecture in ("phi2", "phi3"):
        yield "attn_qkv.weight", (HIDDEN + 2 * keys, HIDDEN)
    else:
        for name, columns in (("q", HIDDEN), ("k", keys), ("v", keys)):
            yield f"attn_{name}.weight", (columns, HIDDEN)
            if architecture in ("qwen2", "phimoe"):
                yield f"attn_{name}.bias", (columns,)
    match architecture:
        case "phi2":
            yield "attn_norm.bias", (HIDDEN,)
            yield "attn_output.bias", (HIDDEN,)
            yield "attn_qkv.bias", (HIDDEN + 2 * keys,)
        case "phimoe":
            yield "attn_norm.bias", (HIDDEN,)
            yield "attn_output.bias", (HIDDEN,)
        case "qwen3":
            yield "attn_q_norm.weight", (_HEAD,)
            yield "attn_k_norm.weight", (_HEAD,)
        case "gemma2":
            yield "post_attention_norm.weight", (HIDDEN,)


def _feed_forward(architecture: str) -> Iterator[tuple[str, _Dims]]:
    match architecture:
        case "phi2":
            yield "ffn_up.weight", (FEED_FORWARD, HIDDEN)
            yield "ffn_up.bias", (FEED_FORWARD,)
            yield "ffn_down.weight", (HIDDEN, FEED_FORWARD)
            yield "ffn_down.bias", (HIDDEN,)
        case "phi3":
            yield "ffn_norm.weight", (HIDDEN,)
            yield "ffn_up.weight", (2 * FEED_FORWARD, HIDDEN)
            yield "ffn_down.weight", (HIDDEN, FEED_FORWARD)
        case "phimoe":
            yield "ffn_norm.weight", (HIDDEN,)
            yield "ffn_norm.bias", (HIDDEN,)
            yield "ffn_gate_inp.weight", (EXPERTS, HIDDEN)
            yield "ffn_gate_exps.weight", (EXPERTS, FEED_FORWARD, HIDDEN)
            yield "ffn_up_exps.weight", (EXPERTS, FEED_FORWARD, HIDDEN)
            yield "ffn_down_exps.weight", (EXPERTS, HIDDEN, FEED_FORWARD)
        case _:
            yield "ffn_norm.weight", (HIDDEN,)
            yield "ffn_gate.weight", (FEED_FORWARD, HIDDEN)
            yield "ffn_up.weight", (FEED_FORWARD, HIDDEN)
            yield "ffn_down.weight", (HIDDEN, FEED_FORWARD)
            if architecture == "gemma2":
                yield "post_ffw_norm.weight", (HIDDEN,)
