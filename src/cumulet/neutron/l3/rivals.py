"""neutron-l3-agent's loop ``rivals``: a router that another node has taken over gives way, also without being told.

A node that is only cut off from its controller goes on answering ARP with its routers' addresses; it should, for
when the controller is away, routers go on.  But when it is the only one that is cut off, another node gets its
routers and announces their addresses, and then the two take each other's traffic away.  So each node listens on its
routers' public devices for ARP with the router's own hardware address.  Who hears it asks the controller: if the
router is still its own, it announces the addresses once more; if nobody answers, it gives way.  Its last word is
an announcement, too: the other one hears that, and has the last one.

What may fail: the tombstone comes, or the router is still ours when the controller is back; both are the business
of the loop ``routers``, which takes it away or sets it up again.
"""

import logging
import socket
import threading
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

from cumulet.core.errors import Retry
from cumulet.core.reconcile import Reconciler
from cumulet.neutron.model import RouterIntent

LOG = logging.getLogger(__name__)
T = TypeVar("T")
PROBE_SECONDS = 2.0
"""A controller that takes no connection for so long does not answer: a cut network says nothing at all."""


class Voices(Protocol):
    """The routers' public devices on this host.  Each method may be repeated."""

    def listen(self) -> None:
        """Hear rivals of every router that is here."""

    def announce(self, router_id: str) -> None:
        """Tell the link once more that its addresses are here."""

    def silence(self, router_id: str) -> None:
        """Say a last word and route no more, until the router is set up again."""


class Asked(Protocol):
    @property
    def addresses(self) -> Sequence[tuple[str, int]]: ...

    def get(self, path: str, kind: type[T]) -> T: ...


class Rivals:
    def __init__(self, controller: Asked, host: str, voices: Voices, resync_seconds: float = 30.0) -> None:
        self._controller, self._host, self._voices = controller, host, voices
        self._resync_seconds = resync_seconds
        self._heard: set[str] = set()
        self._lock = threading.Lock()

    def reconciler(self) -> Reconciler[str]:
        return Reconciler("rivals", self.read, self.reconcile, resync_seconds=self._resync_seconds)

    def hear(self, router_id: str) -> None:
        """Somebody else on the link has the router's hardware address; safe from any thread."""
        with self._lock:
            self._heard.add(router_id)

    def read(self) -> Mapping[str, str]:
        self._voices.listen()
        with self._lock:
            return {router_id: router_id for router_id in self._heard}

    def reconcile(self, router_id: str) -> None:
        with self._lock:
            self._heard.discard(router_id)
        wanted = self._ask()
        if wanted is None:
            LOG.warning("router %s is on another node and no controller answers here: it gives way", router_id)
            self._voices.silence(router_id)
        elif router_id in wanted and not wanted[router_id].absent:
            self._voices.announce(router_id)

    def _ask(self) -> dict[str, RouterIntent] | None:
        """What the controller wants of this host; None if none answers."""
        if not any(_takes_connections(address) for address in self._controller.addresses):
            return None
        try:
            return self._controller.get(f"/hosts/{self._host}/routers", dict[str, RouterIntent])
        except Retry:
            return None


def _takes_connections(address: tuple[str, int]) -> bool:
    try:
        with socket.create_connection(address, PROBE_SECONDS):
            return True
    except OSError:
        return False
