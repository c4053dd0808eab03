"""Alembic's entry point: it runs on the connection that `stillframe.store.schema` hands over."""

from __future__ import annotations

from alembic import context

from stillframe.store.schema import VERSION_TABLE
from stillframe.store.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    version_table=VERSION_TABLE,
    include_name=lambda name, kind, _parents: kind != "table" or name in METADATA.tables,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
