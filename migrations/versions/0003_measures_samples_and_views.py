"""Add waiting time, GPU memory and energy of attempts, samples of workers, and stable views for users' SQL.

A later migration that adds a metric recreates the views that show it: `drop_views(NAMES)`, then
`create_views(NAMES, MEASURED + ", a.new_metric")`. A migration that drops a column must drop the views that read it
first, because SQLite requires it.
"""

from collections.abc import Iterable

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_NOW = {
    "sqlite": "((julianday('now') - 2440587.5) * 86400.0)",
    "postgresql": "extract(epoch from clock_timestamp())::double precision",
}
_MINUTE = {
    "sqlite": "CAST({} / 60 AS INTEGER) * 60",
    "postgresql": "CAST(floor({} / 60) * 60 AS bigint)",
}
_DAY = {
    "sqlite": "date(a.finished_at, 'unixepoch')",
    "postgresql": "to_char(to_timestamp(a.finished_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD')",
}

MEASURED = """
    a.waited_s,
    a.queue_s,
    a.prefill_s,
    a.decode_s,
    a.finished_at - a.started_at AS run_s,
    (a.prefill_s + a.decode_s) / a.batch_size AS engine_s,
    a.cached_tokens,
    a.completion_tokens,
    (a.prompt_tokens - coalesce(a.cached_tokens, 0)) / nullif(a.prefill_s, 0) AS prefill_tokens_per_s,
    a.completion_tokens / nullif(a.decode_s, 0) AS tokens_per_s,
    a.batch_size,
    a.peak_memory_bytes,
    a.peak_vram_bytes,
    a.energy_j"""

VIEWS = {
    "v_jobs": """
SELECT
    j.id AS job,
    j.batch_id AS batch,
    j.document_id,
    d.name AS document,
    j.level,
    j.position,
    c.char_start,
    c.char_end,
    j.model,
    j.state,
    j.priority,
    j.prompt_tokens,
    j.max_tokens,
    j.epoch AS attempts,
    j.failures,
    j.losses,
    j.deaths,
    r.reused_from,
    CASE WHEN r.reused_from IS NOT NULL THEN r.prompt_tokens + r.completion_tokens END AS reused_tokens,
    a.worker,
    a.engine,
    j.created_at,
    a.started_at,
    j.finished_at,{measured},
    r.finish_reason,
    r.text,
    j.error_kind,
    j.error
FROM jobs j
JOIN documents d ON d.id = j.document_id
LEFT JOIN attempts a ON a.job_id = j.id AND a.epoch = j.epoch
LEFT JOIN results r ON r.job_id = j.id
LEFT JOIN chunks c ON c.document_id = j.document_id AND c.position = j.position AND j.level = 0
""",
    "v_attempts": """
SELECT
    a.job_id AS job,
    a.epoch AS attempt,
    j.batch_id AS batch,
    j.document_id,
    d.name AS document,
    j.level,
    j.position,
    a.outcome,
    a.worker,
    a.engine,
    a.model,
    a.started_at,
    a.finished_at,
    a.prompt_tokens,{measured},
    a.error_kind,
    a.error
FROM attempts a
JOIN jobs j ON j.id = a.job_id
JOIN documents d ON d.id = j.document_id
""",
    "v_documents": """
SELECT
    d.id AS document_id,
    d.batch_id AS batch,
    d.position,
    d.name AS document,
    d.source,
    d.state,
    d.characters,
    d.tokens,
    d.chunk_count AS chunks,
    d.level + 1 AS levels,
    count(j.id) AS jobs,
    coalesce(sum(CASE WHEN j.state = 'failed' THEN 1 ELSE 0 END), 0) AS jobs_failed,
    count(r.reused_from) AS jobs_reused,
    coalesce(sum(j.epoch), 0) AS attempts,
    coalesce(sum(a.prompt_tokens), 0) AS prompt_tokens,
    coalesce(sum(a.cached_tokens), 0) AS cached_tokens,
    coalesce(sum(a.completion_tokens), 0) AS completion_tokens,
    coalesce(sum((a.prefill_s + a.decode_s) / a.batch_size), 0.0) AS engine_s,
    sum(a.energy_j) AS energy_j,
    d.created_at,
    min(a.started_at) AS started_at,
    d.finished_at,
    d.finished_at - d.created_at AS seconds,
    (SELECT f.text FROM results f WHERE f.document_id = d.id AND f.final) AS summary,
    d.error
FROM documents d
LEFT JOIN jobs j ON j.document_id = d.id
LEFT JOIN attempts a ON a.job_id = j.id AND a.epoch = j.epoch AND a.outcome = 'succeeded'
LEFT JOIN results r ON r.job_id = j.id
GROUP BY d.id, d.batch_id, d.position
""",
    "v_workers": """
SELECT
    w.name AS worker,
    w.model,
    w.engine,
    CASE
        WHEN w.stopped_at IS NOT NULL THEN 'stopped'
        WHEN w.seen_at < {now} - 60 THEN 'lost'
        WHEN w.paused_at IS NOT NULL THEN 'paused'
        ELSE 'running'
    END AS state,
    w.slots,
    CASE WHEN w.running < w.slots THEN w.running ELSE w.slots END AS slots_used,
    w.started_at,
    w.seen_at,
    w.stopped_at,
    w.paused_at,
    coalesce(w.stopped_at, w.seen_at) - w.started_at AS up_s,
    count(s.at) AS samples,
    avg(CASE WHEN s.running < s.slots THEN CAST(s.running AS DOUBLE PRECISION) / s.slots
        WHEN s.at IS NOT NULL THEN 1.0 END) AS occupancy,
    avg(s.worker_cpu_percent) AS worker_cpu_percent,
    avg(s.engine_cpu_percent) AS engine_cpu_percent,
    avg(s.gpu_percent) AS gpu_percent,
    avg(s.power_w) AS power_w,
    max(s.rss_bytes) AS peak_rss_bytes,
    max(s.vram_bytes) AS peak_vram_bytes,
    coalesce(max(s.jobs), 0) AS jobs,
    coalesce(max(s.prompt_tokens), 0) AS prompt_tokens,
    coalesce(max(s.cached_tokens), 0) AS cached_tokens,
    coalesce(max(s.completion_tokens), 0) AS completion_tokens
FROM workers w
LEFT JOIN worker_samples s ON s.worker = w.name AND s.at >= w.started_at
GROUP BY w.name
""",
    "v_samples": """
SELECT
    s.worker,
    s.at,
    {sampled_minute} AS minute,
    s.slots,
    CASE WHEN s.running < s.slots THEN s.running ELSE s.slots END AS slots_used,
    CASE WHEN s.running < s.slots THEN CAST(s.running AS DOUBLE PRECISION) / s.slots ELSE 1.0 END AS occupancy,
    s.rss_bytes,
    s.worker_cpu_percent,
    s.engine_cpu_percent,
    s.vram_bytes,
    s.gpu_percent,
    s.power_w,
    s.jobs,
    s.prompt_tokens,
    s.cached_tokens,
    s.completion_tokens,
    CASE WHEN s.jobs >= lag(s.jobs) OVER before THEN
        (s.prompt_tokens + s.completion_tokens - lag(s.prompt_tokens + s.completion_tokens) OVER before)
        / nullif(s.at - lag(s.at) OVER before, 0)
    END AS tokens_per_s
FROM worker_samples s
WINDOW before AS (PARTITION BY s.worker ORDER BY s.at)
""",
    "v_throughput": """
SELECT
    {day} AS day,
    {minute} AS at,
    j.batch_id AS batch,
    a.model,
    a.worker,
    sum(CASE WHEN a.outcome = 'succeeded' THEN 1 ELSE 0 END) AS succeeded,
    sum(CASE WHEN a.outcome = 'reused' THEN 1 ELSE 0 END) AS reused,
    sum(CASE WHEN a.outcome = 'failed' THEN 1 ELSE 0 END) AS failed,
    coalesce(sum(CASE WHEN a.outcome = 'succeeded' THEN a.prompt_tokens END), 0) AS prompt_tokens,
    coalesce(sum(CASE WHEN a.outcome = 'succeeded' THEN a.cached_tokens END), 0) AS cached_tokens,
    coalesce(sum(CASE WHEN a.outcome = 'succeeded' THEN a.completion_tokens END), 0) AS completion_tokens,
    coalesce(sum(CASE WHEN a.outcome = 'succeeded' THEN a.prompt_tokens + a.completion_tokens END), 0)
        / CAST(60 AS DOUBLE PRECISION) AS tokens_per_s,
    coalesce(sum((a.prefill_s + a.decode_s) / a.batch_size), 0.0) AS engine_s,
    avg(a.batch_size) AS batch_size,
    sum(a.energy_j) AS energy_j
FROM attempts a
JOIN jobs j ON j.id = a.job_id
WHERE a.finished_at IS NOT NULL
GROUP BY 1, 2, j.batch_id, a.model, a.worker
""",
}


