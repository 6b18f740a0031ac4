from __future__ import annotations

import subprocess
import sys

import psutil
import pytest

from docmill.storage.errors import IdempotencyKeyTaken, OtherHost, WrongState
from docmill.storage.hosts import adopt, require_this_host
from docmill.storage.moves.submitter_lock import take_over
from tests.unit.storage.conftest import Mill


def become(mill: Mill, batch_id: str, submitter: str) -> None:
    mill.change("UPDATE batches SET submitter = :s WHERE id = :b", s=submitter, b=batch_id)


def ended_process() -> str:
    """The name, as returned by `this_process`, of a process on this host that has ended."""
    program = "from docmill.storage.moves.submitter_lock import this_process; print(this_process())"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


def test_a_submission_whose_process_is_gone_is_taken_up_at_once(mill: Mill) -> None:
    batch_id = mill.create()
    become(mill, batch_id, ended_process())
    assert take_over(mill.database, batch_id)
    mill.document(batch_id, 1)


def test_a_submission_at_work_elsewhere_is_left_alone_until_it_is_silent_for_long(mill: Mill) -> None:
    batch_id = mill.create()
    become(mill, batch_id, "otherhost:17:1.00")
    assert not take_over(mill.database, batch_id)
    with pytest.raises(WrongState, match="another process is submitting it"):
        mill.document(batch_id, 1)
    with pytest.raises(WrongState):
        mill.new_batches.start(batch_id)
    mill.change("UPDATE batches SET submitter_seen_at = submitter_seen_at - 121")
    assert take_over(mill.database, batch_id)
    mill.document(batch_id, 1)
    mill.check()


def test_another_process_with_the_same_number_is_not_the_one_that_died(mill: Mill) -> None:
    batch_id = mill.create()
    host = mill.of_batch(batch_id).submitter.split(":")[0]
    become(mill, batch_id, f"{host}:{psutil.Process().pid}:1.00")
    assert take_over(mill.database, batch_id)


def test_a_submission_that_has_ended_is_not_taken_up(mill: Mill) -> None:
    assert not take_over(mill.database, mill.submit(1))


def test_an_idempotency_key_makes_one_batch(mill: Mill) -> None:
    batch_id = mill.create(idempotency_key="mine")
    with pytest.raises(IdempotencyKeyTaken):
        mill.create(idempotency_key="mine")
    found = mill.new_batches.with_idempotency_key("mine")
    assert found is not None
    assert found.id == batch_id
    assert mill.create() != mill.create(), "batches without a key are as many as are submitted"


def test_sqlite_is_refused_to_a_second_host_and_postgres_is_not(mill: Mill) -> None:
    require_this_host(mill.database)
    require_this_host(mill.database)
    mill.change("UPDATE hosts SET machine = 'another' || machine, name = 'gpubox'")
    if not mill.database.is_sqlite:
        assert mill.rows("SELECT * FROM hosts") == []
        return
    with pytest.raises(OtherHost, match=r"belongs to the host gpubox.*storage\.url to a Postgres.*`docmill db adopt`"):
        require_this_host(mill.database)
    adopt(mill.database)
    require_this_host(mill.database)
