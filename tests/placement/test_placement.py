"""Claims, releases and inventories: who has room, and who took it."""

import pytest
import sqlalchemy as sa

from cumulet.core.bus import LocalBus
from cumulet.core.db import Database, Transaction
from cumulet.core.errors import Retry
from cumulet.placement import public as placement
from cumulet.placement.model import DISK_GB, MEMORY_MB, VCPU, Capacity, Claim, Inventory, Resources
from cumulet.placement.tables import allocations
from tests import databases

STOCK = {VCPU: Inventory(4, ratio=16.0), MEMORY_MB: Inventory(8192, reserved=1024), DISK_GB: Inventory(100)}
NEED = Resources(2, 1024, 10)


@pytest.fixture
def db() -> Database:
    database = Database(databases.url(), LocalBus())
    databases.make_tables(database.engine)
    with database.transaction() as tx:
        placement.set_inventory(tx, "h1", STOCK)
    return database


def look(tx: Transaction, host: str = "h1") -> Capacity:
    capacity = placement.find_capacity(tx, host)
    assert capacity is not None
    return capacity


def test_capacity_is_what_may_be_given_out(db: Database) -> None:
    with db.transaction() as tx:
        placement.set_inventory(tx, "h2", STOCK)
        assert [capacity.host for capacity in placement.list_capacity(tx)] == ["h1", "h2"]
        assert look(tx).free == Resources(64, 7168, 100)
        assert look(tx).total == Resources(4, 8192, 100)


def test_a_claim_is_taken_and_given_back(db: Database) -> None:
    with db.transaction() as tx:
        placement.claim(tx, "s1", look(tx), NEED)
        assert look(tx).free == Resources(62, 6144, 90)
        assert look(tx).used == NEED
        assert placement.list_allocations(tx, ["s1", "s2"]) == {"s1": NEED}
        placement.release(tx, "s1")
        placement.release(tx, "s1")
        assert look(tx).free == Resources(64, 7168, 100)
        assert tx.all(sa.select(allocations)) == []


def test_who_chose_from_an_older_view_looks_again(db: Database) -> None:
    with db.transaction() as tx:
        before = look(tx)
        placement.claim(tx, "s1", before, NEED)
    with pytest.raises(Retry, match="h1 has changed"), db.transaction() as tx:
        placement.claim(tx, "s2", before, NEED)
    with db.transaction() as tx:
        assert look(tx).used == NEED


def test_a_batch_claims_all_or_nothing(db: Database) -> None:
    with db.transaction() as tx:
        placement.set_inventory(tx, "h2", STOCK)
        one, two = placement.list_capacity(tx)
        claims = [Claim(f"s{number}", (one, two)[number % 2], NEED) for number in range(10)]
        placement.claim_all(tx, claims)
        assert look(tx, "h1").used == look(tx, "h2").used == Resources(10, 5120, 50)
    with pytest.raises(Retry), db.transaction() as tx:
        placement.claim_all(tx, [Claim("s10", look(tx, "h1"), NEED), Claim("s11", two, NEED)])
    with db.transaction() as tx:
        assert look(tx, "h1").used == Resources(10, 5120, 50)
        placement.claim_all(tx, [])


def test_release_from_one_host_of_two(db: Database) -> None:
    with db.transaction() as tx:
        placement.set_inventory(tx, "h2", STOCK)
        for capacity in placement.list_capacity(tx):
            placement.claim(tx, "s1", capacity, NEED)
        assert placement.list_allocations(tx, ["s1"]) == {"s1": Resources(4, 2048, 20)}
        placement.release(tx, "s1", "h1")
        assert look(tx, "h1").used == Resources()
        assert look(tx, "h2").used == NEED


def test_a_host_that_has_shrunk_below_its_use_says_so_and_keeps_what_it_has(db: Database) -> None:
    with db.transaction() as tx:
        placement.claim(tx, "s1", look(tx), NEED)
        assert placement.set_inventory(tx, "h1", {**STOCK, MEMORY_MB: Inventory(1024)})
        assert look(tx).free.memory_mb == 0
        assert placement.set_inventory(tx, "h1", {VCPU: STOCK[VCPU], MEMORY_MB: Inventory(512)})
        assert look(tx).free == Resources(62, -512, -10)
        placement.release(tx, "s1")
        assert look(tx).free == Resources(64, 512, 0)


def test_only_news_is_written_and_news_ends_older_views(db: Database) -> None:
    with db.transaction() as tx:
        before = look(tx)
        assert not placement.set_inventory(tx, "h1", STOCK)
        assert look(tx).generation == before.generation
        assert placement.set_inventory(tx, "h1", {**STOCK, VCPU: Inventory(8, ratio=2.0)})
    with pytest.raises(Retry), db.transaction() as tx:
        placement.claim(tx, "s1", before, NEED)


def test_two_who_release_at_once_do_not_give_back_twice(db: Database) -> None:
    with db.transaction() as tx:
        placement.claim(tx, "s1", look(tx), NEED)
        placement.claim(tx, "s2", look(tx), NEED)

    class Raced(Transaction):
        """Somebody else has deleted a row between the read and the delete."""

        def write(self, statement: sa.Executable, values: object = None) -> int:
            if isinstance(statement, sa.Delete):
                super().write(sa.delete(allocations).where(allocations.c.resource_class == VCPU))
            return super().write(statement, values)  # type: ignore[arg-type]

    with db.engine.begin() as connection, pytest.raises(Retry, match="by someone else"):
        placement.release(Raced(connection), "s1")
