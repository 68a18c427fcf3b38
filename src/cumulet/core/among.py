"""``IN`` with as many values as there are: one parameter, however many.

SQLAlchemy writes its own ``IN`` anew each time, with a parameter for each value, and for a thousand of them takes
longer than the query.  Here the values travel as one JSON array, so the statement is always the same text, no
database's bound on parameters is met, and nothing is written but the array.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import BindParameter, ColumnElement
from sqlalchemy.sql.visitors import InternalTraversal

from cumulet.core.engines import COLLATION


class _Given(ColumnElement[str]):
    """A parameter's array as rows."""

    _traverse_internals = [("array", InternalTraversal.dp_clauseelement)]
    type = sa.String()

    def __init__(self, array: BindParameter[Any]) -> None:
        self.array = array


def among(column: ColumnElement[str], name: str) -> ColumnElement[bool]:
    """Whether ``column``, a text, is one of the values in the list that the parameter ``name`` will be.

    For queries: MariaDB before 11 looks at every row of a table that is changed by such a condition.
    """
    return column.bool_op("in")(_Given(sa.bindparam(name, type_=sa.JSON)))


@compiles(_Given)
def _rows(element: _Given, compiler: SQLCompiler, **options: Any) -> str:
    return f"(select value from json_each({compiler.process(element.array, **options)}))"


@compiles(_Given, "mysql", "mariadb")
def _mariadb_rows(element: _Given, compiler: SQLCompiler, **options: Any) -> str:
    value = f"value varchar(255) character set utf8mb4 collate {COLLATION} path '$'"
    array = compiler.process(element.array, **options)
    return f"(select value from json_table({array}, '$[*]' columns ({value})) as given_values)"
