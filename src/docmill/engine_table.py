"""The engines that docmill supports, one row each.

To add an engine, write `worker/engines/NAME.py` and add its row here: the configuration, the command line, `doctor`,
the sizing arithmetic and the worker read this table. Nothing here imports an engine's library.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Device(StrEnum):
    """What an engine computes on."""

    CPU = "cpu"
    GPU = "gpu"


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What is known about an engine without loading it.

    `loader` is the `module:callable` that turns an `EngineSpec` into a loaded `Engine`. `libraries` are the modules
    that it imports, its own library first; `extra` is the pip extra that installs them. `kv_precisions` are the
    values of `optimization.quantization` that it supports, the default first. `environment` is set before its
    libraries load, unless the variable is set already.

    `f16_weights_bytes_max`: the engine converts weights to F16 and is chosen automatically only for models that then
    take at most this. `shared_kv_tokens`: the most tokens of keys and values that its slots share by default; None
    for no such limit.
    """

    name: str
    loader: str
    device: Device | None = None
    extra: str | None = None
    libraries: tuple[str, ...] = ()
    kv_precisions: tuple[str, ...] = ("fp16",)
    environment: Mapping[str, str] = field(default_factory=dict)
    f16_weights_bytes_max: int = 0
    shared_kv_tokens: int | None = None


ENGINES = (
    EngineInfo(
        name="exllamav2",
        loader="docmill.worker.engines.exllamav2:load",
        device=Device.GPU,
        extra="exllamav2",
        libraries=("exllamav2", "torch", "flash_attn"),
        kv_precisions=("fp16", "int8", "int6", "int4"),
    ),
    EngineInfo(
        name="exllamav3",
        loader="docmill.worker.engines.exllamav3:load",
        device=Device.GPU,
        extra="exllamav3",
        libraries=("exllamav3", "torch", "flash_attn"),
        kv_precisions=("fp16", "int8", "int6", "int4"),
    ),
    EngineInfo(
        name="openvino",
        loader="docmill.worker.engines.openvino:OpenVinoEngine",
        device=Device.CPU,
        extra="cpu",
        libraries=("openvino_genai",),
        # int8 halves the memory of keys and values, and greedy text stays as good. OpenVINO has u4 too, which corrupts
        # the memory of the process (2026.4.1).
        kv_precisions=("fp16", "int8"),
        f16_weights_bytes_max=4 << 30,
    ),
    EngineInfo(
        name="llamacpp",
        loader="docmill.worker.engines.llamacpp:LlamaCppEngine",
        device=Device.CPU,
        extra="cpu",
        libraries=("xllamacpp",),
        kv_precisions=("fp16", "int8", "int4"),
        # How long OpenMP threads spin before they sleep while they wait for each other. With the default, one other
        # busy process on two cores makes llama.cpp three times slower.
        environment={"GOMP_SPINCOUNT": "1000"},
        shared_kv_tokens=32_768,
    ),
    EngineInfo(name="simulated", loader="docmill.worker.engines.simulated:SimulatedEngine"),
)
ENGINE_NAMES = tuple(engine.name for engine in ENGINES)
GPU_ENGINES = tuple(engine.name for engine in ENGINES if engine.device is Device.GPU)
CPU_ENGINES = tuple(engine.name for engine in ENGINES if engine.device is Device.CPU)


def engine_info(name: str) -> EngineInfo:
    """The engine's row. Raises KeyError for an unknown name."""
    return _BY_NAME[name]


_BY_NAME = {engine.name: engine for engine in ENGINES}
