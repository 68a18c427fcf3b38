"""The ETag of a host's wiring is remembered as long as nothing that the document is made of has changed."""

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.sql import visitors

from cumulet.core.tables import agents, metadata
from cumulet.neutron import wire_intent
from cumulet.neutron.tables import STAMP

STATEMENTS = [value for value in vars(wire_intent).values() if isinstance(value, sa.Select)]


def marked(table: sa.Table) -> bool:
    return table.info.get("stamp") == STAMP


@pytest.mark.parametrize("statement", STATEMENTS)
def test_all_that_it_is_made_of_has_the_stamp(statement: sa.Select[Any]) -> None:
    """``agents`` is of all hosts' signs of life: where their tunnels end is compared by itself."""
    read = {one for one in visitors.iterate(statement) if isinstance(one, sa.Table)}
    assert read
    assert {table.info.get("stamp") for table in read - {agents}} <= {STAMP}
    assert agents not in read or statement is wire_intent.TUNNELS


@pytest.mark.parametrize("name", sorted(name for name, table in metadata.tables.items() if marked(table)))
def test_what_goes_with_a_row_of_another_table_goes_with_the_stamp(name: str) -> None:
    taken_along = [key.column.table for key in metadata.tables[name].foreign_keys if key.ondelete]
    assert all(map(marked, taken_along))


def test_there_are_such_statements() -> None:
    assert wire_intent.PORTS in STATEMENTS
    assert len(STATEMENTS) > 10
