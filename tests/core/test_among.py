"""``among``: any number of values as one parameter, in one text."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from cumulet.core.among import among
from cumulet.core.bus import LocalBus
from cumulet.core.db import Database
from cumulet.core.tables import facts, metadata
from tests import databases

NAMES = ["plain", "Plain", "with space ", "with space", 'quo"te', "back\\slash", "übergroß", "null"]
CHOSEN = sa.select(facts.c.name).where(among(facts.c.name, "names"), facts.c.value == "1").order_by(facts.c.name)


@pytest.fixture
def db() -> Iterator[Database]:
    found = Database(databases.url(), LocalBus())
    metadata.create_all(found.engine)
    with found.transaction() as tx:
        tx.write(facts.insert(), [{"name": name, "value": "1"} for name in NAMES])
    yield found
    found.engine.dispose()


def test_each_value_finds_itself_only(db: Database) -> None:
    with db.read() as tx:
        for name in NAMES:
            assert [row.name for row in tx.all(CHOSEN, {"names": [name]})] == [name]


def test_none_and_many_are_one_statement(db: Database) -> None:
    written = list[str]()
    sa.event.listen(db.engine, "before_cursor_execute", lambda *given: written.append(given[2]))
    many = [f"nobody{number}" for number in range(40_000)]
    with db.read() as tx:
        for wanted in ([], NAMES, [*NAMES, *NAMES, *many]):
            found = [row.name for row in tx.all(CHOSEN, {"names": wanted})]
            assert sorted(found) == (sorted(NAMES) if wanted else [])
    assert len(written) == 3
    assert len(set(written)) == 1
