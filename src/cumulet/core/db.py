"""Transactions.  The only way to the database, to send a hint and to write a notification.

Hints leave after the commit, so nobody is told of something that did not happen; if the process dies in
between, the hint is lost and the next full pass finds the change.  Notifications are rows of the same
transaction.  SQLite is the single node's engine, MariaDB that of several (``core.engines``).

Every change must be a compare-and-set or an insert that a unique index guards: with MariaDB two controllers
write at once.  Losing a race raises ``Conflict`` or ``Retry`` in the caller, never overwrites.  ``Retry`` also
tells of a deadlock and of a connection that was lost before the commit: nothing of the transaction lasts, and
whoever runs handlers (``core.http``) and reconcilers (``core.reconcile``) calls them again.
"""

import sqlite3
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.engine import Connection, CursorResult, Engine, Row
from sqlalchemy.sql.expression import Executable

from cumulet.core import clock, engines
from cumulet.core.bus import Bus, LocalBus
from cumulet.core.connections import NoTurns, Session, Sessions, Turns
from cumulet.core.context import REQUEST_ID, Context
from cumulet.core.errors import Conflict, Retry
from cumulet.core.metrics import COMMITS
from cumulet.core.tables import notifications, stamps

Values = Mapping[str, Any]
OUTBOX = "cumulet.notifications"
"""The topic of whoever takes notifications further."""
_STAMP = sa.update(stamps).where(stamps.c.name == sa.bindparam("stamp")).values(value=sa.bindparam("text"))
PRIVATE_FIELDS = frozenset({"password", "token", "secret", "user_data", "admin_pass", "adminPass"})
_READ_STAMP = {
    "qmark": "select value from stamps where name = ?",
    "format": "select value from stamps where name = %s",
}
"""By the driver's way to write a parameter."""


class Transaction:
    """One transaction.  Statements are SQLAlchemy Core; rows give their columns as attributes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.hints: dict[tuple[str, str], None] = {}
        self.wrote = False
        self._notices: list[Values] = []
        self._stamps: set[str] = set()

    def all(self, statement: Executable, values: Values | None = None) -> Sequence[Row[Any]]:
        return self._connection.execute(statement, values).all()

    def find(self, statement: Executable, values: Values | None = None) -> Row[Any] | None:
        """The first row, or None."""
        return self._connection.execute(statement, values).first()

    def value(self, statement: Executable, values: Values | None = None) -> Any:
        """The first column of the first row, or None."""
        return self._connection.execute(statement, values).scalar()

    def write(self, statement: Executable, values: Values | Sequence[Values] | None = None) -> int:
        """Run an insert, update or delete; how many rows it changed.  A broken unique index is ``Conflict``."""
        try:
            result = cast("CursorResult[Any]", self._connection.execute(statement, values))
        except exc.IntegrityError as error:
            raise Conflict("already exists or is still in use") from error
        if result.rowcount:
            self._note_change(statement)
        return int(result.rowcount)

    def _note_change(self, statement: Executable) -> None:
        self.wrote = True
        table = getattr(statement, "table", None)
        if isinstance(table, sa.Table) and "stamp" in table.info:
            self._stamps.add(table.info["stamp"])

    def stamp(self, name: str) -> str:
        """The stamp's text now, empty before its first.  Every request asks, so this asks the driver itself."""
        cursor = self._connection.connection.cursor()
        cursor.execute(_READ_STAMP[self._connection.dialect.paramstyle], (name,))
        row = cursor.fetchone()
        cursor.close()
        return str(row[0]) if row else ""

    def hint(self, topic: str, key: str) -> None:
        """After the commit, tell those who listen to ``topic`` to look at ``key`` again."""
        self.hints[(topic, key)] = None

    def notify(self, context: Context, event_type: str, publisher: str, payload: Values) -> None:
        """A notification in upstream's form, written at the end.  Fields that hold secrets are left out."""
        self._notices.append(
            {
                "id": str(uuid.uuid4()),
                "created_at": clock.now(),
                "publisher_id": publisher,
                "event_type": event_type,
                "request_id": context.request_id or REQUEST_ID.get(),
                "context": {
                    "user_id": context.user_id,
                    "project_id": context.project_id,
                    "request_id": context.request_id,
                    "global_request_id": context.global_request_id,
                },
                "payload": without_secrets(payload),
            }
        )

    def finish(self) -> None:
        """Write what was put off; the last thing before the commit."""
        if self._notices:
            self.write(notifications.insert(), self._notices)
            self.hint(OUTBOX, "outbox")
        for name in sorted(self._stamps):
            self._renew(name)

    def _renew(self, name: str) -> None:
        """Give the stamp another text, last of all: where rows are locked, others wait for the commit only."""
        changed = {"stamp": name, "text": uuid.uuid4().hex}
        if not self.write(_STAMP, changed):
            try:
                self.write(stamps.insert(), {"name": name, "value": changed["text"]})
            except Conflict as race:
                raise Retry(f"somebody else gives {name} its first stamp") from race


