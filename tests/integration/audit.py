"""What must hold of a database, asked in plain SQL on a connection of its own: docmill's code has no say in it.

`contradictions` must be empty at any moment, between any two transactions. `unsettled` must be empty once every batch
has ended.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

_JOBS = "(SELECT count(*) FROM jobs j WHERE j.batch_id = b.id{})"
_DOCUMENTS = "(SELECT count(*) FROM documents d WHERE d.batch_id = b.id AND d.chunk_count IS NOT NULL{})"

_ALWAYS = {
    "batches.jobs_total": f"SELECT id FROM batches b WHERE jobs_total <> {_JOBS.format('')}",
    **{
        f"batches.jobs_{state}": f"SELECT id FROM batches b WHERE jobs_{state} <> "
        + _JOBS.format(f" AND j.state = '{state}'")
        for state in ("succeeded", "failed", "cancelled", "expired")
    },
    "batches.jobs_reused": """
        SELECT id FROM batches b WHERE jobs_reused <> (SELECT count(*) FROM jobs j JOIN results r ON r.job_id = j.id
            WHERE j.batch_id = b.id AND r.reused_from IS NOT NULL)""",
    "a reused result unlike the one it came from": """
        SELECT r.id FROM results r LEFT JOIN results o ON o.job_id = r.reused_from
        WHERE r.reused_from IS NOT NULL AND (o.id IS NULL OR o.text <> r.text OR o.finish_reason <> r.finish_reason)""",
    "a reused result whose attempt says that it was computed, or the other way round": """
        SELECT r.id FROM results r JOIN attempts a ON a.job_id = r.job_id AND a.outcome IN ('succeeded', 'reused')
        WHERE (a.outcome = 'reused') <> (r.reused_from IS NOT NULL)""",
    "batches.documents_total": f"SELECT id FROM batches b WHERE documents_total <> {_DOCUMENTS.format('')}",
    "batches.documents_open": "SELECT id FROM batches b WHERE documents_open <> "
    + _DOCUMENTS.format(" AND d.state IN ('open', 'merging')"),
    "batches.documents_failed": "SELECT id FROM batches b WHERE documents_failed <> "
    + _DOCUMENTS.format(" AND d.state = 'failed'"),
    "batches.tokens_planned": """
        SELECT id FROM batches b WHERE tokens_planned <>
            (SELECT coalesce(sum(j.prompt_tokens + j.max_tokens), 0) FROM jobs j WHERE j.batch_id = b.id)""",
    "batches' tokens used": """
        SELECT b.id FROM batches b
        LEFT JOIN (SELECT j.batch_id, sum(r.prompt_tokens) AS prompt, sum(r.completion_tokens) AS completion
                   FROM results r JOIN jobs j ON j.id = r.job_id WHERE r.reused_from IS NULL
                   GROUP BY j.batch_id) u ON u.batch_id = b.id
        WHERE b.prompt_tokens <> coalesce(u.prompt, 0) OR b.completion_tokens <> coalesce(u.completion, 0)""",
    "documents.open_jobs": """
        SELECT id FROM documents d WHERE chunk_count IS NOT NULL AND open_jobs <>
            (SELECT count(*) FROM jobs j WHERE j.document_id = d.id AND j.state IN ('queued', 'running'))""",
    "documents.failed_jobs": """
        SELECT id FROM documents d WHERE chunk_count IS NOT NULL AND failed_jobs <>
            (SELECT count(*) FROM jobs j WHERE j.document_id = d.id AND j.state = 'failed')""",
    "a document with two final results": "SELECT document_id FROM results WHERE final GROUP BY 1 HAVING count(*) > 1",
    "a final result of a document that is not done": """
        SELECT d.id FROM results r JOIN documents d ON d.id = r.document_id WHERE r.final AND d.state <> 'done'""",
    "a done document with a job that did not succeed": """
        SELECT d.id FROM documents d JOIN jobs j ON j.document_id = d.id
        WHERE d.state = 'done' AND j.state <> 'succeeded'""",
    "one result for each job that succeeded, none for others": """
        SELECT j.id FROM jobs j LEFT JOIN results r ON r.job_id = j.id
        GROUP BY j.id, j.state HAVING count(r.id) <> CASE j.state WHEN 'succeeded' THEN 1 ELSE 0 END""",
    "one successful attempt for each job that succeeded, none for others": """
        SELECT j.id FROM jobs j LEFT JOIN attempts a ON a.job_id = j.id AND a.outcome IN ('succeeded', 'reused')
        GROUP BY j.id, j.state HAVING count(a.epoch) <> CASE j.state WHEN 'succeeded' THEN 1 ELSE 0 END""",
    "a success by another than the newest claim": """
        SELECT j.id FROM jobs j JOIN attempts a ON a.job_id = j.id
        WHERE a.outcome IN ('succeeded', 'reused') AND a.epoch <> j.epoch""",
    "an attempt for each claim": """
        SELECT j.id FROM jobs j LEFT JOIN attempts a ON a.job_id = j.id
        GROUP BY j.id, j.epoch HAVING count(a.epoch) <> j.epoch OR coalesce(max(a.epoch), 0) <> j.epoch""",
    "one running attempt for each running job, the newest; none for others": """
        SELECT j.id FROM jobs j LEFT JOIN attempts a ON a.job_id = j.id AND a.outcome = 'running'
        GROUP BY j.id, j.state, j.epoch
        HAVING count(a.epoch) <> CASE j.state WHEN 'running' THEN 1 ELSE 0 END
            OR (j.state = 'running' AND max(a.epoch) <> j.epoch)""",
    "a lease for running jobs and for no other": """
        SELECT id FROM jobs WHERE (state = 'running') <> (lease_until IS NOT NULL)""",
    "jobs.finished_at": """
        SELECT id FROM jobs WHERE (state IN ('queued', 'running')) <> (finished_at IS NULL)""",
    "documents.finished_at": """
        SELECT id FROM documents WHERE (state IN ('open', 'merging')) <> (finished_at IS NULL)""",
    "attempts.finished_at": "SELECT job_id FROM attempts WHERE (outcome = 'running') <> (finished_at IS NULL)",
}

_AT_THE_END = {
    "a batch that has not ended": """
        SELECT id FROM batches WHERE state NOT IN ('completed', 'cancelled', 'expired', 'failed')""",
    "a document that has not ended": "SELECT id FROM documents WHERE state IN ('open', 'merging')",
    "a job that has not ended": "SELECT id FROM jobs WHERE state IN ('queued', 'running')",
    "a done document without its one result": """
        SELECT d.id FROM documents d LEFT JOIN results r ON r.document_id = d.id AND r.final
        WHERE d.state = 'done' GROUP BY d.id HAVING count(r.id) <> 1""",
    "an attempt without who and when": """
        SELECT job_id FROM attempts
        WHERE worker = '' OR engine = '' OR model = '' OR started_at IS NULL OR finished_at IS NULL""",
    "a successful attempt without its metrics": """
        SELECT job_id FROM attempts WHERE outcome = 'succeeded' AND (
            queue_s IS NULL OR prefill_s IS NULL OR decode_s IS NULL OR prompt_tokens IS NULL
            OR completion_tokens IS NULL OR batch_size IS NULL OR batch_size < 1 OR peak_memory_bytes IS NULL)""",
    "a failed attempt without its reason": """
        SELECT job_id FROM attempts WHERE outcome = 'failed' AND (error_kind IS NULL OR error IS NULL)""",
}


def contradictions(connection: sa.Connection) -> list[str]:
    """Counters and states that a recount denies, each with some of the rows."""
    return _broken(connection, _ALWAYS)


def unsettled(connection: sa.Connection) -> list[str]:
    """What has not ended, or ended incompletely."""
    return _broken(connection, _ALWAYS | _AT_THE_END)


def audit(url: str) -> None:
    """Fail unless everything in the database has ended, exactly once, with its counters right."""
    database = sa.make_url(url)
    if database.get_backend_name() == "sqlite":
        assert Path(str(database.database)).is_file()
    else:
        database = database.set(drivername="postgresql+psycopg")
    engine = sa.create_engine(database)
    try:
        with engine.connect() as connection:
            assert unsettled(connection) == []
    finally:
        engine.dispose()


def _broken(connection: sa.Connection, rules: dict[str, str]) -> list[str]:
    found = []
    for name, query in rules.items():
        rows = [row[0] for row in connection.execute(sa.text(query))]
        if rows:
            found.append(f"{name}: {rows[:5]}")
    return found
