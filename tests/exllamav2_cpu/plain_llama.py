"""A Llama's forward pass, written plainly in fp32, and the comparison with it. Used inside a `Child`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tests.exllamav2_cpu.generation import generate, load


@dataclass(frozen=True, slots=True)
class Compared:
    """One answer: the tokens chosen, the plain pass's best at each place, and how far the logits are from its own."""

    chosen: tuple[int, ...]
    best: tuple[int, ...]
    mean_logit_error: float
    logit_range: float


def compare(directory: Path, questions: Sequence[str], max_new_tokens: int, cache_bits: int = 16) -> list[Compared]:
    """Answer all questions in one batch, then follow each answer with the plain forward pass."""
    import torch

    generator = load(directory, cache_bits)
    prompts = [_chat(generator, question) for question in questions]
    compared = []
    for prompt, output in zip(prompts, generate(generator, prompts, max_new_tokens, return_logits=True), strict=True):
        ids = [*prompt, *output.ids[:-1]]
        plain = forward(directory, ids)[len(prompt) - 1 :]
        logits = torch.from_numpy(output.logits)
        compared.append(
            Compared(
                chosen=output.ids,
                best=tuple(plain.argmax(1).tolist()),
                mean_logit_error=float((logits - plain).abs().mean()),
                logit_range=float(plain.max() - plain.min()),
            )
        )
    return compared


def answer(directory: Path, question: str) -> str:
    """The greedy answer to a question in the chat template."""
    generator = load(directory)
    stop = [generator.tokenizer.eos_token_id]
    return generate(generator, [_chat(generator, question)], 32, stop_conditions=stop)[0].text


def forward(directory: Path, ids: Sequence[int]) -> Any:
    """Logits (tokens, vocabulary) of a Llama with tied or untied head. Rotary halves as on the Hub."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention, silu

    config = json.loads((directory / "config.json").read_text("utf-8"))
    weights = _weights(directory)
    heads, kv_heads, dim = config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]
    frequencies = config["rope_theta"] ** -(torch.arange(0, dim, 2) / dim)
    angles = torch.outer(torch.arange(len(ids)), frequencies).repeat(1, 2)

    def norm(x: Any, name: str) -> Any:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + config["rms_norm_eps"]) * weights[f"{name}.weight"]

    def split(x: Any, count: int) -> Any:
        return x.view(len(ids), count, dim).transpose(0, 1)

    def rotate(x: Any) -> Any:
        turned = torch.cat((-x[..., dim // 2 :], x[..., : dim // 2]), -1)
        return x * angles.cos() + turned * angles.sin()

    x = weights["model.embed_tokens.weight"][list(ids)]
    for layer in range(config["num_hidden_layers"]):
        name = f"model.layers.{layer}"
        h = norm(x, f"{name}.input_layernorm")
        q, k, v = (h @ weights[f"{name}.self_attn.{part}_proj.weight"].T for part in "qkv")
        attended = scaled_dot_product_attention(
            rotate(split(q, heads)), rotate(split(k, kv_heads)), split(v, kv_heads), is_causal=True, enable_gqa=True
        )
        x = x + attended.transpose(0, 1).flatten(1) @ weights[f"{name}.self_attn.o_proj.weight"].T
        h = norm(x, f"{name}.post_attention_layernorm")
        gate, up, down = (weights[f"{name}.mlp.{part}_proj.weight"].T for part in ("gate", "up", "down"))
        x = x + (silu(h @ gate) * (h @ up)) @ down
    head = weights.get("lm_head.weight", weights["model.embed_tokens.weight"])
    return norm(x, "model.norm") @ head.T


@cache
def _weights(directory: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return {name: weight.float() for name, weight in load_file(directory / "model.safetensors").items()}


def _chat(generator: Any, question: str) -> list[int]:
    text = (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    )
    ids: list[int] = generator.tokenizer.encode(text, encode_special_tokens=True)[0].tolist()
    return ids
