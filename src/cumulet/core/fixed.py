"""Expressions that never change, for statements of which they are a large part.

SQLAlchemy finds a compiled statement again by a key that it makes of every part of the statement, each time: for
the status of a server that takes longer than the query.  A fixed expression is known by its name instead.
"""

from typing import Any, TypeVar

from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.visitors import InternalTraversal

T = TypeVar("T")
_names: set[str] = set()


class _Fixed(ColumnElement[T]):
    _traverse_internals = [("name", InternalTraversal.dp_string), ("type", InternalTraversal.dp_type)]

    def __init__(self, name: str, expression: ColumnElement[T]) -> None:
        self.name, self.type, self.meaning = name, expression.type, expression


def fixed(name: str, expression: ColumnElement[T]) -> ColumnElement[T]:
    """``expression``, which must be the same at every call; ``name`` is nobody else's (ValueError)."""
    if name in _names:
        raise ValueError(f"there is another fixed expression called {name}")
    _names.add(name)
    return _Fixed(name, expression)


@compiles(_Fixed)
def _render(element: _Fixed[Any], compiler: SQLCompiler, **options: Any) -> str:
    return str(compiler.process(element.meaning, **options))
