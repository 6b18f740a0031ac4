"""`docmill worker`: runs jobs on an engine."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
import yaml

from docmill.cli.context import CliContext, pass_context
from docmill.cli.options import (
    engine_option,
    key_value,
    metrics_address_option,
    metrics_port_option,
    model_option,
    slots_option,
)

if TYPE_CHECKING:
    from docmill.settings.defaults import Settings
    from docmill.worker.engines.base import EngineFacts
    from docmill.worker.service import WorkerOptions

log = logging.getLogger(__name__)
_CONNECTIONS = 4  # shared by all threads: transactions are short, and Postgres allows 100 for all workers together


@click.command(
    epilog="""\b
Examples:
  docmill worker
  docmill --profile advanced_llm worker --slots 16
  docmill worker --gpus 0,2
  docmill worker --model models/Llama-70B-exl2 --gpu-split 22,24
"""
)
@model_option
@engine_option
@slots_option
@click.option("--gpus", metavar="0,2", help="Run a worker process on each of these GPUs; by default on all.")
@click.option("--gpu-split", metavar="GIB,GIB", help="Split one model over the GPUs, with so many GiB on each.")
@click.option("--tensor-parallel", is_flag=True, help="Split every layer over all GPUs, if the architecture allows it.")
@click.option(
    "--drain-timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    help="After SIGTERM, give running jobs this time to finish before they are requeued; by default 0.",
)
@metrics_port_option
@metrics_address_option
@click.option("--engine-option", multiple=True, hidden=True, metavar="KEY=VALUE", help="An option of this engine.")
@click.option("--device", default="cpu", hidden=True, help="The worker's device in its name: cpu, gpu0, gpu0+1.")
@pass_context
def worker(
    context: CliContext,
    /,
    gpus: str | None,
    gpu_split: str | None,
    tensor_parallel: bool,
    engine_option: Sequence[str],
    **flags: Any,
) -> None:
    """Run jobs on an engine until a signal ends it.

    The worker loads one model and takes jobs from that model's queue. For an engine on GPUs, one worker process
    starts on each GPU that CUDA_VISIBLE_DEVICES allows. On SIGTERM or Ctrl-C, running jobs are requeued (or finished,
    within worker.drain_timeout_s seconds) and the worker ends; this does not count as a
    failed attempt.
    """
    from docmill.cli.services.gpu_workers import place, run_workers
    from docmill.cli.services.logs import configure_logging
    from docmill.cli.services.worker_options import WorkerFlags, worker_options

    configure_logging()
    engine_options = dict(parse_engine_option(pair) for pair in engine_option)
    if gpu_split:
        engine_options["gpu_split"] = [_gib(part) for part in gpu_split.split(",")]
    if tensor_parallel:
        engine_options["tensor_parallel"] = True
    chosen = WorkerFlags(**flags, engine_options=engine_options)
    options = worker_options(context.settings, context.profile, chosen)
    if chosen.device == "cpu":
        placements = place(options.spec.engine, gpus, is_split=bool(gpu_split or tensor_parallel))
        if placements:
            arguments = [*context.global_options, "worker", *chosen.as_arguments()]
            context.exit(run_workers(placements, arguments, drain_timeout_s=options.settings.drain_timeout_s))
    _serve(context.settings, options)


def _serve(settings: Settings, options: WorkerOptions) -> None:
    from docmill.broker.celery_app import make_app
    from docmill.cli.services.connections import await_database, broker_url
    from docmill.producer.composition import database_url
    from docmill.storage.database import Database
    from docmill.storage.schema import require_current
    from docmill.worker.service import serve

    url = broker_url(settings)
    threads = options.spec.slots + options.settings.lookahead + 1  # and the heartbeat
    database = Database(database_url(settings), pool_size=min(_CONNECTIONS, threads))
    await_database(lambda: require_current(database))

    def log_ready(name: str, facts: EngineFacts) -> None:
        log.info(
            "worker %s serves %s on %s: %d slots, window %d tokens",
            name, options.spec.model.name, facts.engine, facts.slots, facts.context_window,
        )  # fmt: skip

    serve(lambda: make_app(url), database, options, on_ready=log_ready)


def parse_engine_option(pair: str) -> tuple[str, Any]:
    """The name and the YAML value of `--engine-option KEY=VALUE`."""
    key, value = key_value(pair, "--engine-option")
    return key, yaml.safe_load(value)


def _gib(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a number of GiB", param_hint="--gpu-split") from None
