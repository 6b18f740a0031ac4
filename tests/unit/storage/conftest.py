"""Fixtures of the storage tests: a migrated database of each kind, and `Mill` to change and read it."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import sqlalchemy as sa

from docmill.storage.attempt_metrics import GeneratedText
from docmill.storage.database import Database
from docmill.storage.moves.announce import Outbox
from docmill.storage.moves.attempts import ClaimedJob, WorkerIdentity
from docmill.storage.moves.batches import Batches
from docmill.storage.moves.documents import Documents
from docmill.storage.moves.finish_batches import finish_batches
from docmill.storage.moves.jobs import Jobs
from docmill.storage.moves.new_batches import NewBatch, NewBatches, NewChunk
from docmill.storage.moves.new_jobs import NewJob
from docmill.storage.moves.rescue import rescue_lost_jobs
from docmill.storage.moves.workers import WorkerRow
from docmill.storage.reads.reports import Reports
from docmill.storage.schema import upgrade
from docmill.storage.tables import Base
from tests.integration.audit import contradictions

# Every column that is compared with the database's clock.
_CLOCKED = {
    "jobs": ("lease_until", "not_before", "published_at", "created_at", "finished_at"),
    "batches": ("created_at", "in_progress_at", "expires_at", "completed_at"),
    "attempts": ("started_at", "finished_at"),
    "workers": ("started_at", "seen_at"),
}


def new_jobs(
    count: int,
    *,
    level: int = 0,
    tokens: int = 3,
    max_tokens: int = 10,
    priority: int = 5,
    reuse_key: str | None = None,
) -> list[NewJob]:
    """Jobs of one level, each reading the input of its position; with `reuse_key` all are equal."""
    return [
        NewJob(level, position, position, position, range(1, tokens + 1), max_tokens, {"temperature": 0.0}, (2,),
               priority, reuse_key)
        for position in range(count)
    ]  # fmt: skip


def generated(text: str = "a text", *, completion_tokens: int = 7, prompt_tokens: int = 3) -> GeneratedText:
    """A text as an engine might generate it."""
    return GeneratedText(
        text=text, finish_reason="stop", prompt_tokens=prompt_tokens, cached_tokens=1,
        completion_tokens=completion_tokens, queue_s=0.1, prefill_s=0.2, decode_s=0.3, batch_size=2.5,
        peak_memory_bytes=1 << 20,
    )  # fmt: skip


@dataclass(frozen=True)
class Mill:
    """Everything that storage offers on one database, shortcuts to fill it, and control of its clock."""

    database: Database

    @cached_property
    def new_batches(self) -> NewBatches:
        return NewBatches(self.database)

    @cached_property
    def outbox(self) -> Outbox:
        return Outbox(self.database)

    @cached_property
    def batches(self) -> Batches:
        return Batches(self.database)

    @cached_property
    def documents(self) -> Documents:
        return Documents(self.database)

    @cached_property
    def reports(self) -> Reports:
        return Reports(self.database)

    def worker(self, name: str = "w", *, lease_s: float = 30.0, model: str = "m") -> Jobs:
        return Jobs(self.database, WorkerIdentity(name, "simulated", model), lease_s=lease_s)

    def register(self, name: str, *, slots: int, model: str = "m") -> WorkerRow:
        workers = WorkerRow(self.database, WorkerIdentity(name, "simulated", model))
        workers.register(slots=slots)
        return workers

    def create(
        self,
        *,
        key: str = "k",
        model: str = "m",
        priority: int = 5,
        deadline_s: float | None = None,
        idempotency_key: str | None = None,
        reuse: bool = True,
    ) -> str:
        return self.new_batches.create(
            NewBatch(key, model, "summarize", {}, {}, priority, idempotency_key, reuse), deadline_s=deadline_s
        )

    def document(
        self,
        batch_id: str,
        jobs: int,
        *,
        name: str = "d",
        priority: int = 5,
        finish: bool = True,
        reuse_key: str | None = None,
    ) -> int:
        identity = uuid.uuid4().hex
        document_id = self.new_batches.begin_document(
            batch_id, name=name, source="file.txt", content_hash=identity, identity=identity, remarks=[]
        )
        self.new_batches.add_chunks(
            batch_id, document_id, [NewChunk(at, at * 10, at * 10 + 10, 3, f"chunk {at}") for at in range(jobs)]
        )
        self.new_batches.add_jobs(batch_id, document_id, new_jobs(jobs, priority=priority, reuse_key=reuse_key))
        if finish:
            self.new_batches.finish_document(
                batch_id, document_id, characters=jobs * 10, tokens=jobs * 3, chunk_count=jobs, max_tokens=None
            )
        return document_id

    def submit(self, *jobs_of_documents: int, reuse_key: str | None = None, **batch: Any) -> str:
        """A batch in progress with documents of so many jobs each."""
        batch_id = self.create(**batch)
        for number, jobs in enumerate(jobs_of_documents):
            self.document(batch_id, jobs, name=f"d{number}", reuse_key=reuse_key)
        self.new_batches.start(batch_id)
        return batch_id

    def claim(self, job_id: int, worker: str = "w") -> ClaimedJob:
        job = self.worker(worker).claim(job_id)
        assert isinstance(job, ClaimedJob)
        return job

    def rescue(self, *, max_losses: int, limit: int = 500) -> int:
        return rescue_lost_jobs(self.database, max_losses=max_losses, limit=limit)

    def finish_batches(self) -> None:
        finish_batches(self.database)

    def end_documents(self) -> None:
        """As a dispatcher does where one level is all: what has a failed job fails, the rest is joined."""
        for document in self.documents.with_ended_level():
            if document.failed_jobs:
                self.documents.fail(document, "a job failed")
            else:
                self.documents.finish(document, text="joined", has_one_result=True)

    def run(self, job_id: int, text: str = "a text") -> None:
        assert self.worker().complete(self.claim(job_id), generated(text))

    def job_ids(self, batch_id: str) -> list[int]:
        return [row.id for row in self.rows("SELECT id FROM jobs WHERE batch_id = :b ORDER BY id", b=batch_id)]

    def document_ids(self, batch_id: str) -> list[int]:
        return [row.id for row in self.rows("SELECT id FROM documents WHERE batch_id = :b ORDER BY id", b=batch_id)]

    def job(self, job_id: int) -> sa.Row[Any]:
        return self.rows("SELECT * FROM jobs WHERE id = :i", i=job_id)[0]

    def of_document(self, document_id: int) -> sa.Row[Any]:
        return self.rows("SELECT * FROM documents WHERE id = :i", i=document_id)[0]

    def of_batch(self, batch_id: str) -> sa.Row[Any]:
        return self.rows("SELECT * FROM batches WHERE id = :i", i=batch_id)[0]

    def attempts(self, job_id: int) -> list[sa.Row[Any]]:
        return list(self.rows("SELECT * FROM attempts WHERE job_id = :i ORDER BY epoch", i=job_id))

    def outcomes(self, job_id: int) -> list[str]:
        return [row.outcome for row in self.attempts(job_id)]

    def states(self, batch_id: str) -> list[str]:
        return [row.state for row in self.rows("SELECT state FROM jobs WHERE batch_id = :b ORDER BY id", b=batch_id)]

    def rows(self, query: str, **values: object) -> Sequence[sa.Row[Any]]:
        with self.database.engine.connect() as connection:
            return connection.execute(sa.text(query), values).all()

    def change(self, statement: str, **values: object) -> None:
        with self.database.write() as session:
            session.execute(sa.text(statement), values)

    def let_pass(self, seconds: float) -> None:
        """Move everything stored into the past: for the database, so many seconds have gone by."""
        for table, columns in _CLOCKED.items():
            self.change(f"UPDATE {table} SET " + ", ".join(f"{name} = {name} - {seconds}" for name in columns))

    def check(self) -> None:
        with self.database.engine.connect() as connection:
            assert contradictions(connection) == []


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty SQLite file to copy."""
    path = tmp_path_factory.mktemp("template") / "docmill.db"
    database = Database(f"sqlite:///{path}")
    upgrade(database)
    with database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    return path


