"""`docmill worker`: jobs on an engine; one process a GPU where the engine is for GPUs."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import click
import yaml

from docmill.broker.celery_app import make_app
from docmill.broker.prometheus_endpoint import MetricsEndpoint
from docmill.catalogue.find_model import find_model
from docmill.cli.context import CliContext, pass_context
from docmill.cli.options import engine_option, metrics_address_option, metrics_port_option, slots_option
from docmill.cli.services.connections import await_database, service_broker_url
from docmill.cli.services.gpu_workers import place, run_workers
from docmill.cli.services.logs import configure_logging
from docmill.producer.composition import database_url
from docmill.settings.defaults import DEFAULT_SLOTS, Settings
from docmill.storage.database import Database
from docmill.storage.schema import require_current
from docmill.worker.crash_and_retry_policy import RetryPolicy
from docmill.worker.engines.base import EngineFacts
from docmill.worker.engines.registry import choose_engine
from docmill.worker.engines.spec import EngineSpec
from docmill.worker.service import WorkerOptions, serve

log = logging.getLogger(__name__)
_CONNECTIONS = 4  # moves take milliseconds: the threads share these, for Postgres has 100 for all workers together


@dataclass(frozen=True, slots=True)
class WorkerFlags:
    """What the command line says of a worker; None leaves it to the settings."""

    model: str | None = None
    engine: str | None = None
    slots: int | None = None
    drain_timeout: float | None = None
    device: str = "cpu"
    metrics_port: int | None = None
    metrics_address: str | None = None
    engine_options: dict[str, Any] = field(default_factory=dict)

    def as_arguments(self) -> list[str]:
        """The same flags, for a worker that is started as a process of its own."""
        arguments = []
        for name in ("model", "engine", "slots", "drain_timeout", "metrics_port", "metrics_address"):
            value = getattr(self, name)
            arguments += [f"--{name.replace('_', '-')}", str(value)] if value is not None else []
        for name, value in self.engine_options.items():
            arguments += ["--engine-option", f"{name}={yaml.safe_dump(value, default_flow_style=True).strip()}"]
        return arguments


@click.command(
    epilog="""\b
Examples:
  docmill worker
  docmill --profile advanced_llm worker --slots 16
  docmill worker --gpus 0,2
  docmill worker --model models/Llama-70B-exl2 --gpu-split 22,24
"""
)
@click.option("--model", help="Serve this model instead of the profile's.")
@engine_option
@slots_option
@click.option("--gpus", metavar="0,2", help="Use these GPUs, a worker process on each; all of this box otherwise.")
@click.option("--gpu-split", metavar="GIB,GIB", help="Lay one model over the GPUs, so many GiB on each.")
@click.option("--tensor-parallel", is_flag=True, help="Lay every layer over all GPUs, where the model's kind can.")
@click.option(
    "--drain-timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    help="After SIGTERM, finish running jobs for so long; then, or by default at once, put them back.",
)
@metrics_port_option
@metrics_address_option
@click.option("--engine-option", multiple=True, hidden=True, metavar="KEY=VALUE", help="An option of the engine's own.")
@click.option("--device", default="cpu", hidden=True, help="What this worker is called: cpu, gpu0, gpu0+1.")
@pass_context
def worker(
    context: CliContext,
    /,
    gpus: str | None,
    gpu_split: str | None,
    tensor_parallel: bool,  # noqa: FBT001
    engine_option: Sequence[str],
    **flags: Any,
) -> None:
    """Run jobs on an engine until a signal ends it.

    The worker loads one model and takes jobs from that model's queue. An engine for GPUs gets a worker process on
    each GPU (CUDA_VISIBLE_DEVICES counts). SIGTERM or Ctrl-C: running jobs are put back (or finished, for
    worker.drain_timeout_s seconds) and the worker ends; no attempt is lost.
    """
    configure_logging()
    options = dict(_key_value(pair) for pair in engine_option)
    if gpu_split:
        options["gpu_split"] = [_gib(part) for part in gpu_split.split(",")]
    if tensor_parallel:
        options["tensor_parallel"] = True
    chosen = WorkerFlags(**flags, engine_options=options)
    made = worker_options(context.settings, context.profile, chosen)
    if chosen.device == "cpu":
        placements = place(made.spec.engine, gpus, is_split=bool(gpu_split or tensor_parallel))
        if placements:
            code = run_workers(
                placements,
                [*context.global_options, "worker", *chosen.as_arguments()],
                drain_timeout_s=made.drain_timeout_s,
            )
            context.exit(code)
    _serve(context.settings, made)


def _serve(settings: Settings, options: WorkerOptions) -> None:
    url = service_broker_url(settings)
    threads = options.spec.slots + options.lookahead
    database = Database(database_url(settings), pool_size=min(_CONNECTIONS, threads + 1))  # and the heartbeat
    await_database(lambda: require_current(database))

    def ready(name: str, facts: EngineFacts) -> None:
        log.info(
            "worker %s serves %s on %s: %d slots, window %d tokens",
            name, options.spec.model.name, facts.engine, facts.slots, facts.context_window,
        )  # fmt: skip

    serve(lambda: make_app(url), database, options, on_ready=ready)


def worker_options(settings: Settings, profile: str | None, flags: WorkerFlags) -> WorkerOptions:
    """What the settings and flags make of a worker on this machine."""
    chosen = settings.profile(profile)
    found = find_model(flags.model or chosen.model, settings.home)
    name = flags.engine or settings.worker.engine
    tuned = chosen.optimization
    spec = EngineSpec(
        engine=choose_engine(found, tuned.quantization) if name == "auto" else name,
        model=found,
        home=settings.home,
        slots=flags.slots or settings.worker.slots or tuned.batch_size or DEFAULT_SLOTS,
        threads=tuned.threads,
        quantization=tuned.quantization,
        context_window=chosen.context_window,
        kv_cache=tuned.kv_cache,
        cuda_enabled=tuned.cuda_enabled,
        cuda_layers=tuned.cuda_layers,
        options=flags.engine_options,
    )
    policy = RetryPolicy(max_attempts=settings.worker.max_attempts, poison_deaths=settings.worker.poison_deaths)
    return WorkerOptions(
        spec=spec,
        lookahead=settings.worker.lookahead,
        lease_s=settings.worker.lease_s,
        drain_timeout_s=settings.worker.drain_timeout_s if flags.drain_timeout is None else flags.drain_timeout,
        policy=policy,
        sample_s=settings.worker.sample_s,
        device=flags.device,
        metrics=_metrics(settings, flags),
    )


def _metrics(settings: Settings, flags: WorkerFlags) -> MetricsEndpoint | None:
    """Of the workers on a box's GPUs each has a port of its own: that of GPU 2 is two above the one given."""
    port = flags.metrics_port or settings.worker.metrics_port
    if port is None:
        return None
    gpu = re.match(r"gpu(\d+)", flags.device)
    return MetricsEndpoint(port + (int(gpu[1]) if gpu else 0), flags.metrics_address or settings.worker.metrics_address)


def _key_value(pair: str) -> tuple[str, Any]:
    key, equals, value = pair.partition("=")
    if not equals or not key:
        raise click.BadParameter(f"{pair!r} is not KEY=VALUE", param_hint="--engine-option")
    return key, yaml.safe_load(value)


def _gib(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a number of GiB", param_hint="--gpu-split") from None
