from __future__ import annotations

import pytest

from docmill.storage.columns import safe_text
from docmill.storage.moves.new_batches import NewBatch, NewChunk
from docmill.storage.moves.new_jobs import NewJob
from tests.unit.storage.conftest import Mill, generated

NASTY = "a\x00b \ud83d half \udcff raw 👩‍🚀 naïve"
STORED = "a\u2400b \ufffd half \ufffd raw 👩‍🚀 naïve"


def test_text_that_a_database_refuses_is_stored_readably(mill: Mill) -> None:
    batch_id = mill.create()
    document_id = mill.new_batches.begin_document(
        batch_id, name=NASTY, source=NASTY, content_hash="c", identity="i", remarks=[NASTY]
    )
    mill.new_batches.add_chunks(batch_id, document_id, [NewChunk(0, 0, len(NASTY), 1, NASTY)])
    mill.new_batches.add_jobs(
        batch_id, document_id, [NewJob(0, 0, 0, 0, (1,), 10, {"stop": [NASTY]}, (2,), 5)]
    )  # fmt: skip
    mill.new_batches.finish_document(batch_id, document_id, characters=1, tokens=1, chunk_count=1, max_tokens=None)
    mill.new_batches.start(batch_id)
    job = mill.claim(mill.job_ids(batch_id)[0])
    assert job.sampling == {"stop": [STORED]}
    mill.worker().complete(job, generated(NASTY, prompt_tokens=1))
    mill.documents.finish(mill.documents.with_ended_level()[0], text=None, has_one_result=True)
    (report,) = mill.reports.documents(batch_id)
    assert (report.name, report.source, report.summary, report.remarks) == (STORED, STORED, STORED, [STORED])
    assert mill.documents.chunk_text(document_id, 0) == STORED


def test_metadata_and_plan_take_any_text(mill: Mill) -> None:
    plan = {"task": {"chunk": NASTY, "sizes": [1, 2.5, None, True]}}
    batch_id = mill.new_batches.create(NewBatch("k", "m", "t", plan, {NASTY: NASTY}, 5))
    batch = mill.batches.find(batch_id)
    assert batch.notes == {STORED: STORED}
    assert batch.plan == {"task": {"chunk": STORED, "sizes": [1, 2.5, None, True]}}


def test_two_halves_of_one_character_become_that_character() -> None:
    assert safe_text("\ud83d\ude00") == "😀"


@pytest.mark.parametrize("ids", [(), (0,), (1, 2**32 - 1, 7), tuple(range(5000))], ids=["none", "zero", "ends", "many"])
def test_token_ids_come_back_as_they_were(mill: Mill, ids: tuple[int, ...]) -> None:
    batch_id = mill.create()
    document_id = mill.document(batch_id, 1, finish=False)
    mill.new_batches.add_jobs(batch_id, document_id, [NewJob(0, 1, 1, 1, ids, 10, {}, (), 5)])
    mill.new_batches.finish_document(batch_id, document_id, characters=1, tokens=1, chunk_count=2, max_tokens=None)
    assert mill.claim(mill.job_ids(batch_id)[1]).prompt_ids == ids


def test_token_ids_are_four_bytes_each_little_endian(mill: Mill) -> None:
    (job_id,) = mill.job_ids(mill.submit(1))
    assert bytes(mill.job(job_id).prompt_ids) == bytes.fromhex("010000000200000003000000")
