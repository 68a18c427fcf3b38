"""What is remembered is forgotten with the commit that makes it untrue, whoever commits."""

from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from cumulet.core.bus import LocalBus
from cumulet.core.db import Database
from cumulet.core.stamps import Memory, mark
from cumulet.core.tables import stamps
from cumulet.keystone import tables as keystone_tables

_metadata = sa.MetaData()
things = sa.Table("things", _metadata, sa.Column("name", sa.String(9), primary_key=True))
others = sa.Table("others", _metadata, sa.Column("name", sa.String(9), primary_key=True))
mark(things, "things")
COUNT = sa.select(sa.func.count()).select_from(things)


@pytest.fixture
def processes(tmp_path: Path) -> tuple[Database, Database]:
    """Two, with a database of their own to the same file."""
    one, other = (Database(f"sqlite:///{tmp_path}/test.sqlite", LocalBus()) for _ in range(2))
    _metadata.create_all(one.engine)
    stamps.create(one.engine)
    return one, other


class Counter:
    """Remembers how many things there are."""

    def __init__(self, db: Database) -> None:
        self.db, self.memory, self.looks = db, Memory[int]("things", most=3), 0

    def __call__(self, key: str = "all") -> int | None:
        with self.db.read() as tx:

            def look() -> int:
                self.looks += 1
                return int(tx.value(COUNT))

            return self.memory.recall(tx, key, look)


def add(db: Database, name: str, table: sa.Table = things) -> None:
    with db.transaction() as tx:
        tx.write(table.insert(), {"name": name})


def test_another_process_sees_a_change_at_once(processes: tuple[Database, Database]) -> None:
    here, there = processes
    count = Counter(here)
    for number, writer in enumerate((there, here, there), 1):
        add(writer, f"t{number}")
        assert [count(), count()] == [number, number]
        assert count.looks == number


@pytest.mark.parametrize(
    "change",
    [
        lambda tx: tx.write(sa.update(things).where(things.c.name == "x").values(name="y")),
        lambda tx: tx.write(sa.delete(things).where(things.c.name == "x")),
        lambda tx: tx.write(things.insert(), [{"name": "y"}, {"name": "z"}]),
    ],
)
def test_every_kind_of_change_counts(processes: tuple[Database, Database], change: Callable[..., object]) -> None:
    here, there = processes
    add(here, "x")
    count = Counter(here)
    count()
    with there.transaction() as tx:
        change(tx)
    count()
    assert count.looks == 2


def test_what_changes_nothing_or_something_else_is_no_reason_to_look(processes: tuple[Database, Database]) -> None:
    here, there = processes
    add(here, "x")
    count = Counter(here)
    count()
    add(there, "o", others)
    with there.transaction() as tx:
        tx.write(sa.delete(things).where(things.c.name == "nobody"))
    with pytest.raises(ZeroDivisionError), there.transaction() as tx:
        tx.write(things.insert(), {"name": "undone"})
        raise ZeroDivisionError
    assert (count(), count.looks) == (1, 1)


def test_a_change_in_the_midst_of_a_look_is_seen_by_the_next(processes: tuple[Database, Database]) -> None:
    here, there = processes
    add(here, "x")
    memory = Memory[int]("things")

    def look_slowly() -> int:
        found = int(tx.value(COUNT))
        add(there, "y")
        return found

    with here.read() as tx:
        assert memory.recall(tx, "all", look_slowly) == 1
    with here.read() as tx:
        assert memory.recall(tx, "all", lambda: int(tx.value(COUNT))) == 2


def test_memory_is_bounded_and_nothing_is_kept_before_the_first_stamp(
    processes: tuple[Database, Database],
) -> None:
    here, _ = processes
    count = Counter(here)
    assert [count(), count(), count.looks] == [0, 0, 2]
    add(here, "x")
    for key in "abcd":
        count(key)
    assert (count("d"), count.looks) == (1, 6)
    assert (count("a"), count.looks) == (1, 7)


def test_all_of_keystones_tables_are_the_ground_of_tokens() -> None:
    tables = [one for one in vars(keystone_tables).values() if isinstance(one, sa.Table)]
    assert len(tables) > 20
    assert {one.info.get("stamp") for one in tables} == {keystone_tables.STAMP}
