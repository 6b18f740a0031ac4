"""Random sequences of changes by workers, dispatchers and users, including stale ones: every state change is legal, and
every counter equals a recount after each step."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from docmill.storage.database import Database
from docmill.storage.errors import WrongState
from docmill.storage.moves.announce import Publishable
from docmill.storage.moves.attempts import ClaimedJob, Failure
from docmill.storage.moves.documents import EndedLevel
from docmill.storage.states import BatchState, DocumentState, JobState
from tests.unit.storage.conftest import Mill, empty, generated, new_jobs
from tests.unit.storage.test_states import LEGAL_MOVES

any_of = st.integers(0, 10**6)  # which of those there are: taken modulo their number
FAILURE = Failure("EngineFailed", "it raised")
_LEASE_S = 30.0


class Moves(RuleBasedStateMachine):
    """Claims, ended levels and announcements are kept and used again later, when they are stale."""

    make_mill: Callable[[], Mill]

    def __init__(self) -> None:
        super().__init__()
        self.mill = type(self).make_mill()
        self.held: list[ClaimedJob] = []
        self.ended: list[EndedLevel] = []
        self.found: list[Publishable] = []
        self.batches: list[str] = []
        self.half: list[tuple[str, int]] = []
        self.before: dict[tuple[str, object], str] = {}

    @initialize(documents=st.lists(st.integers(1, 3), min_size=1, max_size=2))
    def first_batch(self, documents: list[int]) -> None:
        self.batches.append(self.mill.submit(*documents, deadline_s=1000))

    @rule(jobs=st.integers(1, 2))
    def create(self, jobs: int) -> None:
        self.batches.append(self.mill.create())
        self.mill.document(self.batches[-1], jobs)

    @rule(batch=any_of)
    def begin_document(self, batch: int) -> None:
        batch_id = self.batches[batch % len(self.batches)]
        self.refusable(lambda: self.half.append((batch_id, self.mill.document(batch_id, 1, finish=False))))

    @precondition(lambda self: self.half)
    @rule()
    def finish_document(self) -> None:
        batch_id, document_id = self.half.pop()
        self.refusable(
            lambda: self.mill.new_batches.finish_document(
                batch_id, document_id, characters=1, tokens=1, chunk_count=1, max_tokens=None
            )
        )

    @rule(batch=any_of)
    def start(self, batch: int) -> None:
        batch_id = self.batches[batch % len(self.batches)]
        if any(owner == batch_id for owner, _ in self.half):
            self.mill.new_batches.discard_unfinished_documents(batch_id)  # as a submission that resumes does
            self.half = [(owner, document) for owner, document in self.half if owner != batch_id]
        self.refusable(lambda: self.mill.new_batches.start(batch_id))

    @rule(job=any_of, worker=st.sampled_from("ab"))
    def claim(self, job: int, worker: str) -> None:
        ids = [row.id for row in self.mill.rows("SELECT id FROM jobs ORDER BY id")]
        claimed = self.mill.worker(worker, lease_s=_LEASE_S).claim(ids[job % len(ids)])
        if claimed:
            self.held.append(claimed)

    @precondition(lambda self: self.held)
    @rule(
        which=any_of, move=st.sampled_from(["complete", "complete", "fail", "retry", "release"]), forget=st.booleans()
    )
    def end(self, which: int, move: str, forget: bool) -> None:
        job = self.held[which % len(self.held)]
        worker = self.mill.worker()
        match move:
            case "complete":
                worker.complete(job, generated())
            case "fail":
                worker.fail(job, FAILURE)
            case "retry":
                worker.retry(job, FAILURE, delay_s=float(which % 2))
            case "release":
                worker.release(job)
        if forget:
            self.held.remove(job)

    @rule()
    def heartbeat(self) -> None:
        ours = self.mill.worker(lease_s=_LEASE_S).heartbeat(self.held)
        running = {(r.id, r.epoch) for r in self.mill.rows("SELECT id, epoch FROM jobs WHERE state = 'running'")}
        assert ours == running & {(job.id, job.epoch) for job in self.held}

    @rule(seconds=st.sampled_from([2, 40, 1001]))
    def time_passes(self, seconds: int) -> None:
        self.mill.let_pass(seconds)

    @rule(limit=st.integers(1, 5))
    def look_into_the_outbox(self, limit: int) -> None:
        self.found = self.mill.outbox.unpublished("m", limit) + self.mill.outbox.overdue("m", age_s=1, limit=limit)

    @rule()
    def mark_published(self) -> None:
        self.mill.outbox.mark_published(self.found)

    @rule(max_losses=st.integers(1, 3))
    def rescue(self, max_losses: int) -> None:
        self.mill.rescue(max_losses=max_losses)

    @rule()
    def look_for_ended_levels(self) -> None:
        self.ended += self.mill.documents.with_ended_level()

    @precondition(lambda self: self.ended)
    @rule(which=any_of, jobs=st.integers(1, 2), move=st.sampled_from(["level", "finish", "last", "fail"]))
    def take_on(self, which: int, jobs: int, move: str) -> None:
        ended = self.ended[which % len(self.ended)]
        if ended.failed_jobs or move == "fail":
            self.mill.documents.fail(ended, "no")
        elif move == "level":
            self.mill.documents.begin_level(ended, new_jobs(jobs, level=ended.level + 1), remark="cut")
        elif move == "last" and ended.level == 0 and ended.chunk_count == 1:
            self.mill.documents.finish(ended, text=None, has_one_result=True)
        else:
            self.mill.documents.finish(ended, text="joined", has_one_result=True)

    @rule()
    def settle(self) -> None:
        self.mill.finish_batches()

    @rule(batch=any_of)
    def cancel(self, batch: int) -> None:
        self.refusable(lambda: self.mill.batches.cancel(self.batches[batch % len(self.batches)]))

    @rule(batch=any_of)
    def retry_failed(self, batch: int) -> None:
        self.refusable(lambda: self.mill.batches.retry_failed(self.batches[batch % len(self.batches)]))

    @invariant()
    def counters_equal_recounts(self) -> None:
        self.mill.check()

    @invariant()
    def states_move_only_where_they_may(self) -> None:
        now = {
            (table, row.id): row.state
            for table in ("jobs", "documents", "batches")
            for row in self.mill.rows(f"SELECT id, state FROM {table}")
        }
        for (table, key), state in now.items():
            before = self.before.get((table, key), state)
            assert before == state or state in _reachable(table, before), f"{table} {key}: {before} -> {state}"
        self.before = now

    def teardown(self) -> None:
        self.mill.database.close()

    @staticmethod
    def refusable(act: Callable[[], object]) -> None:
        """Make a user's change that the state may forbid; if it does, the invariants check that nothing changed."""
        with suppress(WrongState):
            act()


