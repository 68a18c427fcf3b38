"""Connections that are kept, and whose turn it is to write.

SQLAlchemy compiles the statements and reads the rows.  Checking a connection out of its pool, beginning and ending
through its events costs more than most statements do, so transactions take a kept connection here and speak to the
driver: the one that was used last is used next, and a process that answers one request at a time has one.

SQLite lets others try again and again until the writer is done, later and later, and the unlucky for ever.  Here
writers queue up for the lock of a file beside the database and are woken by the kernel.  The lock only orders
them: who ignores it, or a crash, which gives it back, harms nothing.
"""

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from sqlalchemy.engine import Connection, Engine

from cumulet.core.engines import BUSY_SECONDS
from cumulet.core.errors import Unavailable

MOST_IDLE = 16
RESTED_SECONDS = 1.0
"""A server may have closed a connection that rested longer: SQLAlchemy's pool asks it first."""
WRITER, READER = "isolation level read committed, read write", "isolation level repeatable read, read only"


class Session:
    """One connection: SQLAlchemy's for statements, the driver's for where transactions begin and end."""

    __slots__ = ("_driver", "_file", "connection", "kind", "rested_at")

    def __init__(self, engine: Engine, kind: str) -> None:
        self.connection: Connection = engine.connect().execution_options(kept=True)
        driver: Any = self.connection.connection.dbapi_connection
        self._driver = driver
        self._file = engine.dialect.name == "sqlite"
        self.kind, self.rested_at = kind, 0.0
        if kind:
            driver.query(f"set session transaction {kind}")

    def begin(self, writes: bool) -> None:
        if self._file:  # the others begin by themselves
            self._driver.execute("begin immediate" if writes else "begin")

    def commit(self) -> None:
        self._driver.commit()

    def rollback(self) -> None:
        self._driver.rollback()

    def rested_too_long(self) -> bool:
        return not self._file and time.monotonic() - self.rested_at > RESTED_SECONDS


class Sessions:
    """Those that nobody uses at the moment, the latest last.  MariaDB's connections read only, or write."""

    def __init__(self, engine: Callable[[], Engine]) -> None:
        self._engine = engine
        self._idle: dict[str, list[Session]] = {}
        self._memory = threading.RLock()  # a database in memory has one connection: one at a time

    @contextmanager
    def lease(self, writes: bool) -> Iterator[Session]:
        """A session of one's own, in a transaction; what was not committed is rolled back."""
        with self._memory if self._engine().url.database in (None, "", ":memory:") else nullcontext():
            yield from self._lease(writes)

    def _lease(self, writes: bool) -> Iterator[Session]:
        session = self._take(writes)
        try:
            session.begin(writes)
            yield session
        except BaseException:
            self._undo(session)
            raise
        self._give(session)

    def forget(self) -> None:
        """Those of the parent process are not ours to close."""
        self._idle = {}

    def _undo(self, session: Session) -> None:
        try:
            session.rollback()
        except self._engine().dialect.loaded_dbapi.Error:  # it is lost; the database undoes it
            session.connection.invalidate()
            session.connection.close()
        else:
            self._give(session)

    def _take(self, writes: bool) -> Session:
        engine = self._engine()
        kind = "" if engine.dialect.name == "sqlite" else WRITER if writes else READER
        idle = self._idle.setdefault(kind, [])
        while True:
            try:
                session = idle.pop()
            except IndexError:
                return Session(engine, kind)
            if not session.rested_too_long():
                return session
            session.connection.close()

    def _give(self, session: Session) -> None:
        session.rested_at = time.monotonic()
        idle = self._idle.setdefault(session.kind, [])
        if len(idle) < MOST_IDLE:
            idle.append(session)
        else:
            session.connection.close()


class Turns:
    """One writer at a time: among this process's threads, then among the processes of this machine."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._among_threads = threading.Lock()
        self._file: tuple[int, int] | None = None  # of which process, and its descriptor

    @contextmanager
    def turn(self) -> Iterator[None]:
        if not self._among_threads.acquire(timeout=BUSY_SECONDS):
            raise Unavailable(f"the database does not answer: others have been writing for {BUSY_SECONDS} seconds")
        try:
            descriptor = self._descriptor()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(descriptor, fcntl.LOCK_UN)
        finally:
            self._among_threads.release()

    def _descriptor(self) -> int:
        """A process's own: a forked child would share its parent's lock."""
        if self._file is None or self._file[0] != os.getpid():
            self._file = (os.getpid(), os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        return self._file[1]


class NoTurns:
    """Where the database itself queues its writers up."""

    def turn(self) -> nullcontext[None]:
        return nullcontext()
