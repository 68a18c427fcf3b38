"""SQLite and MariaDB: the one place that knows them apart.

Both compare text byte by byte (``COLLATION``), keep times as text, count the rows that a condition matched, and
refuse values that do not fit.  MariaDB writes at READ COMMITTED, so that only rows that are written are locked;
reads are snapshots there, too, and cannot write.

What a failure means for a transaction is ``verdict``'s: lost to somebody else, or its connection was lost before
the commit: nothing of it lasts and it may be repeated (``Retry``).  Lost while it was committed: nobody knows
whether it lasts, so nobody repeats it.
"""

import logging
import re
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.engine import URL, Connection, Engine, make_url

from cumulet.core.errors import ApiError, BadRequest, Retry, Unavailable

LOG = logging.getLogger(__name__)
BUSY_SECONDS = 20
CONNECT_SECONDS, ANSWER_SECONDS = 5, 30
COLLATION = "utf8mb4_nopad_bin"
COLLATE = sa.text("alter database character set utf8mb4 collate utf8mb4_nopad_bin")
MEMORY = ("sqlite://", "sqlite:///:memory:")
SESSION = (
    "set sql_mode='STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,ERROR_FOR_DIVISION_BY_ZERO', "
    f"innodb_lock_wait_timeout={BUSY_SECONDS}, "
    "group_concat_max_len=1073741824"  # what is made of many rows is never cut off
)
LOSERS = frozenset({1020, 1205, 1213})
"""MariaDB's codes: the row has changed meanwhile, a lock that does not come, a deadlock."""
BAD_PATTERN = 1139
LOST = frozenset({1053, 1152, 1158, 1159, 1160, 1161, 1184, 1927, 2006, 2013, 2055})
"""MariaDB's codes of connections that ended: shutdowns, kills, cables."""


def make(url: str) -> Engine:
    """An engine, without connecting."""
    engine = sa.create_engine(
        address(url),
        json_serializer=lambda value: msgspec.json.encode(value).decode(),
        json_deserializer=msgspec.json.decode,
        hide_parameters=True,  # tracebacks are logged, and rows hold users' secrets
        **_pool(url),
    )
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def address(url: str) -> URL:
    """What SQLAlchemy connects to."""
    found = make_url(url)
    return found if found.get_backend_name() == "sqlite" else found.update_query_dict({"charset": "utf8mb4"})


def failures(engine: Engine) -> tuple[type[Exception], ...]:
    """What the driver and SQLAlchemy raise where the database, not the statement, is to blame."""
    driver = engine.dialect.loaded_dbapi
    return (exc.OperationalError, exc.InterfaceError, driver.OperationalError, driver.InterfaceError)


def verdict(error: Exception, committing: bool = False) -> Retry | ApiError:
    """What to raise for a failure.  The database's words are for the log: users may read the error."""
    cause = (error.orig if isinstance(error, exc.DBAPIError) else None) or error
    code = (*cause.args, 0)[0]
    if code in LOSERS:
        return Retry(f"the database chose another one: {cause}")
    if code in LOST and not committing:
        return Retry(f"the database closed the connection: {cause}")
    if code == BAD_PATTERN:
        return BadRequest("the database does not understand this regular expression")
    LOG.error("the database does not answer%s: %s", ", a change may last or not" * committing, cause)
    return Unavailable("the database does not answer, try again later")


def _pool(url: str) -> dict[str, Any]:
    if url in MEMORY:
        return {"poolclass": sa.StaticPool, "connect_args": {"check_same_thread": False}}
    size = {"pool_size": 4, "max_overflow": -1}  # there are as many as there are threads
    if url.startswith("sqlite"):
        return {**size, "connect_args": {"timeout": BUSY_SECONDS}}
    return {**size, "pool_pre_ping": True, "connect_args": _mariadb()}


def _mariadb() -> dict[str, Any]:
    """Bounds for what a server that is not there may cost; sums of whole numbers are whole numbers."""
    from MySQLdb.constants import FIELD_TYPE
    from MySQLdb.converters import conversions

    numbers = {FIELD_TYPE.DECIMAL: _number, FIELD_TYPE.NEWDECIMAL: _number}
    return {
        "connect_timeout": CONNECT_SECONDS,
        "read_timeout": ANSWER_SECONDS,
        "write_timeout": ANSWER_SECONDS,
        "init_command": SESSION,
        "conv": {**conversions, **numbers},
    }


def _number(text: bytes | str) -> int | float:
    found = float(text)
    return int(found) if found.is_integer() else found


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None
    connection.create_function("regexp", 2, _regexp, deterministic=True)
    for pragma in ("journal_mode=wal", "synchronous=full", "foreign_keys=on", "cache_size=-2000"):
        connection.execute(f"pragma {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    """Who uses the engine by itself begins as a writer; transactions see to it themselves."""
    if not connection.get_execution_options().get("kept"):
        connection.exec_driver_sql("begin immediate")


def _regexp(pattern: str, value: str | None) -> bool:
    try:
        return value is not None and re.search(pattern, value) is not None
    except re.error:
        return False