def _reachable(table: str, state: str) -> set[str]:
    if table == "jobs":
        return set(LEGAL_MOVES[JobState][JobState(state)])
    if table == "documents":
        return set(LEGAL_MOVES[DocumentState][DocumentState(state)])
    # One round of finishing may take a batch through several states.
    moves = LEGAL_MOVES[BatchState]
    reached: set[StrEnum] = set()
    new: set[StrEnum] = {BatchState(state)}
    while new:
        reached |= new
        new = {b for a in new for b in moves[a]} - reached
    return {str(other) for other in reached}


def explore(make_mill: Callable[[], Mill], examples: int) -> None:
    machine = type("Machine", (Moves,), {"make_mill": staticmethod(make_mill)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=25,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],  # shrinking would take longer than a test may
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_no_order_of_moves_leads_astray_on_sqlite(sqlite_template: Path, fast_path: Path) -> None:
    def make_mill() -> Mill:
        path = fast_path / "docmill.db"
        for leftover in fast_path.glob("docmill.db*"):
            leftover.unlink()
        return Mill(Database(f"sqlite:///{shutil.copy(sqlite_template, path)}"))

    explore(make_mill, 20)


def test_no_order_of_moves_leads_astray_on_postgres(postgres_database: str) -> None:
    def make_mill() -> Mill:
        empty(postgres_database)
        return Mill(Database(postgres_database))

    explore(make_mill, 5)
    empty(postgres_database)
