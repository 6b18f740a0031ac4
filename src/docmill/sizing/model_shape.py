"""The dimensions of a model and the sizes of its weights as loaded on GPUs, read from files or computed.

Model directories (EXL2, EXL3, GPTQ, plain safetensors): from config.json and the headers of the safetensors files, as
exllamav2 0.3.2 does (config.py), but without torch and without loading the weights. Catalogue models: from the
dimensions that the catalogue states, before anything is downloaded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docmill.catalogue.errors import ModelDamaged
from docmill.catalogue.model_entry import CatalogueEntry, Dimensions
from docmill.catalogue.safetensors_header import TensorEntry, read_tensors

_LAYER = re.compile(r"^(?:language_model\.)?model\.layers\.(\d+)\.(.+)$")
_EMBEDDING = re.compile(r"^(?:language_model\.)?model\.embed_tokens\.")
_HEAD = re.compile(r"^(?:language_model\.)?(?:model\.norm|lm_head)\.")
_LM_HEAD = re.compile(r"^(?:language_model\.)?lm_head\.")
_PADDED_TO = 32  # rows of the head
_HALF_BITS = 16.0
_EXL2_HEAD_BITS = 6.0  # EXL2 conversions keep the output head at 6 bits or more
# Defaults that transformers omits when it writes a Gemma-3 configuration.
_DEFAULTS = {"gemma3_text": {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 262208}}
_FP32_RESIDUAL = frozenset({"gemma2", "gemma3", "gemma3_text"})
_TWO_ROPES = frozenset({"gemma3", "gemma3_text"})


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Dimensions, and sizes in bytes as loaded on a GPU.

    `attention_bytes` and `mlp_bytes` have one number per layer; `head_bytes` is the last norm and the output head.
    The embedding stays in the computer's memory.
    """

    architecture: str
    weights_format: str
    dimensions: Dimensions
    rotary_dim: int
    rotary_tables: int
    residual_bytes: int
    max_position: int
    embedding_bytes: int
    attention_bytes: tuple[int, ...]
    mlp_bytes: tuple[int, ...]
    head_bytes: int

    @property
    def layers(self) -> int:
        """Decoder layers."""
        return len(self.attention_bytes)

    @property
    def padded_vocab(self) -> int:
        """Rows of the output head."""
        return -(-self.dimensions.vocab // _PADDED_TO) * _PADDED_TO

    @property
    def weights_bytes(self) -> int:
        """All weights that are loaded on GPUs: everything except the embedding."""
        return sum(self.attention_bytes) + sum(self.mlp_bytes) + self.head_bytes

    @property
    def gpu_parameters(self) -> int:
        """The number of elements of the matrices on GPUs, computed from the dimensions."""
        own = self.dimensions
        return self.layers * (own.attention_parameters + own.mlp_parameters) + own.vocab * own.hidden

    @property
    def bits_per_weight(self) -> float:
        """The mean over all matrices on GPUs."""
        return 8 * self.weights_bytes / self.gpu_parameters


def read_model_shape(directory: Path) -> ModelShape:
    """Read the shape of a model directory. Raises ModelDamaged, naming what is missing."""
    path = directory / "config.json"
    config = _json(path)
    nested = config.get("text_config")
    text = {**config, **nested} if isinstance(nested, dict) else config
    model_type = str(text.get("model_type", ""))
    numbers = _Numbers(path, {**_DEFAULTS.get(model_type, {}), **text})
    hidden, heads = numbers.need("hidden_size"), numbers.need("num_attention_heads")
    experts = numbers.get("num_local_experts") or numbers.get("num_experts") or 1
    moe_size = numbers.get("moe_intermediate_size") if experts > 1 else None
    head_dim = numbers.get("head_dim") or hidden // heads
    layers = numbers.need("num_hidden_layers")
    weights = _weights(directory, layers)
    return ModelShape(
        architecture=_architecture(path, config),
        weights_format=_weights_format(config, weights.names),
        dimensions=Dimensions(
            hidden=hidden,
            intermediate=moe_size or numbers.need("intermediate_size"),
            layers=layers,
            heads=heads,
            kv_heads=numbers.get("num_key_value_heads") or heads,
            head_dim=head_dim,
            vocab=numbers.need("vocab_size"),
            experts=experts,
        ),
        rotary_dim=int(head_dim * float(text.get("partial_rotary_factor") or 1.0)),
        rotary_tables=2 if model_type in _TWO_ROPES else 1,
        residual_bytes=4 if model_type in _FP32_RESIDUAL else 2,
        max_position=numbers.need("max_position_embeddings"),
        embedding_bytes=weights.embedding,
        attention_bytes=tuple(weights.attention),
        mlp_bytes=tuple(weights.mlp),
        head_bytes=weights.head,
    )


def computed_shape(entry: CatalogueEntry, bits: float) -> ModelShape:
    """The shape that a conversion of a catalogue model to this number of bits per weight would have."""
    dimensions = entry.dimensions
    head = dimensions.hidden * dimensions.vocab
    return ModelShape(
        architecture=entry.architecture,
        weights_format="exl2",
        dimensions=dimensions,
        rotary_dim=dimensions.head_dim,
        rotary_tables=1,
        residual_bytes=4 if entry.architecture.startswith("Gemma2") else 2,
        max_position=entry.context_window,
        embedding_bytes=_weights_bytes(head, _HALF_BITS),
        attention_bytes=(_weights_bytes(dimensions.attention_parameters, bits),) * dimensions.layers,
        mlp_bytes=(_weights_bytes(dimensions.mlp_parameters, bits),) * dimensions.layers,
        head_bytes=_weights_bytes(head, max(bits, _EXL2_HEAD_BITS)),
    )


def _weights_bytes(parameters: int, bits: float) -> int:
    return round(parameters * bits / 8)


@dataclass(frozen=True, slots=True)
class _Numbers:
    """The integers in a config.json."""

    path: Path
    values: Mapping[str, Any]

    def get(self, key: str) -> int | None:
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, int) or value < 1:
            raise ModelDamaged(self.path, f"{key} is {value!r}, not a positive integer")
        return value

    def need(self, key: str) -> int:
        value = self.get(key)
        if value is None:
            raise ModelDamaged(self.path, f"{key} is missing")
        return value


