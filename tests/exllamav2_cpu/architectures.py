"""The architectures: what config.json says, and every weight's name and shape, as on the Hugging Face Hub."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

ARCHITECTURES = (
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "MixtralForCausalLM",
    "Phi3ForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
    "Gemma2ForCausalLM",
)


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of a tiny model. The default's keys are 32 wide; 16 kv heads make them 512, as wide as a cache block."""

    layers: int = 2
    hidden: int = 64
    heads: int = 2
    kv_heads: int = 1
    head_dim: int = 32
    intermediate: int = 128
    experts: int = 4
    context_window: int = 2048


def config_of(architecture: str, shape: Shape, vocabulary: int) -> dict[str, Any]:
    config: dict[str, Any] = {
        "architectures": [architecture],
        "model_type": architecture.removesuffix("ForCausalLM").lower(),
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "vocab_size": vocabulary,
        "max_position_embeddings": shape.context_window,
        "rope_theta": 10000.0,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
    }
    own: dict[str, dict[str, Any]] = {
        "MistralForCausalLM": {"sliding_window": None},
        "MixtralForCausalLM": {"num_local_experts": shape.experts, "num_experts_per_tok": 2, "sliding_window": None},
        "Phi3ForCausalLM": {
            "original_max_position_embeddings": shape.context_window,
            "rope_scaling": None,
            "sliding_window": 2047,
        },
        "Qwen2ForCausalLM": {"use_sliding_window": False, "sliding_window": shape.context_window},
        "Qwen3ForCausalLM": {"attention_bias": False, "use_sliding_window": False, "sliding_window": None},
        "Gemma2ForCausalLM": {
            "tie_word_embeddings": True,
            "hidden_act": "gelu_pytorch_tanh",
            "hidden_activation": "gelu_pytorch_tanh",
            "query_pre_attn_scalar": shape.head_dim,
            "attn_logit_softcapping": 5.0,
            "final_logit_softcapping": 5.0,
            "sliding_window": 64,
        },
    }
    return config | own.get(architecture, {})


def weight_shapes(architecture: str, shape: Shape, vocabulary: int) -> dict[str, tuple[int, ...]]:
    """Every weight's name and shape, as in the Hub's checkpoints of this architecture."""
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocabulary, shape.hidden),
        "model.norm.weight": (shape.hidden,),
    }
    if architecture != "Gemma2ForCausalLM":
        shapes["lm_head.weight"] = (vocabulary, shape.hidden)
    for layer in range(shape.layers):
        for name, dims in (_attention(architecture, shape) | _feed_forward(architecture, shape)).items():
            shapes[f"model.layers.{layer}.{name}"] = dims
    return shapes


def _attention(architecture: str, shape: Shape) -> dict[str, tuple[int, ...]]:
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    shapes: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (shape.hidden,),
        "self_attn.o_proj.weight": (shape.hidden, queries),
    }
    if architecture == "Phi3ForCausalLM":
        return shapes | {"self_attn.qkv_proj.weight": (queries + 2 * keys, shape.hidden)}
    for name, rows in (("q_proj", queries), ("k_proj", keys), ("v_proj", keys)):
        shapes[f"self_attn.{name}.weight"] = (rows, shape.hidden)
        if architecture == "Qwen2ForCausalLM":
            shapes[f"self_attn.{name}.bias"] = (rows,)
    if architecture == "Qwen3ForCausalLM":
        shapes |= {f"self_attn.{name}.weight": (shape.head_dim,) for name in ("q_norm", "k_norm")}
    return shapes


def _feed_forward(architecture: str, shape: Shape) -> dict[str, tuple[int, ...]]:
    hidden, inner = shape.hidden, shape.intermediate
    shapes: dict[str, tuple[int, ...]] = {"post_attention_layernorm.weight": (hidden,)}
    match architecture:
        case "MixtralForCausalLM":
            shapes["block_sparse_moe.gate.weight"] = (shape.experts, hidden)
            for expert in range(shape.experts):
                for name, dims in (("w1", (inner, hidden)), ("w2", (hidden, inner)), ("w3", (inner, hidden))):
                    shapes[f"block_sparse_moe.experts.{expert}.{name}.weight"] = dims
            return shapes
        case "Phi3ForCausalLM":
            shapes["mlp.gate_up_proj.weight"] = (2 * inner, hidden)
        case _:
            shapes |= {"mlp.gate_proj.weight": (inner, hidden), "mlp.up_proj.weight": (inner, hidden)}
    if architecture == "Gemma2ForCausalLM":
        shapes |= {f"{name}_feedforward_layernorm.weight": (hidden,) for name in ("pre", "post")}
    return shapes | {"mlp.down_proj.weight": (hidden, inner)}
