"""The auditor, on which all tests of storage and services rely, must detect inconsistent data."""

from __future__ import annotations

import pytest

from tests.integration.audit import contradictions, unsettled
from tests.unit.storage.conftest import Mill

DAMAGE = {
    "batches.jobs_succeeded": "UPDATE batches SET jobs_succeeded = jobs_succeeded + 1",
    "batches.documents_open": "UPDATE documents SET state = 'failed', finished_at = 1 WHERE id = 2",
    "batches.tokens_planned": "UPDATE jobs SET max_tokens = 11 WHERE id = 1",
    "batches' tokens used": "UPDATE results SET completion_tokens = 0",
    "documents.open_jobs": "UPDATE documents SET open_jobs = open_jobs + 1 WHERE id = 2",
    "a final result of a document that is not done": "UPDATE results SET final = true",
    "one result for each job that succeeded": "DELETE FROM results",
    "one successful attempt for each job that succeeded": "UPDATE attempts SET outcome = 'lost'",
    "an attempt for each claim": "UPDATE jobs SET epoch = epoch + 1 WHERE id = 1",
    "one running attempt for each running job": "UPDATE jobs SET state = 'running', lease_until = 1 WHERE id = 2",
    "a lease for running jobs": "UPDATE jobs SET lease_until = 1 WHERE id = 2",
    "jobs.finished_at": "UPDATE jobs SET finished_at = NULL WHERE id = 1",
}


@pytest.mark.parametrize("rule", DAMAGE)
def test_the_auditor_sees_damage(sqlite_mill: Mill, rule: str) -> None:
    mill = sqlite_mill
    mill.run(mill.job_ids(mill.submit(2, 1))[0])
    mill.check()
    mill.change(DAMAGE[rule])
    with mill.database.engine.connect() as connection:
        assert any(found.startswith(rule) for found in contradictions(connection))


def test_the_auditor_sees_what_has_not_ended(sqlite_mill: Mill) -> None:
    sqlite_mill.submit(1)
    with sqlite_mill.database.engine.connect() as connection:
        found = unsettled(connection)
    assert [line.partition(":")[0] for line in found] == [
        "a batch that has not ended", "a document that has not ended", "a job that has not ended",
    ]  # fmt: skip