@dataclass(slots=True)
class _Weights:
    attention: list[int]
    mlp: list[int]
    embedding: int = 0
    head: int = 0
    names: frozenset[str] = frozenset()


def _weights(directory: Path, layers: int) -> _Weights:
    tensors = [tensor for file in _files(directory) for tensor in read_tensors(file)]
    found = _Weights([0] * layers, [0] * layers, names=frozenset(tensor.name for tensor in tensors))
    for tensor in tensors:
        size = _loaded_bytes(tensor)
        layer = _LAYER.match(tensor.name)
        if layer and int(layer[1]) < layers:
            part = found.attention if layer[2].startswith("self_attn.") else found.mlp
            part[int(layer[1])] += size
        elif _EMBEDDING.match(tensor.name):
            found.embedding += size
        elif _HEAD.match(tensor.name):
            found.head += size
    empty = [str(i) for i in range(layers) if not (found.attention[i] and found.mlp[i])]
    if empty:
        raise ModelDamaged(directory, f"its safetensors files contain no weights for layer {', '.join(empty[:5])}")
    if not found.embedding:
        raise ModelDamaged(directory, "its safetensors files contain no embedding")
    if not any(_LM_HEAD.match(name) for name in found.names):
        found.head += found.embedding  # tied: loaded a second time as the head
    return found


def _files(directory: Path) -> Iterable[Path]:
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        parts = _json(index).get("weight_map", {})
        missing = sorted({str(part) for part in parts.values() if not (directory / str(part)).is_file()})
        # EXL2 conversions keep the index of the original model but write output*.safetensors.
        if missing and not any(directory.glob("output*.safetensors")):
            raise ModelDamaged(directory, f"{', '.join(missing[:3])} is missing")
    files = sorted(directory.glob("*.safetensors"))
    if not files:
        raise ModelDamaged(directory, "it contains no safetensors files")
    return files


def _loaded_bytes(tensor: TensorEntry) -> int:
    """Bytes on the GPU: engines store 32-bit floats in 16 bits."""
    return tensor.size_bytes // 2 if tensor.dtype == "F32" else tensor.size_bytes


def _architecture(path: Path, config: Mapping[str, Any]) -> str:
    names = config.get("architectures")
    if not isinstance(names, list) or len(names) != 1:
        raise ModelDamaged(path, "architectures does not name exactly one architecture")
    return str(names[0])


def _weights_format(config: Mapping[str, Any], names: Iterable[str]) -> str:
    quantization = config.get("quantization_config")
    if isinstance(quantization, dict) and quantization.get("quant_method"):
        return str(quantization["quant_method"]).lower()
    return "exl2" if any(name.endswith(".q_weight") for name in names) else "fp16"


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ModelDamaged(path, "the file does not exist") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelDamaged(path, f"it is not valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise ModelDamaged(path, "it is not a JSON object")
    return content
