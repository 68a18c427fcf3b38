"""Migrations after the first only add, so that services of the version before go on beside the new ones."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config as AlembicConfig

from cumulet.cli.prepare import MIGRATIONS
from cumulet.core.tables import metadata
from tests import databases

FILES = sorted((MIGRATIONS / "versions").glob("[0-9]*_*.py"))
LATER, OLDER = FILES[1:], [file.name.partition("_")[0] for file in FILES[:-1]]
ADDING = frozenset({"create_table", "create_index", "add_column", "batch_alter_table", "f"})
REFUSED = """
def upgrade():
    op.{call}
"""


def mistakes(source: str) -> Iterator[str]:
    """What ``upgrade`` does that a migration must not."""
    tree = ast.parse(source)
    (upgrade,) = [one for one in tree.body if isinstance(one, ast.FunctionDef) and one.name == "upgrade"]
    for call in (one for one in ast.walk(upgrade) if isinstance(one, ast.Call)):
        if not isinstance(call.func, ast.Attribute) or not isinstance(call.func.value, ast.Name):
            continue
        name, words = call.func.attr, {word.arg: ast.unparse(word.value) for word in call.keywords}
        if call.func.value.id in ("op", "batch_op") and name not in ADDING:
            yield f"{name} does not only add"
        if name == "create_index" and words.get("unique", "False") != "False":
            yield "a unique index refuses rows that were good"
        if name == "add_column":
            column = next(one for one in ast.walk(call) if ast.unparse(one).startswith("sa.Column("))
            assert isinstance(column, ast.Call)
            given = {word.arg: ast.unparse(word.value) for word in column.keywords}
            if given.get("nullable") == "False" and "server_default" not in given:
                yield f"{ast.unparse(column.args[0])} has no default: rows of the version before lack it"


@pytest.mark.parametrize("path", LATER, ids=lambda path: path.stem)
def test_a_migration_only_adds(path: Path) -> None:
    assert list(mistakes(path.read_text())) == []


@pytest.mark.parametrize(
    "call",
    [
        'drop_column("ports", "mac")',
        'rename_table("ports", "wires")',
        'create_index("i", "ports", ["mac"], unique=True)',
        'add_column("ports", sa.Column("more", sa.Integer, nullable=False))',
        'execute("delete from ports")',
    ],
)
def test_what_does_more_is_refused(call: str) -> None:
    assert len(list(mistakes(REFUSED.format(call=call)))) == 1


@pytest.mark.parametrize("version", OLDER)
def test_rows_of_each_older_version_are_written_into_the_newest_schema(version: str, tmp_path: Path) -> None:
    """Each column that the older version knows of has a value; those that came later have none."""
    databases.load_tables()
    url = databases.url(tmp_path / "old.sqlite", tables=False)
    alembic = AlembicConfig()
    alembic.set_main_option("script_location", str(MIGRATIONS))
    alembic.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    command.upgrade(alembic, version)
    engine, older = sa.create_engine(url), sa.MetaData()
    older.reflect(engine)
    command.upgrade(alembic, "head")
    with engine.begin() as connection:
        for table in older.sorted_tables:
            if table.name != "alembic_version":
                row = {column.name: _value(column) for column in table.columns if not column.foreign_keys}
                others = {one.name: _value(next(iter(one.foreign_keys)).column) for one in _pointing(table)}
                connection.execute(sa.insert(table).values(row | others))
                connection.execute(sa.update(table).values(row | others))


def _pointing(table: sa.Table) -> list[sa.Column[object]]:
    """Columns that name rows of other tables, which have been written before; not of the table itself."""
    return [
        one for one in table.columns if one.foreign_keys and next(iter(one.foreign_keys)).column.table is not table
    ]


def _value(column: sa.Column[object]) -> object:
    """Going by the type that the tables say: MariaDB calls JSON a text, and checks that it is JSON."""
    kind = metadata.tables[column.table.name].c[column.name].type
    if isinstance(kind, sa.JSON):
        return "{}"
    if isinstance(kind, sa.Integer | sa.Numeric | sa.Float | sa.Boolean):
        return 1
    return b"x" if isinstance(kind, sa.LargeBinary) else "x"
