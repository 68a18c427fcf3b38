"""What a pure function made, kept with what it was made from.

It is used again only if everything that it would be made from now is equal to that, so it cannot be out of date,
whoever wrote what: nothing tells that something has changed, nothing has to be forgotten.  Comparing values is far
cheaper than making a document of them; SQLAlchemy's rows compare four times as slowly as the tuples in them.
"""

import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Generic, TypeVar

T = TypeVar("T")
MOST = 2000


class Made(Generic[T]):
    """Results of ``make``, of which only the latest ``most`` are kept: one for each thing, called by its key."""

    def __init__(self, make: Callable[..., T], most: int = MOST) -> None:
        self._make, self._most = make, most
        self._held: dict[Hashable, tuple[tuple[Any, ...], T]] = {}
        self._lock = threading.Lock()

    def of(self, key: Hashable, row: Sequence[Any], *given: Any) -> T:
        """What ``make`` makes of a row and of others: values that nobody changes, plain ones best."""
        held, values = self._held.get(key), (row[:], *given)
        if held is not None and held[0] == values:
            return held[1]
        made = self._make(row, *given)
        with self._lock:
            if len(self._held) >= self._most and key not in self._held:
                del self._held[next(iter(self._held))]
            self._held[key] = (values, made)
        return made
