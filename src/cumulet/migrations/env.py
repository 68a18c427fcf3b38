"""How Alembic reaches the schema.  Migrations expand, later ones contract: older services run beside the newer.

SQLite changes a schema in a transaction as it does anything else, once it is told to begin: all of an upgrade is
one commit, or nothing of it is there.  Foreign keys are not looked at meanwhile, since a table that is made anew
is dropped first.
"""

import importlib
from typing import Any

from alembic import context
from sqlalchemy import create_engine

from cumulet.core import engines
from cumulet.core.tables import metadata

for project in ("keystone", "glance", "placement", "neutron", "nova"):
    importlib.import_module(f"cumulet.{project}.tables")

engine = create_engine(engines.address(context.config.get_main_option("sqlalchemy.url") or ""))
with engine.connect() as connection:
    if engine.dialect.name == "sqlite":
        driver: Any = connection.connection.dbapi_connection
        driver.isolation_level = None  # of itself it begins for rows, not for schemas
        connection.exec_driver_sql("begin immediate")
    else:
        connection.execute(engines.COLLATE)
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()
