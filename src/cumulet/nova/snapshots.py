"""The images that hosts make of servers: what becomes of one whose verb is done, or comes to nothing.

The image is a row of glance's from the moment that the user asks for it, so that they have its id; its data comes
later.  If it never will, the row goes in the transaction that says so.  A backup that is done makes the oldest of
its kind go, in the same way.
"""

from collections.abc import Iterable
from typing import Any

from sqlalchemy.engine import Row

from cumulet.core.db import Transaction
from cumulet.glance import public as glance

SNAPSHOT, BACKUP = "createImage", "createBackup"
ACTIONS = frozenset({SNAPSHOT, BACKUP})
"""For the server's host both are the same verb, ``createImage``."""


def abandon(tx: Transaction, actions: Iterable[Row[Any]]) -> None:
    """These rows of server_actions will not be carried out (any more)."""
    for action in actions:
        if action.action in ACTIONS:
            glance.delete_snapshot(tx, action.params["image_id"])


def rotate(tx: Transaction, actions: Iterable[Row[Any]]) -> None:
    """These rows of server_actions have been carried out."""
    for action in actions:
        if action.action == BACKUP:
            kind, keep = action.params["backup_type"], action.params["rotation"]
            glance.rotate_backups(tx, action.params["owner"], action.server_id, kind, keep)
