"""Where scenarios are played: two hands on one database whose transactions are interleaved by plan, not by luck."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Session

from docmill.storage.database import Database
from docmill.storage.moves.attempts import ClaimedJob, ReusedJob, WorkerIdentity
from docmill.storage.moves.jobs import Jobs
from tests.integration.conftest import PATIENCE_S, Cluster, wait_until
from tests.unit.storage.conftest import Mill, generated

A = TypeVar("A")
B = TypeVar("B")

_WAITS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


class ToldDatabase(Database):
    """Calls `before` before each of its transactions begins."""

    def __init__(self, url: sa.URL, before: Callable[[], object]) -> None:
        super().__init__(url.render_as_string(hide_password=False))
        self._before = before

    @contextmanager
    def read(self) -> Iterator[Session]:
        self._before()
        with super().read() as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        self._before()
        with super().write() as session:
            yield session


@contextmanager
def another_hand(mill: Mill, before: Callable[[], object] = lambda: None, **parameters: str) -> Iterator[Mill]:
    """The same database, on connections of its own with these parameters."""
    database = ToldDatabase(mill.database.url.update_query_dict(parameters), before)
    try:
        yield Mill(database)
    finally:
        database.close()


def race(
    mill: Mill, first: Callable[[Mill], A], then: Callable[[Mill], B], *, statement: str = "UPDATE jobs"
) -> tuple[A, B]:
    """`first` stops right before it commits its `statement`; `then` is made and waits for it; both go on to their ends.

    Returns what both did. Where `then` need not wait it has ended before `first` commits.
    """
    stopped, go_on, begun = threading.Event(), threading.Event(), threading.Event()
    with another_hand(mill) as mine, another_hand(mill, begun.set) as theirs, ThreadPoolExecutor(2) as pool:
        _stop_before_commit(mine.database.engine, statement, stopped, go_on)

        def waits() -> bool:
            return begun.is_set() if mill.database.is_sqlite else bool(mill.rows(_WAITS)[0][0])

        try:
            leading = pool.submit(first, mine)
            wait_until(lambda: stopped.is_set() or leading.done(), "the first move to come to its commit")
            assert stopped.is_set(), f"it made no {statement!r}: {leading.result()}"
            following = pool.submit(then, theirs)
            wait_until(lambda: following.done() or waits(), "the second move to wait for the first")
        finally:
            go_on.set()
        return leading.result(), following.result()


def _stop_before_commit(engine: sa.Engine, statement: str, stopped: threading.Event, go_on: threading.Event) -> None:
    seen = threading.Event()

    def look(_connection: Any, _cursor: Any, executed: str, *_rest: Any) -> None:
        if executed.startswith(statement):
            seen.set()

    def stop(_connection: Any) -> None:
        if seen.is_set() and not stopped.is_set():
            stopped.set()
            go_on.wait(PATIENCE_S)

    sa.event.listen(engine, "before_cursor_execute", look)
    sa.event.listen(engine, "commit", stop)


def text_of(job_id: int) -> str:
    """What `ByHand` writes: so long that several of these have to be merged by the model."""
    return " ".join(f"Job {job_id} says {number}." for number in range(20))


class ByHand:
    """A worker without an engine on a cluster's database: claims, and writes texts of its own."""

    def __init__(self, cluster: Cluster, name: str = "by hand", *, lease_s: float = 60.0) -> None:
        self._cluster = cluster
        self.jobs = Jobs(cluster.backend.database, WorkerIdentity(name, "simulated", "simulated"), lease_s=lease_s)

    def take(self) -> list[ClaimedJob]:
        """Claim everything that is queued."""
        queued = self._cluster.rows("SELECT id FROM jobs WHERE state = 'queued' ORDER BY id")
        taken = [job for row in queued if (job := self.jobs.claim(row.id)) is not None]
        assert not any(isinstance(job, ReusedJob) for job in taken)
        return taken  # type: ignore[return-value]

    def work_off(self) -> int:
        """Run everything that is queued; returns how many."""
        taken = self.take()
        for job in taken:
            assert self.jobs.complete(job, generated(text_of(job.id), completion_tokens=60))
        return len(taken)
