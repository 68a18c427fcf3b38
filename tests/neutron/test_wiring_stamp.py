"""The ETag of a host's wiring is remembered as long as nothing that the document is made of has changed."""

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.sql import visitors

from cumulet.core.tables import agents
from cumulet.neutron import wire_intent
from cumulet.neutron.tables import STAMP

STATEMENTS = [value for value in vars(wire_intent).values() if isinstance(value, sa.Select)]


@pytest.mark.parametrize("statement", STATEMENTS)
def test_all_that_it_is_made_of_has_the_stamp(statement: sa.Select[Any]) -> None:
    """``agents`` is of all hosts' signs of life: where their tunnels end is compared by itself."""
    read = {one for one in visitors.iterate(statement) if isinstance(one, sa.Table)}
    assert read
    assert {table.info.get("stamp") for table in read - {agents}} <= {STAMP}
    assert agents not in read or statement is wire_intent.TUNNELS


def test_there_are_such_statements() -> None:
    assert wire_intent.PORTS in STATEMENTS
    assert len(STATEMENTS) > 10
