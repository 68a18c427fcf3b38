"""What SQLAlchemy learns once for all engines of a run of tests.

Nearly every test has a database and an engine of its own.  Left alone, each engine has a dialect of its own, too,
and compiles every statement again: a third of the run's time.  Here all engines of a kind share one dialect and
what is compiled for it.
"""

from typing import Any, ClassVar, Self

from sqlalchemy import Engine, util
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.mysql.mysqldb import MySQLDialect_mysqldb
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine.default import DefaultDialect

STATEMENTS = 4000


class Shared(DefaultDialect):
    """A dialect of which there is one."""

    one: ClassVar[Any] = None
    compiled: ClassVar[Any]

    def __new__(cls, *_: Any, **__: Any) -> Self:
        if cls.one is None:
            cls.one, cls.compiled = super().__new__(cls), util.LRUCache(STATEMENTS)
        found: Self = cls.one
        return found

    def __init__(self, **options: Any) -> None:
        if not vars(self):
            super().__init__(**options)

    @classmethod
    def engine_created(cls, engine: Engine) -> None:
        engine.update_execution_options(compiled_cache=cls.compiled)


class SharedSqlite(Shared, SQLiteDialect_pysqlite):
    supports_statement_cache = True


class SharedMysql(Shared, MySQLDialect_mysqldb):
    supports_statement_cache = True


def share() -> None:
    registry.register("sqlite", __name__, SharedSqlite.__name__)
    registry.register("mysql.mysqldb", __name__, SharedMysql.__name__)
