"""How much memory a model on disk needs once it is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from docmill.catalogue.gguf_file import f16_bytes
from docmill.catalogue.local_model import Model, ModelKind
from docmill.catalogue.model_entry import CatalogueEntry
from docmill.engine_table import engine_info
from docmill.sizing.cpu_kv_cache import kv_values_per_token
from docmill.sizing.gpu_memory import CacheType
from docmill.sizing.model_shape import read_model_shape

_F16_BYTES = 2


def openvino_can_run(entry: CatalogueEntry) -> bool:
    """OpenVINO supports the architecture, and docmill would convert the weights to F16 for it."""
    return "openvino" in entry.engines and entry.computed_sizes["fp16"] <= engine_info("openvino").f16_weights_bytes_max


@dataclass(frozen=True, slots=True)
class ModelMemory:
    """Bytes of the weights as the engine keeps them, and of the keys and values of one full context window."""

    weights_bytes: int
    window_bytes: int


def model_memory(model: Model, engine: str, context_window: int | None, quantization: str | None) -> ModelMemory:
    """Read from the model's files. `context_window` caps the model's own, in tokens. Raises CatalogueError."""
    window = min(context_window or model.context_window, model.context_window)
    if model.kind is ModelKind.DIRECTORY:
        shape = read_model_shape(model.path)
        cache_type = CacheType.from_quantization(quantization)
        return ModelMemory(shape.weights_bytes, window * cache_type.bytes_per_token(shape))
    weights = f16_bytes(model.path) if engine == "openvino" else model.path.stat().st_size
    return ModelMemory(weights, window * kv_values_per_token(model.path) * _F16_BYTES)
