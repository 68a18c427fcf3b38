"""The database of tests: SQLite, or for ``pytest --database mariadb`` a private MariaDB that lives as long as they.

``url`` gives an empty database, ``make_tables`` gives it all tables.  Databases make tables slowly: those of SQLite
are copied from a template; those of MariaDB have them from the beginning and are used again, one that a test or a
fixture had is emptied for the next one, however the first left it.
"""

import contextlib
import getpass
import importlib
import logging
import shutil
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from cumulet.core import engines
from cumulet.core.tables import metadata
from cumulet.host import mariadb
from tests import dialects

MEMORY = Path("/dev/shm")
START_SECONDS = 60.0
PROJECTS = ("keystone", "glance", "placement", "neutron", "nova")


class Server:
    """A MariaDB without durability, and its databases: those in use, and those that wait."""

    def __init__(self) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="cumulet-", dir=MEMORY if MEMORY.is_dir() else None))
        user = getpass.getuser()
        mariadb.install(self.place / "mariadb", user)
        (self.place / "run" / "mariadb").mkdir(parents=True)
        (self.place / "run" / "mariadb" / "orders.sql").write_text(
            f"create user if not exists {user}@localhost identified via unix_socket;\n"
            f"grant all on *.* to {user}@localhost with grant option;\n"
        )
        argv = mariadb.argv(self.place, self.place / "run", user, cache_mb=64, fast=True)
        argv = ["setpriv", "--pdeathsig", "KILL", "--", *argv]  # it ends with the run, however that ends
        with (self.place / "log").open("wb") as log:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        load_tables()
        self.user, self.free, self.made = user, list[str](), 0
        self.damaged: set[str] = set()
        self.root = engines.make(self.url("mysql"))
        self._wait()

    def url(self, name: str) -> str:
        return f"mysql+mysqldb://{self.user}@localhost/{name}?unix_socket={mariadb.socket(self.place / 'run')}"

    def take(self, tables: bool) -> str:
        """The name of an empty database."""
        if self.free and tables:
            return self.free.pop()
        self.made += 1
        name = f"test{self.made}"
        with self.root.begin() as connection:
            connection.exec_driver_sql(f"create database {name} character set utf8mb4 collate {engines.COLLATION}")
        if not tables:
            self.damaged.add(name)
            return name
        engine = engines.make(self.url(name))
        metadata.create_all(engine)
        engine.dispose()
        return name

    def give(self, name: str) -> None:
        """Cut off whoever still uses it, and empty it."""
        with self.root.connect() as connection:
            connection.exec_driver_sql("set foreign_key_checks=0")
            users = connection.exec_driver_sql(
                f"select id from information_schema.processlist where db='{name}'"
            ).scalars()
            for user in users.all():
                with contextlib.suppress(OperationalError):  # it has gone by itself
                    connection.exec_driver_sql(f"kill {user}")
            if name in self.damaged:
                connection.exec_driver_sql(f"drop database {name}")
                return
            tables = [table.name for table in metadata.sorted_tables]
            parts = " union all ".join(f"(select '{table}' from {name}.{table} limit 1)" for table in tables)
            for table in connection.exec_driver_sql(parts).scalars().all():
                connection.exec_driver_sql(f"delete from {name}.{table}")
            for table in metadata.sorted_tables:
                if table.autoincrement_column is not None:
                    connection.exec_driver_sql(f"alter table {name}.{table.name} auto_increment=1")
            connection.exec_driver_sql("set foreign_key_checks=1")
            connection.commit()
        self.free.append(name)

    def end(self) -> None:
        self.root.dispose()
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.place)

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.root.connect().close()
                return
            except sa.exc.OperationalError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    words = (self.place / "log").read_text()
                    self.end()
                    raise RuntimeError(words) from None
            time.sleep(0.02)


_server: Server | None = None
_owners: list[Any] = []


def is_mariadb() -> bool:
    return _server is not None


def url(file: Path | None = None, tables: bool = True) -> str:
    """The URL of an empty database; that of SQLite is in memory, or this file.

    It belongs to the fixture that asks for it, or to the test, or (while tests are collected) to the whole run.
    """
    if _server is None:
        return f"sqlite:///{file}" if file else "sqlite://"
    server, name = _server, _server.take(tables)
    if _owners:
        _owners[-1].addfinalizer(lambda: server.give(name))
    return server.url(name)


def make_tables(engine: sa.Engine) -> None:
    """Give a database of ``url``'s, or a new one of SQLite, the tables of all projects."""
    if engine.dialect.name != "sqlite":
        return
    connection = engine.raw_connection()
    driver = connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    _template().backup(driver)
    connection.close()


@cache
def _template() -> sqlite3.Connection:
    load_tables()
    found = sqlite3.connect(":memory:", check_same_thread=False)
    metadata.create_all(sa.create_engine("sqlite://", creator=lambda: found, poolclass=sa.StaticPool))
    return found


def load_tables() -> None:
    """Let the one ``metadata`` have the tables of all projects."""
    for project in PROJECTS:
        importlib.import_module(f"cumulet.{project}.tables")


def damage(engine: sa.Engine, *statements: str) -> None:
    """Change the tables themselves, whatever they mean to each other: this database is used no more afterwards."""
    if _server is not None:
        _server.damaged.add(str(engine.url.database))
    with engine.connect() as connection:
        connection.exec_driver_sql("set foreign_key_checks=0" if _server else "pragma foreign_keys=off")
        for statement in statements:
            connection.exec_driver_sql(statement)
        connection.commit()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--database", choices=("sqlite", "mariadb"), default="sqlite", help="what tests use")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "sqlite: about SQLite itself")
    dialects.share()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--database") != "sqlite":
        for item in items:
            if item.get_closest_marker("sqlite"):
                item.add_marker(pytest.mark.skip(reason="about SQLite itself"))


def pytest_sessionstart(session: pytest.Session) -> None:
    global _server
    if session.config.getoption("--database") == "mariadb":
        _server = Server()
        logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)  # connections that were cut off are no news


def pytest_sessionfinish(session: pytest.Session) -> None:
    global _server
    if _server is not None:
        _server.end()
        _server = None


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Iterator[None]:
    _owners.append(fixturedef)
    try:
        return (yield)
    finally:
        _owners.pop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    _owners.append(item)
    try:
        return (yield)
    finally:
        _owners.pop()
