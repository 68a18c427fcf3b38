"""How Alembic reaches the schema.  Migrations expand, later ones contract: older services run beside the newer."""

import importlib

from alembic import context
from sqlalchemy import create_engine

from cumulet.core import engines
from cumulet.core.tables import metadata

for project in ("keystone", "glance", "placement", "neutron", "nova"):
    importlib.import_module(f"cumulet.{project}.tables")

engine = create_engine(engines.address(context.config.get_main_option("sqlalchemy.url") or ""))
with engine.connect() as connection:
    if connection.dialect.name != "sqlite":
        connection.exec_driver_sql(f"alter database character set utf8mb4 collate {engines.COLLATION}")
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()
