"""What was worked out from some tables before, and whether it is still true.

A table belongs to a stamp (``mark``).  Each commit that changes one of the stamp's tables gives the stamp another
random text (``core.db``), so who finds the text unchanged has lost nothing since.  Each process remembers for
itself; one small read tells it that it has to look again.
"""

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import sqlalchemy as sa

from cumulet.core.db import Transaction

T = TypeVar("T")
MOST = 1000


def mark(table: sa.Table, stamp: str) -> None:
    """A change of ``table`` changes ``stamp``, which is one plain word."""
    assert stamp.isidentifier()
    table.info["stamp"] = stamp


class Memory(Generic[T]):
    """Things worked out from the tables of ``stamp`` and from nothing else; ``most`` of them, the latest.

    What is None is not remembered.  For transactions that only read: a writer's own changes have no stamp yet.
    """

    def __init__(self, stamp: str, most: int = MOST) -> None:
        self._stamp, self._most = stamp, most
        self._held: tuple[str, dict[Hashable, T]] = ("", {})
        self._lock = threading.Lock()

    def recall(self, tx: Transaction, key: Hashable, find: Callable[[], T | None]) -> T | None:
        """What ``find`` finds, or found under the same stamp.

        The stamp is read first: what changes after it counts for the next one who asks.
        """
        stamp = tx.stamp(self._stamp)
        of_stamp, things = self._held
        if stamp and stamp == of_stamp and key in things:
            return things.get(key)
        found = find()
        if stamp and found is not None:
            self._keep(stamp, key, found)
        return found

    def _keep(self, stamp: str, key: Hashable, found: T) -> None:
        with self._lock:
            if self._held[0] != stamp:
                self._held = (stamp, {})
            things = self._held[1]
            if len(things) >= self._most:
                del things[next(iter(things))]
            things[key] = found
