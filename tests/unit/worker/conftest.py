"""Workers' tools on the simulated engine (in a real process of its own) and a real SQLite."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import docmill.storage.database
from docmill.catalogue.local_model import Model, ModelKind
from docmill.storage.database import Database
from docmill.storage.moves.attempts import WorkerIdentity
from docmill.storage.moves.batches import Batches
from docmill.storage.moves.jobs import Jobs
from docmill.storage.moves.new_batches import NewBatch, NewBatches, NewChunk
from docmill.storage.moves.new_jobs import NewJob
from docmill.storage.moves.workers import WorkerRow
from docmill.storage.schema import upgrade
from docmill.worker.engines.spec import EngineSpec

MakeSpec = Callable[..., EngineSpec]
LEASE_S = 60.0


@pytest.fixture
def make_spec(tmp_path: Path) -> MakeSpec:
    """A spec of the simulated engine; keywords are its options."""

    def make(*, slots: int = 8, window: int = 10_000, **options: object) -> EngineSpec:
        model = Model("simulated", tmp_path / "none", ModelKind.SIMULATED, window)
        return EngineSpec("simulated", model, tmp_path, slots=slots, options=options)

    return make


@dataclass
class Stored:
    """A database with one batch of jobs in it, and a worker's hands on them."""

    database: Database
    path: Path
    batch_id: str
    job_ids: list[int]

    def jobs(self, worker: str = "host/cpu-1", *, lease_s: float = LEASE_S) -> Jobs:
        return Jobs(self.database, WorkerIdentity(worker, "simulated", "simulated"), lease_s=lease_s)

    def workers(self, worker: str = "host/cpu-1") -> WorkerRow:
        return WorkerRow(self.database, WorkerIdentity(worker, "simulated", "simulated"))

    def cancel(self) -> None:
        Batches(self.database).cancel(self.batch_id)

    def rows(self, query: str) -> list[dict[str, Any]]:
        with self.database.read() as session:
            return [dict(row._mapping) for row in session.execute(sa.text(query))]

    def job(self, job_id: int) -> dict[str, Any]:
        return self.rows(f"SELECT * FROM jobs WHERE id = {job_id}")[0]

    def attempts(self, job_id: int) -> list[dict[str, Any]]:
        return self.rows(f"SELECT * FROM attempts WHERE job_id = {job_id} ORDER BY epoch")

    def set_job(self, job_id: int, assignments: str) -> None:
        with self.database.write() as session:
            session.execute(sa.text(f"UPDATE jobs SET {assignments} WHERE id = {job_id}"))

    def lock(self) -> Callable[[], None]:
        """Take the database away from its writers, until what is returned is called."""
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        connection.execute("BEGIN IMMEDIATE")
        return connection.close


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty, migrated SQLite database to copy."""
    path = tmp_path_factory.mktemp("migrated") / "docmill.db"
    database = Database(f"sqlite:///{path}")
    upgrade(database)
    database.close()
    return path


@pytest.fixture
def stored(migrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stored]:
    """Four jobs of one document, in a database that gives up quickly on a lock."""
    monkeypatch.setattr(docmill.storage.database, "_SQLITE_BUSY_S", 0.01)
    path = tmp_path / "docmill.db"
    shutil.copy(migrated, path)
    database = Database(f"sqlite:///{path}")
    batch_id = _submit(NewBatches(database), jobs=4)
    made = Stored(database, path, batch_id, [])
    made.job_ids = [row["id"] for row in made.rows("SELECT id FROM jobs ORDER BY position")]
    yield made
    database.close()


def _submit(submissions: NewBatches, *, jobs: int) -> str:
    batch_id = submissions.create(
        NewBatch(submission_key="k", model="simulated", task="summarize", plan={}, notes={}, priority=5)
    )
    document_id = submissions.begin_document(
        batch_id, name="d", source="d.txt", content_hash="c", identity="i", remarks=()
    )
    chunks = [NewChunk(position=i, char_start=i, char_end=i + 1, tokens=1, text="x") for i in range(jobs)]
    submissions.add_chunks(batch_id, document_id, chunks)
    new = [
        NewJob(
            level=0, position=i, first_input=i, last_input=i, prompt_ids=(10 + i, 20, 30), max_tokens=16,
            sampling={"temperature": 0.5, "stop": ["END"]}, stop_token_ids=(2,), priority=5,
        )
        for i in range(jobs)
    ]  # fmt: skip
    submissions.add_jobs(batch_id, document_id, new)
    submissions.finish_document(batch_id, document_id, characters=jobs, tokens=jobs, chunk_count=jobs, max_tokens=None)
    submissions.start(batch_id)
    return batch_id
