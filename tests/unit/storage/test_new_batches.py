from __future__ import annotations

import re

import pytest
from sqlalchemy.exc import IntegrityError

from docmill.storage.errors import WrongState
from tests.unit.storage.conftest import Mill, new_jobs


def test_a_batch_id_is_its_day_and_six_letters(mill: Mill) -> None:
    ids = {mill.create() for _ in range(20)}
    assert len(ids) == 20
    assert all(re.fullmatch(r"\d{6}-[0-9a-hjkmnp-tv-z]{6}", batch_id) for batch_id in ids)


def test_counters_are_right_when_all_is_written(mill: Mill) -> None:
    batch_id = mill.submit(3, 1)
    batch = mill.of_batch(batch_id)
    assert (batch.state, batch.documents_total, batch.documents_open, batch.jobs_total) == ("in_progress", 2, 2, 4)
    assert batch.tokens_planned == 4 * (3 + 10)
    assert [row.open_jobs for row in mill.rows("SELECT open_jobs FROM documents ORDER BY id")] == [3, 1]


def test_a_document_counts_only_when_it_is_wholly_written(mill: Mill) -> None:
    batch_id = mill.create()
    document_id = mill.document(batch_id, 2, finish=False)
    assert mill.of_batch(batch_id).documents_total == 0
    assert mill.new_batches.known_documents(batch_id) == set()
    mill.new_batches.finish_document(batch_id, document_id, characters=20, tokens=6, chunk_count=2, max_tokens=None)
    assert mill.of_batch(batch_id).documents_total == 1
    assert len(mill.new_batches.known_documents(batch_id)) == 1


def test_a_level_share_lowers_the_tokens_planned(mill: Mill) -> None:
    batch_id = mill.create()
    document_id = mill.document(batch_id, 4, finish=False)
    mill.new_batches.finish_document(batch_id, document_id, characters=40, tokens=12, chunk_count=4, max_tokens=6)
    assert {mill.job(job_id).max_tokens for job_id in mill.job_ids(batch_id)} == {6}
    assert mill.of_batch(batch_id).tokens_planned == 4 * (3 + 6)


def test_what_a_dead_submission_left_half_written_is_discarded(mill: Mill) -> None:
    batch_id = mill.create()
    whole = mill.document(batch_id, 2)
    half = mill.document(batch_id, 3, finish=False)
    mill.new_batches.discard_unfinished_documents(batch_id)
    assert mill.document_ids(batch_id) == [whole]
    assert mill.rows("SELECT * FROM chunks WHERE document_id = :d", d=half) == []
    batch = mill.of_batch(batch_id)
    assert (batch.jobs_total, batch.tokens_planned, batch.documents_total) == (2, 2 * 13, 1)
    mill.check()
    mill.document(batch_id, 3)
    mill.new_batches.start(batch_id)
    assert mill.of_batch(batch_id).jobs_total == 5


def test_the_same_document_cannot_be_written_twice(mill: Mill) -> None:
    batch_id = mill.create()
    for expected in ("stored", "refused"):
        begin = {"name": "d", "source": "s", "content_hash": "c", "identity": "same", "remarks": []}
        if expected == "stored":
            mill.new_batches.begin_document(batch_id, **begin)  # type: ignore[arg-type]
        else:
            with pytest.raises(IntegrityError):
                mill.new_batches.begin_document(batch_id, **begin)  # type: ignore[arg-type]


def test_positions_follow_the_order_of_intake(mill: Mill) -> None:
    batch_id = mill.create()
    mill.document(batch_id, 1)
    mill.document(batch_id, 1, finish=False)
    mill.new_batches.discard_unfinished_documents(batch_id)
    mill.document(batch_id, 1)
    assert [row.position for row in mill.rows("SELECT position FROM documents ORDER BY id")] == [0, 1]


def test_the_newest_batch_of_the_same_submission_is_found_unless_it_was_stopped(mill: Mill) -> None:
    assert mill.new_batches.latest_with_key("k") is None
    first = mill.submit(1, key="k")
    mill.let_pass(1)
    second = mill.submit(1, key="k")
    mill.let_pass(1)
    mill.submit(1, key="another")
    found = mill.new_batches.latest_with_key("k")
    assert found is not None
    assert found.id == second
    mill.batches.cancel(second)
    found = mill.new_batches.latest_with_key("k")
    assert found is not None
    assert found.id == first


def test_a_batch_starts_once(mill: Mill) -> None:
    batch_id = mill.submit(1)
    with pytest.raises(WrongState, match="in_progress"):
        mill.new_batches.start(batch_id)
    with pytest.raises(WrongState, match="in_progress"):
        mill.new_batches.add_jobs(batch_id, mill.document_ids(batch_id)[0], new_jobs(1, level=1))


def test_a_refused_batch_says_why(mill: Mill) -> None:
    batch_id = mill.create()
    mill.new_batches.refuse(batch_id, "a.txt: it is empty")
    batch = mill.of_batch(batch_id)
    assert (batch.state, batch.error) == ("failed", "a.txt: it is empty")
    assert batch.failed_at is not None
