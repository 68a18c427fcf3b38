"""What a pure function made, kept with what it was made from.

It is used again only if everything that it would be made from now is equal to that, so it cannot be out of date,
whoever wrote what: nothing tells that something has changed, nothing has to be forgotten.  Comparing rows is far
cheaper than making a document of them.
"""

import threading
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

T = TypeVar("T")
MOST = 2000


class Made(Generic[T]):
    """Results of ``make``, of which only the latest ``most`` are kept: one for each thing, called by its key."""

    def __init__(self, make: Callable[..., T], most: int = MOST) -> None:
        self._make, self._most = make, most
        self._held: dict[Hashable, tuple[tuple[Any, ...], T]] = {}
        self._lock = threading.Lock()

    def of(self, key: Hashable, *given: Any) -> T:
        """What ``make`` makes of ``given``: values that nobody changes, rows best."""
        held = self._held.get(key)
        if held is not None and held[0] == given:
            return held[1]
        made = self._make(*given)
        with self._lock:
            if len(self._held) >= self._most and key not in self._held:
                del self._held[next(iter(self._held))]
            self._held[key] = (given, made)
        return made
