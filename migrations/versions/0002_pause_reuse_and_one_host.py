"""Add pausing, reuse of equal jobs, idempotency keys, the submitter lock, engine deaths, and one host for SQLite."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_HAS_KEY = sa.text("reuse_key IS NOT NULL")


def upgrade() -> None:
    op.add_column("batches", sa.Column("idempotency_key", sa.String(length=200), nullable=True))
    op.add_column("batches", sa.Column("reuse", sa.Boolean(), nullable=False, server_default=sa.true()))
    op.add_column("batches", sa.Column("jobs_reused", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("batches", sa.Column("paused_at", sa.Double(), nullable=True))
    op.add_column("batches", sa.Column("submitter", sa.String(length=200), nullable=True))
    op.add_column("batches", sa.Column("submitter_seen_at", sa.Double(), nullable=True))
    op.create_index("uq_batches_idempotency_key", "batches", ["idempotency_key"], unique=True)

    op.add_column("jobs", sa.Column("reuse_key", sa.String(length=32), nullable=True))
    op.add_column("jobs", sa.Column("deaths", sa.Integer(), nullable=False, server_default="0"))
    op.create_index(
        "ix_jobs_reuse_key_state",
        "jobs",
        ["reuse_key", "state"],
        sqlite_where=_HAS_KEY,
        postgresql_where=_HAS_KEY,
    )
    big_id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.add_column("results", sa.Column("reused_from", big_id, nullable=True))

    op.add_column("workers", sa.Column("paused_at", sa.Double(), nullable=True))
    op.create_table(
        "hosts",
        sa.Column("machine", sa.String(length=200), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("since", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("machine", name=op.f("pk_hosts")),
    )


def downgrade() -> None:
    op.drop_table("hosts")
    op.drop_column("workers", "paused_at")
    op.drop_column("results", "reused_from")
    op.drop_index("ix_jobs_reuse_key_state", "jobs")
    op.drop_column("jobs", "deaths")
    op.drop_column("jobs", "reuse_key")
    op.drop_index("uq_batches_idempotency_key", "batches")
    for column in ("submitter_seen_at", "submitter", "paused_at", "jobs_reused", "reuse", "idempotency_key"):
        op.drop_column("batches", column)
