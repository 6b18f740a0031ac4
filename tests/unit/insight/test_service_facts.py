"""The facts read from real services: both databases, a real Valkey, the demo's model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from docmill.broker.embedded_broker import EmbeddedBroker
from docmill.catalogue.local_model import Model
from docmill.insight.checkup.service_checks import check_services
from docmill.insight.checkup.service_facts import read_broker_facts, read_database, read_model, read_services
from docmill.producer.composition import broker_directory
from docmill.settings.defaults import Settings
from docmill.settings.load import load_settings
from docmill.storage.database import Database
from docmill.storage.schema import head
from tests.model_directories import write_exl2
from tests.unit.insight.machines import machine


def settings(home: Path, **values: object) -> Settings:
    return load_settings(None, {"home": str(home), **{key.replace("__", "."): v for key, v in values.items()}}, {})


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, EmbeddedBroker]]:
    """A home directory whose embedded broker runs."""
    home = tmp_path_factory.mktemp("h")
    with EmbeddedBroker(broker_directory(settings(home))) as broker:
        yield home, broker


def test_a_migrated_database_answers_with_its_schema_and_its_work(database: Database, tmp_path: Path) -> None:
    url = database.url.render_as_string(hide_password=False)
    facts = read_database(settings(tmp_path, storage__url=url))
    assert (facts.error, facts.schema, facts.needs_schema) == ("", head(), head())
    assert facts.answer is not None
    assert facts.work is not None
    assert (facts.work.jobs, facts.work.workers) == ({}, ())
    assert bool(facts.filesystem) == facts.is_sqlite


def test_an_empty_database_has_no_schema(postgres_url: str, tmp_path: Path) -> None:
    facts = read_database(settings(tmp_path, storage__url=postgres_url))
    assert (facts.error, facts.schema, facts.work) == ("", None, None)


def test_a_database_that_does_not_answer_is_reported_without_its_password(tmp_path: Path) -> None:
    facts = read_database(settings(tmp_path, storage__url="postgresql://me:secret@127.0.0.1:1/x"))
    assert facts.error
    assert "secret" not in facts.error + facts.name
    assert "sqlite:// or postgresql://" in read_database(settings(tmp_path, storage__url="mysql://x/y")).error


def test_a_home_that_does_not_exist_is_not_created(tmp_path: Path) -> None:
    home = tmp_path / "home"
    services = read_services(settings(home), None)
    assert not home.exists()
    assert (services.database.is_there, services.database.is_sqlite) == (False, True)
    assert (services.broker.is_embedded, services.broker.is_running, services.broker.can_embed) == (True, False, True)
    assert "docmill models pull" in services.model.error
    statuses = {finding.check: str(finding.status) for finding in check_services(services, machine())}
    assert statuses == {"files": "warn", "answers": "pass"}


def test_the_embedded_broker_is_found_while_it_runs(running: tuple[Path, EmbeddedBroker]) -> None:
    facts = read_broker_facts(settings(running[0]))
    assert (facts.is_embedded, facts.is_running, facts.error) == (True, True, "")
    assert facts.health is not None
    assert facts.health.append_only


def test_a_configured_broker_is_queried_and_reported_if_unreachable(
    running: tuple[Path, EmbeddedBroker],
) -> None:
    home, broker = running
    assert read_broker_facts(settings(home, broker__url=broker.url)).health is not None
    away = read_broker_facts(settings(home, broker__url="redis://:secret@127.0.0.1:1/0"))
    assert (away.health, away.is_embedded, "127.0.0.1:1" in away.error) == (None, False, True)
    assert "secret" not in away.error + away.url


def test_the_demo_models_size_depends_on_the_engine(home: Path, demo_model: Model) -> None:
    on_openvino = read_model(settings(home), None)
    on_llamacpp = read_model(settings(home, worker__engine="llamacpp"), None)
    assert (on_openvino.engine, on_llamacpp.engine) == ("openvino", "llamacpp")
    assert on_llamacpp.weights_bytes == demo_model.path.stat().st_size
    assert on_openvino.weights_bytes == pytest.approx(2 * 134_515_008, rel=0.02)
    assert on_openvino.window_bytes == 8192 * 30 * 2 * 3 * 64 * 2


def test_a_model_directory_needs_a_gpu(tmp_path: Path) -> None:
    directory = write_exl2(tmp_path / "m")
    (directory / "tokenizer.json").write_text("{}")
    options = {"llm__model": str(directory), "llm__context_window": 4096, "llm__optimization__quantization": "int8"}
    facts = read_model(settings(tmp_path, **options), None)
    assert (facts.engine, facts.is_on_gpu, facts.error) == ("exllamav2", True, "")
    assert facts.window_bytes == 4096 * 69_632