def create_views(names: Iterable[str], measured: str = MEASURED) -> None:
    """Create these views; `measured` is the SQL of an attempt's metrics."""
    dialect = op.get_context().dialect.name
    parts = {
        "now": _NOW[dialect],
        "day": _DAY[dialect],
        "minute": _MINUTE[dialect].format("a.finished_at"),
        "sampled_minute": _MINUTE[dialect].format("s.at"),
        "measured": measured,
    }
    for name in names:
        op.execute(f"CREATE VIEW {name} AS {VIEWS[name].format(**parts)}")


def drop_views(names: Iterable[str]) -> None:
    """Drop these views."""
    for name in names:
        op.execute(f"DROP VIEW {name}")


def upgrade() -> None:
    big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.add_column("attempts", sa.Column("waited_s", sa.Double(), nullable=True))
    op.add_column("attempts", sa.Column("peak_vram_bytes", big, nullable=True))
    op.add_column("attempts", sa.Column("energy_j", sa.Double(), nullable=True))
    op.create_table(
        "worker_samples",
        sa.Column("worker", sa.String(length=200), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("running", sa.Integer(), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("rss_bytes", big, nullable=False),
        sa.Column("worker_cpu_percent", sa.Double(), nullable=False),
        sa.Column("engine_cpu_percent", sa.Double(), nullable=True),
        sa.Column("vram_bytes", big, nullable=True),
        sa.Column("gpu_percent", sa.Double(), nullable=True),
        sa.Column("power_w", sa.Double(), nullable=True),
        sa.Column("jobs", big, nullable=False),
        sa.Column("prompt_tokens", big, nullable=False),
        sa.Column("cached_tokens", big, nullable=False),
        sa.Column("completion_tokens", big, nullable=False),
        sa.PrimaryKeyConstraint("worker", "at", name=op.f("pk_worker_samples")),
    )
    op.create_index("ix_worker_samples_at", "worker_samples", ["at"])
    create_views(VIEWS)


def downgrade() -> None:
    drop_views(VIEWS)
    op.drop_table("worker_samples")
    for column in ("energy_j", "peak_vram_bytes", "waited_s"):
        op.drop_column("attempts", column)
