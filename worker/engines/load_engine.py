"""Choose an engine for a model and load it. Only the chosen engine's libraries are imported."""

from __future__ import annotations

import os
from importlib import import_module
from typing import cast

from docmill.catalogue.families import engines_for
from docmill.catalogue.gguf_file import f16_bytes, read_header
from docmill.catalogue.local_model import Model, ModelKind
from docmill.engine_table import ENGINE_NAMES, engine_info
from docmill.sizing.model_shape import read_model_shape
from docmill.worker.engines.base import Engine, ModelUnusable
from docmill.worker.engines.spec import EngineSpec


def choose_engine(model: Model, quantization: str | None = None) -> str:
    """The engine that runs the model when the configuration names none. Raises CatalogueError for a damaged file."""
    if model.kind is ModelKind.SIMULATED:
        return "simulated"
    if model.kind is ModelKind.DIRECTORY:
        return "exllamav3" if read_model_shape(model.path).weights_format == "exl3" else "exllamav2"
    openvino = engine_info("openvino")
    if quantization and quantization not in openvino.kv_precisions:
        return "llamacpp"
    if "openvino" not in engines_for(read_header(model.path).architecture):
        return "llamacpp"
    return "openvino" if f16_bytes(model.path) <= openvino.f16_weights_bytes_max else "llamacpp"


def load_engine(spec: EngineSpec) -> Engine:
    """Load the model into its engine. Raises ModelUnusable, whose message says what to do."""
    if spec.engine not in ENGINE_NAMES:
        raise ModelUnusable(f"unknown engine {spec.engine!r}; choose one of {', '.join(ENGINE_NAMES)}")
    info = engine_info(spec.engine)
    for variable, value in info.environment.items():
        os.environ.setdefault(variable, value)
    module, _, loader = info.loader.partition(":")
    try:
        return cast("Engine", getattr(import_module(module), loader)(spec))
    except ImportError as error:
        raise ModelUnusable(
            f"the engine {spec.engine} is not installed ({error}); pip install 'docmill[{info.extra}]'"
        ) from error