def without_secrets(value: Any) -> Any:
    """``value`` with the fields that hold secrets left out, at any depth."""
    if isinstance(value, Mapping):
        return {k: without_secrets(v) for k, v in value.items() if k not in PRIVATE_FIELDS}
    if isinstance(value, list | tuple):
        return [without_secrets(item) for item in value]
    return value


class Database:
    """The database of all projects.  Threads and forked children each get connections of their own."""

    def __init__(self, url: str, bus: Bus) -> None:
        self._engine = _prepared.get(url) or engines.make(url)
        self._bus = bus
        self.engine = self._engine
        self._sessions = Sessions(lambda: self._engine)
        self._turns = _turns(self._engine)
        self._failures = engines.failures(self._engine)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """A transaction that may write.  Commits at the end of the block, rolls back on any exception."""
        with self._writing() as session:
            tx = Transaction(session.connection)
            yield tx
            tx.finish()
            self.before_commit(tx)
            self._commit(session, tx.wrote)
        self.after_commit(tx)
        for topic, key in tx.hints:
            self._bus.hint(topic, key)

    @contextmanager
    def rehearsal(self) -> Iterator[Transaction]:
        """A transaction of which nothing lasts and no hint leaves: what would be, if it were."""
        with self._writing() as session:
            yield Transaction(session.connection)
            session.rollback()

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """A snapshot that cannot write and waits for nobody."""
        with self._told(), self._sessions.lease(writes=False) as session:
            yield Transaction(session.connection)
            session.commit()

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        with self._told(), self._turns.turn(), self._sessions.lease(writes=True) as session:
            yield session

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Failures in words of this code base."""
        try:
            yield
        except self._failures as error:
            raise engines.verdict(error) from error

    def _commit(self, session: Session, wrote: bool) -> None:
        try:
            session.commit()
        except self._failures as error:
            raise engines.verdict(error, committing=wrote) from error

    def before_commit(self, tx: Transaction) -> None:
        """A seam for tests that die just before a change lasts."""

    def after_commit(self, tx: Transaction) -> None:
        """A seam for tests that die just after a change lasts, before its hints leave."""
        if tx.wrote:
            COMMITS.inc()

    def dispose(self) -> None:
        """Forget inherited connections; called by each forked child before its first transaction."""
        self._sessions.forget()
        self._engine.dispose(close=False)


_prepared: dict[str, Engine] = {}


def prepare(url: str) -> None:
    """Make what each ``Database`` of this URL needs, without connecting: before a fork, for children to share."""
    _prepared[url] = engines.make(url)


class _Rehearsal(Database):
    """Its writers wait for nobody, and nothing is counted."""

    def __init__(self, url: str, bus: Bus) -> None:
        super().__init__(url, bus)
        self._turns = NoTurns()

    def after_commit(self, tx: Transaction) -> None:
        pass


@contextmanager
def rehearsal(url: str) -> Iterator[Database]:
    """An empty database in memory; what is compiled for it is compiled for the prepared one of ``url``."""
    engine = _prepared[url]

    def connect(*_: Any) -> sqlite3.Connection:
        return sqlite3.connect(":memory:", check_same_thread=False)

    event.listen(engine, "do_connect", connect)
    try:
        yield _Rehearsal(url, LocalBus())
    finally:
        event.remove(engine, "do_connect", connect)
        engine.dispose()


def _turns(engine: Engine) -> Turns | NoTurns:
    path = engine.url.database
    if engine.dialect.name != "sqlite" or path in (None, "", ":memory:"):
        return NoTurns()
    return Turns(f"{path}-turn")
