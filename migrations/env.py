"""Alembic's entry. `swap migrate` hands over its own connection; the `alembic` command reads DATABASE_URL."""

from alembic import context

from swap.settings import Settings
from swap.store.database import Database
from swap.tables import Row


def run(connection):
    context.configure(
        connection=connection,
        target_metadata=Row.metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        user_module_prefix="swap.tables.",
        transaction_per_migration=False,
    )
    with context.begin_transaction():
        context.run_migrations()


connection = context.config.attributes.get("connection")
if connection is not None:
    run(connection)
else:
    database = Database(Settings.from_env().database_url)
    with database.engine.execution_options(swap_write=True).connect() as connection, connection.begin():
        run(connection)
