"""From an engine's name to a loaded engine. The libraries are imported only by the engine that needs them."""

from __future__ import annotations

from catalogue.gguf_file import read_header
from catalogue.model import Model, ModelKind
from worker.engines.base import Engine, ModelUnusable
from worker.engines.spec import EngineSpec

ENGINES = ("openvino", "llamacpp", "simulated")
_OPENVINO_READS = frozenset({"llama", "qwen2", "qwen3"})  # architectures of its GGUF reader


def choose_engine(model: Model) -> str:
    """The engine for a model on this machine. Raises CatalogueError for a damaged file."""
    if model.kind is ModelKind.SIMULATED:
        return "simulated"
    if model.kind is ModelKind.GGUF and read_header(model.path).architecture in _OPENVINO_READS:
        return "openvino"
    return "llamacpp"


def load_engine(spec: EngineSpec) -> Engine:
    """Load the model. Raises ModelUnusable, saying what to do."""
    try:
        match spec.engine:
            case "openvino":
                from worker.engines.openvino import OpenVinoEngine

                return OpenVinoEngine(spec)
            case "llamacpp":
                from worker.engines.llamacpp import LlamaCppEngine

                return LlamaCppEngine(spec)
            case "simulated":
                from worker.engines.simulated import SimulatedEngine

                return SimulatedEngine(spec)
    except ImportError as error:
        raise ModelUnusable(
            f"the engine {spec.engine} is not installed ({error}); pip install 'docmill[cpu]'"
        ) from error
    raise ModelUnusable(f"there is no engine {spec.engine!r}; there are {', '.join(ENGINES)}")