@pytest.fixture(scope="session")
def postgres_database(postgres_admin: sa.Engine) -> str:
    """The URL of a migrated Postgres database that the tests empty after themselves."""
    name = f"storage_{uuid.uuid4().hex[:8]}"
    with postgres_admin.connect() as connection:
        connection.exec_driver_sql("ALTER SYSTEM SET fsync = off")  # a server of this run only: no crash to survive
        connection.exec_driver_sql("SELECT pg_reload_conf()")
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    url = postgres_admin.url.set(database=name).render_as_string(hide_password=False)
    database = Database(url)
    upgrade(database)
    database.close()
    return url


def empty(url: str) -> None:
    """Delete every row."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for table in reversed(Base.metadata.sorted_tables):
            connection.execute(table.delete())
    engine.dispose()


@pytest.fixture
def fast_path() -> Iterator[Path]:
    """A directory in memory where there is one: hundreds of tests need not wait for the disk."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(prefix="docmill-", dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


@pytest.fixture(params=["sqlite", "postgres"])
def migrated_url(request: pytest.FixtureRequest, fast_path: Path) -> Iterator[str]:
    """A migrated, empty database of each kind."""
    if request.param == "sqlite":
        template = request.getfixturevalue("sqlite_template")
        yield f"sqlite:///{shutil.copy(template, fast_path / 'docmill.db')}"
        return
    url = request.getfixturevalue("postgres_database")
    yield url
    empty(url)


@pytest.fixture
def database(migrated_url: str) -> Iterator[Database]:
    """The same as everywhere, made faster."""
    database = Database(migrated_url)
    yield database
    database.close()


@pytest.fixture
def mill(database: Database) -> Iterator[Mill]:
    """A `Mill` on the database. After every test, all counters must equal a recount."""
    mill = Mill(database)
    yield mill
    mill.check()


@pytest.fixture
def sqlite_mill(sqlite_template: Path, fast_path: Path) -> Iterator[Mill]:
    """On SQLite alone."""
    database = Database(f"sqlite:///{shutil.copy(sqlite_template, fast_path / 'docmill.db')}")
    yield Mill(database)
    database.close()


@pytest.fixture
def postgres_mill(postgres_database: str) -> Iterator[Mill]:
    """On Postgres alone."""
    database = Database(postgres_database)
    yield Mill(database)
    database.close()
    empty(postgres_database)
