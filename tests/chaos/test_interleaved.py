"""Postgres lets transactions run into each other between any two statements. Every move against every other: one is
made whole before each statement of the other, in turn. Whatever the order, the recount is right and the batch ends.

Not among them: moves that change one row of jobs alone, or when a job is announced, and those that do what another
does with other names (to expire is to cancel).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa

from docmill.storage.errors import DatabaseUnavailable, WrongState
from docmill.storage.moves.attempts import ClaimedJob, Failure, ReusedJob
from docmill.storage.moves.documents import EndedLevel
from docmill.storage.tables import Base
from tests.chaos.stage import another_hand
from tests.integration.audit import contradictions, unsettled
from tests.unit.storage.conftest import Mill, generated, new_jobs

_FAILURE = Failure("EngineFailed", "it raised")


@dataclass(frozen=True)
class BeingWritten:
    """A batch with a whole document and a half one."""

    batch_id: str
    half: int


@dataclass(frozen=True)
class AtWork:
    """A batch of three documents: a running job whose lease ran out beside a queued one; a failed job; a job that
    succeeded, whose document waits for its next level."""

    batch_id: str
    running: ClaimedJob
    queued: int
    with_failure: EndedLevel
    ended: EndedLevel


Scene = AtWork | BeingWritten
Move = Callable[[Mill, Any], object]
MOVES: dict[str, Move] = {
    "claim": lambda mill, scene: mill.worker("b").claim(scene.queued),
    "take over": lambda mill, scene: mill.worker("b").claim(scene.running.id),
    "complete": lambda mill, scene: mill.worker().complete(scene.running, generated()),
    "fail": lambda mill, scene: mill.worker().fail(scene.running, _FAILURE),
    "rescue": lambda mill, _: mill.rescue(max_losses=1),
    "begin a level": lambda mill, scene: mill.documents.begin_level(scene.ended, new_jobs(1, level=1), remark="cut"),
    "finish a document": lambda mill, scene: mill.documents.finish(scene.ended, text="joined", has_one_result=True),
    "fail a document": lambda mill, scene: mill.documents.fail(scene.with_failure, "no"),
    "cancel": lambda mill, scene: mill.batches.cancel(scene.batch_id),
    "retry what failed": lambda mill, scene: mill.batches.retry_failed(scene.batch_id),
}
WRITING: dict[str, Move] = {
    "write on": lambda mill, scene: mill.new_batches.add_jobs(scene.batch_id, scene.half, new_jobs(3)[2:]),
    "write the rest": lambda mill, scene: _write_the_rest(mill, scene),
}
ENDING: dict[str, Move] = {
    "cancel": lambda mill, scene: mill.batches.cancel(scene.batch_id),
    "expire": lambda mill, scene: _expire(mill, scene.batch_id),
}


def _write_the_rest(mill: Mill, scene: BeingWritten) -> None:
    mill.new_batches.finish_document(scene.batch_id, scene.half, characters=9, tokens=9, chunk_count=2, max_tokens=5)
    mill.new_batches.start(scene.batch_id)


def _expire(mill: Mill, batch_id: str) -> None:
    mill.change("UPDATE batches SET expires_at = 1 WHERE id = :b", b=batch_id)
    mill.finish_batches()


def set_up(mill: Mill) -> AtWork:
    batch_id = mill.submit(2, 1, 1)
    running, queued, failed, succeeded = mill.job_ids(batch_id)
    job = mill.claim(running)
    mill.worker().fail(mill.claim(failed), _FAILURE)
    mill.run(succeeded)
    mill.change("UPDATE jobs SET lease_until = 1 WHERE id = :i", i=running)
    with_failure, ended = mill.documents.with_ended_level()
    return AtWork(batch_id, job, queued, with_failure, ended)


@contextmanager
def kept(mill: Mill) -> Iterator[Callable[[], None]]:
    """What is in the database now; the callback brings it back."""
    tables = [table.name for table in Base.metadata.sorted_tables]
    engine = sa.create_engine(mill.database.url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("; ".join(f"CREATE TEMP TABLE kept_{name} AS TABLE {name}" for name in tables))
        bring_back = [f"DELETE FROM {name}" for name in reversed(tables)]
        bring_back += [f"INSERT INTO {name} TABLE kept_{name}" for name in tables]
        yield lambda: connection.exec_driver_sql("; ".join(bring_back)).close()
    engine.dispose()


def come_to_an_end(mill: Mill, scene: Scene) -> None:
    """What submitter, dispatcher and workers would do."""
    if isinstance(scene, BeingWritten):
        with suppress(WrongState):
            _write_the_rest(mill, scene)
    while mill.of_batch(scene.batch_id).state not in ("completed", "cancelled", "expired"):
        before = everything(mill)
        mill.change("UPDATE jobs SET lease_until = 1 WHERE lease_until IS NOT NULL")
        mill.rescue(max_losses=99)
        for row in mill.rows("SELECT id FROM jobs WHERE state = 'queued'"):
            mill.run(row.id)
        mill.end_documents()
        mill.finish_batches()
        assert everything(mill) != before, "it stands still"


def everything(mill: Mill) -> list[object]:
    return [mill.rows(f"SELECT * FROM {table} ORDER BY id") for table in ("batches", "documents", "jobs")]


def made(move: Move, mill: Mill, scene: Scene) -> bool:
    """False: it would have to wait."""
    try:
        with suppress(WrongState):
            move(mill, scene)
    except DatabaseUnavailable as error:
        if "lock timeout" not in str(error):
            raise
        return False
    return True


class Interposed:
    """Does something before one of a database's statements, those from now on counted from 0."""

    def __init__(self, mill: Mill, at: int, do: Callable[[], object]) -> None:
        self._engine = mill.database.engine
        self._at = at
        self._do = do
        self._seen = 0

    def __enter__(self) -> Interposed:
        sa.event.listen(self._engine, "before_cursor_execute", self._before)
        return self

    def __exit__(self, *_: object) -> None:
        sa.event.remove(self._engine, "before_cursor_execute", self._before)

    @property
    def came(self) -> bool:
        """Whether there was such a statement."""
        return self._seen > self._at

    def _before(self, *_: object) -> None:
        self._seen += 1
        if self._seen == self._at + 1:
            self._do()


