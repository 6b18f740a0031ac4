"""What the settings and the command line say about a worker on this machine."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from docmill.broker.prometheus_endpoint import MetricsEndpoint
from docmill.catalogue.find_model import find_model
from docmill.settings.defaults import DEFAULT_SLOTS, Settings
from docmill.worker.engines.load_engine import choose_engine
from docmill.worker.engines.spec import EngineSpec
from docmill.worker.service import WorkerOptions


@dataclass(frozen=True, slots=True)
class WorkerFlags:
    """The worker's options on the command line; None leaves one to the settings."""

    model: str | None = None
    engine: str | None = None
    slots: int | None = None
    drain_timeout: float | None = None
    device: str = "cpu"
    metrics_port: int | None = None
    metrics_address: str | None = None
    engine_options: dict[str, Any] = field(default_factory=dict)

    def as_arguments(self) -> list[str]:
        """The same options, without the device, for a worker as a child process."""
        arguments = []
        for name in ("model", "engine", "slots", "drain_timeout", "metrics_port", "metrics_address"):
            value = getattr(self, name)
            arguments += [f"--{name.replace('_', '-')}", str(value)] if value is not None else []
        for name, value in self.engine_options.items():
            arguments += ["--engine-option", f"{name}={yaml.safe_dump(value, default_flow_style=True).strip()}"]
        return arguments


def engine_spec(settings: Settings, profile_name: str | None, flags: WorkerFlags) -> EngineSpec:
    """The engine to load, with its model and options. Raises CatalogueError if the model is not on this machine."""
    profile = settings.profile(profile_name)
    optimization = profile.optimization
    model = find_model(flags.model or profile.model, settings.home)
    engine = flags.engine or settings.worker.engine
    return EngineSpec(
        engine=choose_engine(model, optimization.quantization) if engine == "auto" else engine,
        model=model,
        home=settings.home,
        slots=flags.slots or settings.worker.slots or optimization.batch_size or DEFAULT_SLOTS,
        threads=optimization.threads,
        quantization=optimization.quantization,
        context_window=profile.context_window,
        kv_cache=optimization.kv_cache,
        cuda_enabled=optimization.cuda_enabled,
        cuda_layers=optimization.cuda_layers,
        options=flags.engine_options,
    )


def worker_options(settings: Settings, profile_name: str | None, flags: WorkerFlags) -> WorkerOptions:
    """All options of a worker. Raises CatalogueError if the model is not on this machine."""
    worker = settings.worker
    if flags.drain_timeout is not None:
        worker = worker.model_copy(update={"drain_timeout_s": flags.drain_timeout})
    spec = engine_spec(settings, profile_name, flags)
    return WorkerOptions(spec, worker, flags.device, _metrics_endpoint(settings, flags))


def _metrics_endpoint(settings: Settings, flags: WorkerFlags) -> MetricsEndpoint | None:
    """Each worker of a machine with several GPUs has its own port: that of GPU 2 is two above the one given."""
    port = flags.metrics_port or settings.worker.metrics_port
    if port is None:
        return None
    gpu = re.match(r"gpu(\d+)", flags.device)
    return MetricsEndpoint(port + (int(gpu[1]) if gpu else 0), flags.metrics_address or settings.worker.metrics_address)
