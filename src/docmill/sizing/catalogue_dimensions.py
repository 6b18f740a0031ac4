"""The dimensions of the catalogue's models, from which their memory can be computed before they are downloaded.

The numbers come from the models' published config.json files. `shape_of` returns the ModelShape that
`read_model_shape` would read from a directory, with computed sizes of the weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from docmill.catalogue.model_entry import Entry
from docmill.sizing.model_shape import ModelShape

_HEAD_BITS = 6.0  # EXL2 conversions keep the output head at 6 bits or more
_HALF = 16.0


@dataclass(frozen=True, slots=True)
class Dimensions:
    """As in config.json. `tied`: the embedding is also the output head. `mlp_matrices`: 3 if the MLP is gated."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool = False
    mlp_matrices: int = 3
    experts: int = 1

    @property
    def attention_parameters(self) -> int:
        """Parameters of one layer's attention."""
        return self.hidden * self.head_dim * 2 * (self.heads + self.kv_heads)

    @property
    def mlp_parameters(self) -> int:
        """Parameters of one layer's MLP, all experts together."""
        return self.mlp_matrices * self.hidden * self.intermediate * self.experts

    @property
    def parameters(self) -> int:
        """Parameters of all matrices; a tied embedding counts once."""
        embedding = self.hidden * self.vocab * (1 if self.tied else 2)
        return self.layers * (self.attention_parameters + self.mlp_parameters) + embedding

    @property
    def kv_values(self) -> int:
        """Key and value elements that are cached for one token in all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim


_LLAMA_7B = Dimensions(4096, 11008, 32, 32, 32, 128, 32000)
_LLAMA_13B = Dimensions(5120, 13824, 40, 40, 40, 128, 32000)

_DIMENSIONS = {
    "smollm2-135m-instruct": Dimensions(576, 1536, 30, 9, 3, 64, 49152, tied=True),
    "smollm2-360m-instruct": Dimensions(960, 2560, 32, 15, 5, 64, 49152, tied=True),
    "smollm2-1.7b-instruct": Dimensions(2048, 8192, 24, 32, 32, 64, 49152, tied=True),
    "qwen2.5-0.5b-instruct": Dimensions(896, 4864, 24, 14, 2, 64, 151936, tied=True),
    "qwen2.5-1.5b-instruct": Dimensions(1536, 8960, 28, 12, 2, 128, 151936, tied=True),
    "qwen2.5-3b-instruct": Dimensions(2048, 11008, 36, 16, 2, 128, 151936, tied=True),
    "qwen2.5-7b-instruct": Dimensions(3584, 18944, 28, 28, 4, 128, 152064),
    "qwen2.5-14b-instruct": Dimensions(5120, 13824, 48, 40, 8, 128, 152064),
    "qwen2.5-32b-instruct": Dimensions(5120, 27648, 64, 40, 8, 128, 152064),
    "qwen2.5-72b-instruct": Dimensions(8192, 29568, 80, 64, 8, 128, 152064),
    "qwen3-0.6b": Dimensions(1024, 3072, 28, 16, 8, 128, 151936, tied=True),
    "qwen3-1.7b": Dimensions(2048, 6144, 28, 16, 8, 128, 151936, tied=True),
    "qwen3-4b": Dimensions(2560, 9728, 36, 32, 8, 128, 151936, tied=True),
    "qwen3-8b": Dimensions(4096, 12288, 36, 32, 8, 128, 151936),
    "qwen3-14b": Dimensions(5120, 17408, 40, 40, 8, 128, 151936),
    "qwen3-32b": Dimensions(5120, 25600, 64, 64, 8, 128, 151936),
    "llama-3.2-1b-instruct": Dimensions(2048, 8192, 16, 32, 8, 64, 128256, tied=True),
    "llama-3.2-3b-instruct": Dimensions(3072, 8192, 28, 24, 8, 128, 128256, tied=True),
    "llama-3.1-8b-instruct": Dimensions(4096, 14336, 32, 32, 8, 128, 128256),
    "llama-3.1-70b-instruct": Dimensions(8192, 28672, 80, 64, 8, 128, 128256),
    "gemma-2-2b-it": Dimensions(2304, 9216, 26, 8, 4, 256, 256000, tied=True),
    "gemma-2-9b-it": Dimensions(3584, 14336, 42, 16, 8, 256, 256000, tied=True),
    "gemma-2-27b-it": Dimensions(4608, 36864, 46, 32, 16, 128, 256000, tied=True),
    "phi-2": Dimensions(2560, 10240, 32, 32, 32, 80, 51200, mlp_matrices=2),
    "phi-3-mini-4k-instruct": Dimensions(3072, 8192, 32, 32, 32, 96, 32064),
    "phi-3-mini-128k-instruct": Dimensions(3072, 8192, 32, 32, 32, 96, 32064),
    "phi-3.5-moe-instruct": Dimensions(4096, 6400, 32, 32, 8, 128, 32064, experts=16),
    "mistral-7b-instruct-v0.3": Dimensions(4096, 14336, 32, 32, 8, 128, 32768),
    "orca-2-7b": _LLAMA_7B,
    "orca-2-13b": _LLAMA_13B,
    "llama-2-7b-chat": _LLAMA_7B,
    "llama-2-13b-chat": _LLAMA_13B,
    "llama-2-70b-chat": Dimensions(8192, 28672, 80, 64, 8, 128, 32000),
}


def dimensions_of(entry: Entry) -> Dimensions:
    """The dimensions of a catalogue model."""
    return _DIMENSIONS[entry.name]


def shape_of(entry: Entry, bits: float) -> ModelShape:
    """The computed shape of a conversion of the model to this number of bits per weight."""
    dimensions = dimensions_of(entry)
    head = dimensions.hidden * dimensions.vocab
    return ModelShape(
        architecture=entry.architecture,
        weights_format="exl2",
        hidden_size=dimensions.hidden,
        intermediate_size=dimensions.intermediate,
        heads=dimensions.heads,
        kv_heads=dimensions.kv_heads,
        head_dim=dimensions.head_dim,
        rotary_dim=dimensions.head_dim,
        rotary_tables=1,
        vocab_size=dimensions.vocab,
        experts=dimensions.experts if dimensions.experts > 1 else 0,
        residual_bytes=4 if entry.architecture.startswith("Gemma2") else 2,
        max_position=entry.context_window,
        embedding_bytes=_bytes(head, _HALF),
        attention_bytes=(_bytes(dimensions.attention_parameters, bits),) * dimensions.layers,
        mlp_bytes=(_bytes(dimensions.mlp_parameters, bits),) * dimensions.layers,
        head_bytes=_bytes(head, max(bits, _HEAD_BITS)),
    )


def _bytes(parameters: int, bits: float) -> int:
    return round(parameters * bits / 8)
