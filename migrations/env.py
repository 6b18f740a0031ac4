"""Alembic's entry point: runs the migrations on the connection that `docmill.storage.schema` passes in."""

from alembic import context

from docmill.storage.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
