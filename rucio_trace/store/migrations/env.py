"""Runs migrations on the connection, and in the transaction, of `rucio_trace.store.schema`."""

from alembic import context

from rucio_trace.store.schema import VERSION_TABLE
from rucio_trace.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    transactional_ddl=True,  # true of SQLite too, since the transaction is begun by us and not by its driver
)
with context.begin_transaction():
    context.run_migrations()
