"""From an engine's name to a loaded engine. The libraries are imported only by the engine that needs them."""

from __future__ import annotations

import os

from docmill.catalogue.families import engines_for
from docmill.catalogue.gguf_file import f16_bytes, read_header
from docmill.catalogue.local_model import Model, ModelKind
from docmill.sizing.model_shape import read_model_shape
from docmill.worker.engines.base import Engine, ModelUnusable
from docmill.worker.engines.spec import EngineSpec

ENGINES = ("exllamav2", "exllamav3", "openvino", "llamacpp", "simulated")
GPU_ENGINES = ("exllamav2", "exllamav3")
_EXTRAS = {"exllamav2": "exllamav2", "exllamav3": "exllamav3"}
F16_BYTES_MAX = 4 << 30  # OpenVINO's weights are rewritten as F16, on disk and in memory


def choose_engine(model: Model, quantization: str | None = None) -> str:
    """The engine for a model on this machine. Raises CatalogueError for a damaged file."""
    if model.kind is ModelKind.SIMULATED:
        return "simulated"
    if model.kind is ModelKind.DIRECTORY:
        return "exllamav3" if read_model_shape(model.path).weights_format == "exl3" else "exllamav2"
    if quantization == "int4":  # llama.cpp keeps keys and values in 4 bits
        return "llamacpp"
    if "openvino" not in engines_for(read_header(model.path).architecture):
        return "llamacpp"
    return "openvino" if f16_bytes(model.path) <= F16_BYTES_MAX else "llamacpp"


def load_engine(spec: EngineSpec) -> Engine:
    """Load the model. Raises ModelUnusable, saying what to do."""
    try:
        match spec.engine:
            case "exllamav2":
                from docmill.worker.engines import exllamav2

                return exllamav2.load(spec)
            case "exllamav3":
                from docmill.worker.engines import exllamav3

                return exllamav3.load(spec)
            case "openvino":
                from docmill.worker.engines.openvino import OpenVinoEngine

                return OpenVinoEngine(spec)
            case "llamacpp":
                # Read when its library loads: how long its threads spin before they sleep when they wait for each
                # other. With the default, one busy neighbour on two cores makes it three times slower than with this.
                os.environ.setdefault("GOMP_SPINCOUNT", "1000")
                from docmill.worker.engines.llamacpp import LlamaCppEngine

                return LlamaCppEngine(spec)
            case "simulated":
                from docmill.worker.engines.simulated import SimulatedEngine

                return SimulatedEngine(spec)
    except ImportError as error:
        extra = _EXTRAS.get(spec.engine, "cpu")
        raise ModelUnusable(
            f"the engine {spec.engine} is not installed ({error}); pip install 'docmill[{extra}]'"
        ) from error
    raise ModelUnusable(f"there is no engine {spec.engine!r}; there are {', '.join(ENGINES)}")
