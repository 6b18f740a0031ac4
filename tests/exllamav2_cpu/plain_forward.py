"""A forward pass written plainly in fp32, for every architecture of `models.py`. Used inside a `Child`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import gelu, silu

Weights = dict[str, Tensor]


def forward(directory: Path, ids: Sequence[int]) -> Tensor:
    """Logits (tokens, vocabulary) after each of the ids."""
    config = json.loads((directory / "config.json").read_text("utf-8"))
    weights = _weights(directory)
    is_gemma = config["architectures"] == ["Gemma2ForCausalLM"]
    x = weights["model.embed_tokens.weight"][list(ids)]
    if is_gemma:
        x = x * config["hidden_size"] ** 0.5
    for layer in range(config["num_hidden_layers"]):
        part = _below(weights, f"model.layers.{layer}")
        attended = _attention(_norm(x, part, "input_layernorm", config), part, config, layer)
        if is_gemma:
            x = x + _norm(attended, part, "post_attention_layernorm", config)
            fed = _feed_forward(_norm(x, part, "pre_feedforward_layernorm", config), part, config)
            x = x + _norm(fed, part, "post_feedforward_layernorm", config)
        else:
            x = x + attended
            x = x + _feed_forward(_norm(x, part, "post_attention_layernorm", config), part, config)
    head = weights.get("lm_head.weight", weights["model.embed_tokens.weight"])
    return _capped(_norm(x, weights, "model.norm", config) @ head.T, config.get("final_logit_softcapping"))


@cache
def _weights(directory: Path) -> Weights:
    from safetensors.torch import load_file

    return {name: weight.float() for name, weight in load_file(directory / "model.safetensors").items()}


def _below(weights: Weights, prefix: str) -> Weights:
    return {name.removeprefix(f"{prefix}."): w for name, w in weights.items() if name.startswith(f"{prefix}.")}


def _norm(x: Tensor, weights: Weights, name: str, config: dict[str, Any]) -> Tensor:
    weight = weights[f"{name}.weight"]
    if config["architectures"] == ["Gemma2ForCausalLM"]:
        weight = weight + 1
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + config["rms_norm_eps"]) * weight


def _capped(x: Tensor, cap: float | None) -> Tensor:
    return x if cap is None else torch.tanh(x / cap) * cap


def _linear(x: Tensor, weights: Weights, name: str) -> Tensor:
    return x @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", torch.zeros(1))


def _attention(x: Tensor, weights: Weights, config: dict[str, Any], layer: int) -> Tensor:
    heads, kv_heads, dim = config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]
    if "self_attn.qkv_proj.weight" in weights:
        joined = _linear(x, weights, "self_attn.qkv_proj").split([heads * dim, kv_heads * dim, kv_heads * dim], -1)
    else:
        joined = tuple(_linear(x, weights, f"self_attn.{name}_proj") for name in "qkv")
    q, k, v = (part.view(len(x), -1, dim) for part in joined)
    if "self_attn.q_norm.weight" in weights:
        q, k = _norm(q, weights, "self_attn.q_norm", config), _norm(k, weights, "self_attn.k_norm", config)
    q, k = _rotated(q, config["rope_theta"]), _rotated(k, config["rope_theta"])
    k, v = (part.repeat_interleave(heads // kv_heads, 1) for part in (k, v))
    scale = config.get("query_pre_attn_scalar", dim) ** -0.5
    scores = _capped(torch.einsum("qhd,khd->hqk", q, k) * scale, config.get("attn_logit_softcapping"))
    distance = torch.arange(len(x)).view(-1, 1) - torch.arange(len(x))
    hidden = distance < 0
    if config["architectures"] == ["Gemma2ForCausalLM"] and layer % 2 == 0:
        hidden |= distance > config["sliding_window"]  # exllamav2 sees one token further back than transformers
    scores = scores.masked_fill(hidden, float("-inf")).softmax(-1)
    return _linear(torch.einsum("hqk,khd->qhd", scores, v).flatten(1), weights, "self_attn.o_proj")


def _rotated(x: Tensor, theta: float) -> Tensor:
    """x (tokens, heads, dim), its halves rotated against each other by the token's position."""
    half = x.shape[-1] // 2
    angles = torch.outer(torch.arange(len(x)), theta ** -(torch.arange(half) / half)).repeat(1, 2).unsqueeze(1)
    return x * angles.cos() + torch.cat((-x[..., half:], x[..., :half]), -1) * angles.sin()


def _feed_forward(x: Tensor, weights: Weights, config: dict[str, Any]) -> Tensor:
    if config["architectures"] == ["MixtralForCausalLM"]:
        return _experts(x, _below(weights, "block_sparse_moe"), config)
    if "mlp.gate_up_proj.weight" in weights:
        gate, up = _linear(x, weights, "mlp.gate_up_proj").chunk(2, -1)
    else:
        gate, up = _linear(x, weights, "mlp.gate_proj"), _linear(x, weights, "mlp.up_proj")
    active = silu(gate) if config["hidden_act"] == "silu" else gelu(gate, approximate="tanh")
    return _linear(active * up, weights, "mlp.down_proj")


def _experts(x: Tensor, weights: Weights, config: dict[str, Any]) -> Tensor:
    shares, chosen = _linear(x, weights, "gate").softmax(-1).topk(config["num_experts_per_tok"])
    shares = shares / shares.sum(-1, keepdim=True)
    out = torch.zeros_like(x)
    for expert in range(config["num_local_experts"]):
        name = f"experts.{expert}"
        inner = silu(_linear(x, weights, f"{name}.w1")) * _linear(x, weights, f"{name}.w3")
        out += _linear(inner, weights, f"{name}.w2") * (shares * (chosen == expert)).sum(-1, keepdim=True)
    return out
