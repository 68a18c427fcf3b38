"""The migrations make exactly the tables that the code uses."""

import importlib
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from cumulet.cli import prepare
from cumulet.core.config import Config, DatabaseOptions
from cumulet.core.tables import metadata
from tests import databases


def test_migrations_and_tables_agree(tmp_path: Path) -> None:
    for project in ("keystone", "glance", "placement", "neutron", "nova"):
        importlib.import_module(f"cumulet.{project}.tables")
    url = databases.url(tmp_path / "new.sqlite", tables=False)
    config = Config(database=DatabaseOptions(url=url))
    prepare.migrate(config)
    with sa.create_engine(url).connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    prepare.migrate(config)


def test_an_upgrade_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/old.sqlite"
    engine = sa.create_engine(url)
    in_the_way = metadata.sorted_tables[-1]
    sa.Table(in_the_way.name, sa.MetaData(), sa.Column("id", sa.Integer)).create(engine)
    with pytest.raises(sa.exc.OperationalError, match="already exists"):
        prepare.migrate(Config(database=DatabaseOptions(url=url)))
    assert sa.inspect(engine).get_table_names() == [in_the_way.name]
