"""`docmill worker` and `docmill dispatcher`: the two services by themselves."""

from __future__ import annotations

import logging
import signal
import threading

import click

from broker.app import make_app
from broker.embedded import running_url
from broker.errors import EmbeddedBrokerFailed
from catalogue.resolve import find_model
from cli.context import CliContext, pass_context
from cli.logs import configure_logging
from producer.client import Client, broker_directory, database_url
from settings.model import Settings
from storage.database import Database
from storage.schema import require_current
from worker.engines.base import EngineFacts
from worker.engines.registry import choose_engine
from worker.engines.spec import EngineSpec
from worker.policy import RetryPolicy
from worker.service import WorkerOptions, serve

log = logging.getLogger(__name__)


@click.command(
    epilog="""\b
Examples:
  docmill worker
  docmill --profile advanced_llm worker --slots 16
"""
)
@click.option("--model", help="Serve this model instead of the profile's.")
@click.option("--engine", help="openvino, llamacpp or simulated; the default chooses by the model.")
@click.option("--slots", type=click.IntRange(min=1), help="Jobs in the engine at once.")
@pass_context
def worker(context: CliContext, model: str | None, engine: str | None, slots: int | None) -> None:
    """Run jobs on an engine until a signal ends it.

    The worker loads one model and takes jobs from that model's queue. SIGTERM or Ctrl-C: running jobs are put
    back (or finished, for worker.drain_timeout_s seconds) and the worker ends; no attempt is lost.
    """
    configure_logging()
    settings = context.settings
    options = worker_options(settings, context.profile, model=model, engine=engine, slots=slots)
    url = service_broker_url(settings)
    database = Database(database_url(settings), pool_size=8)
    require_current(database)

    def ready(name: str, facts: EngineFacts) -> None:
        log.info(
            "worker %s serves %s on %s: %d slots, window %d tokens",
            name, options.spec.model.name, facts.engine, facts.slots, facts.context_window,
        )  # fmt: skip

    serve(lambda: make_app(url), database, options, on_ready=ready)


@click.command(epilog="\b\nExample:\n  docmill dispatcher")
@pass_context
def dispatcher(context: CliContext) -> None:
    """Keep the queues filled, rescue lost jobs, plan merges, end batches.

    Any number of dispatchers may run; one is enough, two survive a host.
    """
    configure_logging()
    client = Client(context.settings)
    app = make_app(service_broker_url(context.settings))
    service = client.dispatcher(app)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    log.info("dispatcher at work on %s", client.database)
    service.run(stop)


def worker_options(
    settings: Settings, profile: str | None, *, model: str | None, engine: str | None, slots: int | None
) -> WorkerOptions:
    """What the settings and flags make of a worker on this machine."""
    chosen = settings.profile(profile)
    found = find_model(model or chosen.model, settings.home)
    name = engine or settings.worker.engine
    tuned = chosen.optimization
    spec = EngineSpec(
        engine=choose_engine(found) if name == "auto" else name,
        model=found,
        home=settings.home,
        slots=slots or settings.worker.slots or tuned.batch_size or 16,
        threads=tuned.threads,
        quantization=tuned.quantization,
        context_window=chosen.context_window,
    )
    policy = RetryPolicy(max_attempts=settings.worker.max_attempts, poison_deaths=settings.worker.poison_deaths)
    return WorkerOptions(
        spec=spec,
        lookahead=settings.worker.lookahead,
        lease_s=settings.worker.lease_s,
        drain_timeout_s=settings.worker.drain_timeout_s,
        policy=policy,
    )


def service_broker_url(settings: Settings) -> str:
    """The configured broker, or the embedded one that `docmill up` runs. Raises EmbeddedBrokerFailed."""
    url = settings.broker.url or running_url(broker_directory(settings))
    if url is None:
        raise EmbeddedBrokerFailed(
            "no broker: set broker.url (or DOCMILL_BROKER__URL) to a Redis, or run `docmill up` on this machine first"
        )
    return url
