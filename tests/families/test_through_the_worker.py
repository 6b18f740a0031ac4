"""A tiny model of every family goes through the whole worker: submitted, claimed, generated in the engine process the
worker would choose, stored with its metrics."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from docmill.catalogue.families import family_of
from docmill.catalogue.known_models import ENTRIES
from docmill.catalogue.local_model import Model
from docmill.cli.services.worker_options import WorkerFlags, worker_options
from docmill.producer.composition import Backend
from docmill.producer.submission import SubmitOptions
from docmill.settings.load import load_settings
from docmill.storage.database import Database
from docmill.storage.moves.attempts import WorkerIdentity
from docmill.storage.moves.jobs import Jobs
from docmill.storage.moves.workers import WorkerRow
from docmill.storage.schema import upgrade
from docmill.storage.states import JobState
from docmill.storage.tables import Attempt, Job, Result
from docmill.worker.batcher import Batcher
from docmill.worker.crash_and_retry_policy import RetryPolicy
from docmill.worker.database_retry import DatabaseRetry
from docmill.worker.heartbeat import Heartbeat
from docmill.worker.run_job import Outcome, run_job
from tests.exllamav2_cpu.child import SITE
from tests.exllamav2_cpu.installed import require_exllamav2
from tests.exllamav2_cpu.models import ARCHITECTURES, tiny_model
from tests.families.tiny_gguf import write_tiny_gguf

pytestmark = [pytest.mark.model, pytest.mark.slow]
LLAMACPP_ONLY = {"PhiForCausalLM": "phi2", "PhimoeForCausalLM": "phimoe"}


@pytest.fixture(params=[*ARCHITECTURES, *LLAMACPP_ONLY])
def architecture(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(
    architecture: str, demo_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Path, str]]:
    """The tiny model's path and the engine that must be chosen for it."""
    gguf = LLAMACPP_ONLY.get(architecture)
    if gguf is not None:
        yield write_tiny_gguf(tmp_path / f"tiny-{gguf}.gguf", gguf, demo_model.path), "llamacpp"
        return
    require_exllamav2()
    path = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", f"{SITE}:{path}" if path else str(SITE))  # of the engine process
    yield tiny_model(tmp_path / "tiny", demo_model.path, architecture), "exllamav2"


def test_it_answers(model: tuple[Path, str], tmp_path: Path) -> None:
    path, engine = model
    environment = {"DOCMILL_HOME": str(tmp_path / "home"), "DOCMILL_LLM__MODEL": str(path)}
    settings = load_settings(
        environment=environment | {"DOCMILL_LLM__CONTEXT_WINDOW": "512", "DOCMILL_LLM__MAX_TOKENS": "64"}
    )
    document = tmp_path / "document.txt"
    document.write_text("The harbour was quiet. " * 12)
    database = Database(f"sqlite:///{settings.home}/docmill.db")
    upgrade(database)
    backend = Backend(settings)
    submission = backend.prepare((str(document),), SubmitOptions(prompt="Sum up: {text}", max_tokens=6))
    backend.submit(submission)

    options = worker_options(settings, None, WorkerFlags(slots=2))
    assert options.spec.engine == engine
    batcher = Batcher(options.spec)
    facts = batcher.start()
    identity = WorkerIdentity("host/test", facts.engine, options.spec.model.name)
    jobs = Jobs(database, identity, lease_s=60.0)
    heartbeat = Heartbeat(jobs, WorkerRow(database, identity), batcher.cancel, lease_s=60.0)
    try:
        with database.read() as session:
            job_id = session.scalars(select(Job.id)).one()
        verdict = run_job(job_id, jobs, heartbeat, batcher, RetryPolicy(), DatabaseRetry(lambda: False))
        assert verdict.outcome is Outcome.DONE
    finally:
        batcher.close()

    with database.read() as session:
        job, attempt, result = (session.scalars(select(table)).one() for table in (Job, Attempt, Result))
    assert job.state is JobState.SUCCEEDED
    assert result.finish_reason in ("stop", "length")
    assert 1 <= result.completion_tokens <= 6
    assert attempt.engine == engine
    assert attempt.prompt_tokens == len(job.prompt_ids)
    assert (attempt.decode_s or 0) >= 0
    assert attempt.peak_memory_bytes


def test_every_family_of_the_catalogue_is_run_here() -> None:
    ran = {family_of(name) for name in (*ARCHITECTURES, *LLAMACPP_ONLY)}
    assert {family_of(entry.architecture) for entry in ENTRIES} <= ran
