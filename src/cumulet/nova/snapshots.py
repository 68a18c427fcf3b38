"""The images that hosts make of servers: what happens to one whose verb comes to nothing.

The image is a row of glance's from the moment that the user asks for it, so that they have its id; its data comes
later.  If it never will, the row goes in the transaction that says so.
"""

from collections.abc import Iterable
from typing import Any

from sqlalchemy.engine import Row

from cumulet.core.db import Transaction
from cumulet.glance import public as glance

ACTION = "createImage"


def abandon(tx: Transaction, actions: Iterable[Row[Any]]) -> None:
    """These rows of server_actions will not be carried out (any more)."""
    for action in actions:
        if action.action == ACTION:
            glance.delete_snapshot(tx, action.params["image_id"])
