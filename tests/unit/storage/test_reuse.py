from __future__ import annotations

import pytest

from docmill.storage.moves.attempts import Failure, ReusedJob
from docmill.storage.moves.reuse import reuse_key_of
from tests.unit.storage.conftest import Mill, generated

KEY = "k" * 32
ENDS = ["complete", "fail", "retry", "release"]


@pytest.mark.parametrize("other_batch", [False, True])
def test_a_job_equal_to_one_that_succeeded_takes_its_text_and_says_so(mill: Mill, *, other_batch: bool) -> None:
    batch_id = mill.submit(2, reuse_key=KEY)
    first, second = mill.job_ids(batch_id)
    mill.run(first, "the text")
    if other_batch:
        batch_id = mill.submit(1, reuse_key=KEY, key="another")
        (second,) = mill.job_ids(batch_id)
    assert mill.worker().claim(second) == ReusedJob(second, reused_from=first)
    (result,) = mill.rows("SELECT text, reused_from FROM results WHERE job_id = :i", i=second)
    assert (result.text, result.reused_from) == ("the text", first)
    assert mill.outcomes(second) == ["reused"]
    assert mill.of_batch(batch_id).jobs_reused == 1
    mill.check()


def test_a_reused_result_costs_its_batch_no_tokens(mill: Mill) -> None:
    batch_id = mill.submit(2, reuse_key=KEY)
    first, second = mill.job_ids(batch_id)
    mill.run(first)
    before = mill.of_batch(batch_id)
    mill.worker().claim(second)
    after = mill.of_batch(batch_id)
    assert (after.prompt_tokens, after.completion_tokens) == (before.prompt_tokens, before.completion_tokens)
    assert after.jobs_succeeded == 2


def test_a_result_that_was_reused_again_names_the_job_that_computed_it(mill: Mill) -> None:
    first, second, third = mill.job_ids(mill.submit(3, reuse_key=KEY))
    mill.run(first)
    mill.worker().claim(second)
    assert mill.worker().claim(third) == ReusedJob(third, reused_from=first)
    mill.check()


def test_a_batch_that_does_not_reuse_computes_everything(mill: Mill) -> None:
    mill.run(mill.job_ids(mill.submit(1, reuse_key=KEY))[0])
    batch_id = mill.submit(2, reuse_key=KEY, key="another", reuse=False)
    for job_id in mill.job_ids(batch_id):
        mill.claim(job_id)
    assert mill.of_batch(batch_id).jobs_reused == 0


def test_another_longest_output_is_not_the_same_job(mill: Mill) -> None:
    first, second = mill.job_ids(mill.submit(2, reuse_key=KEY))
    mill.run(first)
    mill.change("UPDATE jobs SET max_tokens = 9 WHERE id = :i", i=second)
    mill.change("UPDATE batches SET tokens_planned = tokens_planned - 1")
    mill.claim(second)


@pytest.mark.parametrize("end", ENDS)
def test_a_job_waits_while_its_equal_runs_and_is_woken_by_its_end(mill: Mill, end: str) -> None:
    first, second = mill.job_ids(mill.submit(2, reuse_key=KEY))
    worker, running = mill.worker(), mill.claim(first)
    assert worker.claim(second) is None
    assert mill.attempts(second) == [], "waiting is no attempt"
    assert mill.job(second).published_at is None
    assert second not in [job.id for job in mill.outbox.unpublished("m", 10)]
    match end:
        case "complete":
            assert worker.complete(running, generated())
        case "fail":
            assert worker.fail(running, Failure("EngineFailed", "x"))
        case "retry":
            assert worker.retry(running, Failure("EngineFailed", "x"), delay_s=60)
        case "release":
            assert worker.release(running)
    assert second in [job.id for job in mill.outbox.unpublished("m", 10)]
    assert isinstance(worker.claim(second), ReusedJob) == (end == "complete")
    mill.check()


def test_no_job_waits_for_an_equal_job_of_a_dead_worker(mill: Mill) -> None:
    first, second = mill.job_ids(mill.submit(2, reuse_key=KEY))
    mill.claim(first, "dead")
    mill.let_pass(31)
    mill.claim(second)


def test_the_key_tells_prompts_weights_and_parameters_apart() -> None:
    base = ("weights", (1, 2, 3), {"temperature": 0.0, "top_k": 1}, (2, 0))
    others = [
        ("other", *base[1:]),
        (base[0], (1, 2), *base[2:]),
        (*base[:2], {"temperature": 0.0, "top_k": 2}, base[3]),
        (*base[:3], (2,)),
    ]
    assert len({reuse_key_of(*key) for key in [base, *others]}) == 5
    assert reuse_key_of(*base) == reuse_key_of("weights", [1, 2, 3], {"top_k": 1, "temperature": 0.0}, [0, 2])
