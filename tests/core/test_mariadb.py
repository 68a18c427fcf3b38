"""What only a database with many writers shows: deadlocks, snapshots, connections that are lost at bad moments."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from cumulet.core import schema
from cumulet.core.bus import LocalBus
from cumulet.core.config import Config
from cumulet.core.context import Context
from cumulet.core.db import Database, Transaction
from cumulet.core.errors import ApiError, Retry, Unavailable
from cumulet.core.http import App, Caller, Request, Route
from cumulet.core.policy import PUBLIC, Policies
from cumulet.core.tables import facts
from tests import databases


@pytest.fixture
def db() -> Iterator[Database]:
    if not databases.is_mariadb():
        pytest.skip("about MariaDB itself")
    found = Database(databases.url(), LocalBus())
    databases.make_tables(found.engine)
    with found.transaction() as tx:
        tx.write(facts.insert(), [{"name": "a", "value": "0"}, {"name": "b", "value": "0"}])
    yield found
    found.engine.dispose()


def values(db: Database) -> dict[str, str]:
    with db.read() as tx:
        return {row.name: row.value for row in tx.all(sa.select(facts))}


def cut(db: Database, tx: Transaction) -> None:
    """End the connection of a transaction, as a server does that is shut down."""
    number = tx.value(sa.select(sa.func.connection_id()))
    with db.engine.connect() as connection:
        connection.exec_driver_sql(f"kill {number}")


def app(db: Database, handler: Any) -> App:
    def nobody(*_: str) -> Context:
        return Context()

    def render(error: ApiError) -> tuple[bytes, str]:
        return schema.encode({"error": error.message}), "application/json"

    routes = [Route("POST", "/things", handler, PUBLIC, 201)]
    caller = Caller(nobody, nobody)
    return App("x", routes, db=db, config=Config(), policies=Policies({}), caller=caller, render_error=render)


def change(tx: Transaction, name: str, value: str) -> None:
    assert tx.write(sa.update(facts).where(facts.c.name == name).values(value=value)) == 1


def test_of_a_deadlock_one_is_repeated_and_both_succeed(db: Database) -> None:
    both, orders = threading.Barrier(2, timeout=20), iter(("ab", "ba"))
    statuses: list[int] = []

    def create(request: Request) -> dict[str, Any]:
        first, second = list(order.names)
        with db.transaction() as tx:
            change(tx, first, order.names)
            if not order.met:
                both.wait()
                order.met = True
            change(tx, second, order.names)
        return {}

    class Order(threading.local):
        names, met = "", False

    order = Order()
    things = app(db, create)

    def call(names: str) -> None:
        order.names = names
        statuses.append(things.call("POST", "/things")[0])

    threads = [threading.Thread(target=call, args=(names,)) for names in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [201, 201]
    assert values(db) in ({"a": "ab", "b": "ab"}, {"a": "ba", "b": "ba"})


def test_a_connection_lost_before_the_commit_is_no_harm(db: Database) -> None:
    tries = []

    def create(request: Request) -> dict[str, Any]:
        with db.transaction() as tx:
            tries.append(1)
            change(tx, "a", str(len(tries)))
            if len(tries) == 1:
                cut(db, tx)
            change(tx, "b", str(len(tries)))
        return {}

    assert app(db, create).call("POST", "/things")[0] == 201
    assert values(db) == {"a": "2", "b": "2"}


def test_a_connection_lost_in_the_commit_is_not_repeated(db: Database) -> None:
    class Cut(Database):
        def before_commit(self, tx: Transaction) -> None:
            cut(self, tx)

    tries = []

    def create(request: Request) -> dict[str, Any]:
        with Cut(db.engine.url.render_as_string(), LocalBus()).transaction() as tx:
            tries.append(1)
            change(tx, "a", "1")
        return {}

    status, body, _ = app(db, create).call("POST", "/things")
    assert (status, len(tries)) == (503, 1)
    assert body == {"error": "the database does not answer, try again later"}


def test_a_read_is_a_snapshot_and_cannot_write(db: Database) -> None:
    with db.read() as tx:
        before = tx.value(sa.select(facts.c.value).where(facts.c.name == "a"))
        with db.transaction() as other:
            change(other, "a", "9")
        assert tx.value(sa.select(facts.c.value).where(facts.c.name == "a")) == before
    with pytest.raises((Retry, Unavailable)), db.read() as tx:
        tx.write(sa.update(facts).values(value="x"))
    assert values(db)["a"] == "9"


def test_text_is_compared_byte_by_byte(db: Database) -> None:
    with db.transaction() as tx:
        tx.write(facts.insert(), [{"name": name, "value": "🦊"} for name in ("A", "a ", "á")])
    with db.read() as tx:
        for name in ("A", "a", "a ", "á"):
            assert [row.name for row in tx.all(sa.select(facts).where(facts.c.name == name))] == [name]
    assert values(db)["á"] == "🦊"