def interleave(mill: Mill, other: Mill, scene: Scene, first: Move, second: Move, at: int) -> bool:
    """`second` before statement number `at` of `first`; False: `first` makes fewer. `other` is impatient."""
    is_done = False

    def make_second() -> None:
        nonlocal is_done
        is_done = made(second, other, scene)

    with Interposed(mill, at, make_second) as interposed, suppress(WrongState):
        first(mill, scene)
    if not is_done:
        made(second, mill, scene)
    return interposed.came


def play(mill: Mill, scene: Scene, first: Move, others: dict[str, Move]) -> None:
    """`first` against each of the others."""
    with another_hand(mill, options="-c lock_timeout=5") as other, kept(mill) as bring_back:  # waits for no lock
        for name, second in others.items():
            at, more = 0, True
            while more:
                bring_back()
                more = interleave(mill, other, scene, first, second, at)
                where = f"{name!r} before statement {at}"
                with mill.database.engine.connect() as connection:
                    assert contradictions(connection) == [], where
                come_to_an_end(mill, scene)
                with mill.database.engine.connect() as connection:
                    assert unsettled(connection) == [], where
                at += 1


@pytest.mark.parametrize("first", MOVES)
def test_a_move_in_the_midst_of_another_leaves_every_counter_right(postgres_mill: Mill, first: str) -> None:
    play(postgres_mill, set_up(postgres_mill), MOVES[first], MOVES)


@pytest.mark.parametrize("first", WRITING | ENDING)
def test_a_batch_may_end_at_any_moment_while_it_is_written(postgres_mill: Mill, first: str) -> None:
    mill = postgres_mill
    batch_id = mill.create()
    mill.document(batch_id, 1)
    scene = BeingWritten(batch_id, mill.document(batch_id, 2, finish=False))
    play(mill, scene, (WRITING | ENDING)[first], ENDING if first in WRITING else WRITING | ENDING)


def test_a_job_is_not_computed_again_at_whatever_moment_of_its_claim_its_equal_succeeds(postgres_mill: Mill) -> None:
    mill = postgres_mill
    at, more = 0, True
    while more:
        first, second = mill.job_ids(mill.submit(2, reuse_key=f"{at:032}", key=f"k{at}"))
        running = mill.claim(first)

        def complete(running: ClaimedJob = running) -> None:
            assert mill.worker().complete(running, generated())

        with another_hand(mill) as twin, Interposed(twin, at, complete) as interposed:
            claimed = twin.worker().claim(second)
        more = interposed.came
        assert claimed is None or isinstance(claimed, ReusedJob), at
        at += 1
    assert at > 5
    mill.check()
