"""neutron-metadata-agent: 169.254.169.254 and fe80::a9fe:a9fe in every namespace here that has guests behind it.

It keeps a listening socket in each network's and each router's namespace that the intent names and that is there;
nothing but these sockets is its state.  A namespace that was made anew has another inode: its old socket is
closed, a new one opened.  ``proxy`` answers the guests.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote

from msgspec import Struct

from cumulet.core.client import Controller
from cumulet.core.errors import Retry
from cumulet.core.reconcile import Reconciler
from cumulet.core.service import HostEnv, Service
from cumulet.neutron.metadata.proxy import Place, Proxy, Upstream
from cumulet.neutron.model import Owner

PREFIXES = {"network": "qdhcp-", "router": "qrouter-"}
LISTENERS = {"network": (("169.254.169.254", 80), ("::", 80)), "router": (("0.0.0.0", 9697), ("::", 9697))}
LOOK_SECONDS = 10.0
"""Namespaces may be made anew by others; nobody tells."""
SPACING_SECONDS = 0.1
"""Hints tell of each port that DHCP has to know, which changes nothing here: of many only some cost a look."""


class _Bound(Struct, frozen=True):
    """What matters here of the intent of a network or a router."""

    generation: int
    absent: bool
    metadata_isolated: bool = True


@dataclass(frozen=True)
class Wanted:
    place: Place
    generation: int


class Listeners(Protocol):
    """Sockets in namespaces."""

    def look(self) -> Mapping[Place, bool]:
        """The places where we listen; whether the namespace is still the one in which we do."""

    def listen(self, place: Place) -> bool:
        """Listen there, if we do not yet; False if there is no such namespace."""

    def close(self, place: Place) -> None: ...


class MetadataAgent:
    def __init__(self, controller: Controller, host: str, listeners: Listeners) -> None:
        self._controller, self._host, self._listeners = controller, host, listeners

    def reconciler(self) -> Reconciler[Wanted]:
        return Reconciler(
            "metadata",
            self.read,
            self.reconcile,
            before=self.before,
            topics=(f"neutron.dhcp.{self._host}", f"neutron.routers.{self._host}"),
            resync_seconds=LOOK_SECONDS,
            spacing=SPACING_SECONDS,
        )

    def read(self) -> Mapping[str, Wanted]:
        networks = self._controller.get(f"/hosts/{self._host}/dhcp", dict[str, _Bound])
        routers = self._controller.get(f"/hosts/{self._host}/routers", dict[str, _Bound])
        return {
            key: Wanted(Place(kind, key), bound.generation)
            for kind, found in (("network", networks), ("router", routers))
            for key, bound in found.items()
            if bound.metadata_isolated and not bound.absent
        }

    def before(self, wanted: Mapping[str, Wanted]) -> None:
        """Close what is not wanted any more, and what is in a namespace that is gone."""
        for place, there in self._listeners.look().items():
            if not there or place.id not in wanted:
                self._listeners.close(place)

    def reconcile(self, wanted: Wanted) -> None:
        if not self._listeners.listen(wanted.place):
            raise Retry(f"there is no namespace {namespace(wanted.place)} yet")

    def find_owner(self, place: Place, ip: str) -> Owner:
        """Whose address this is; of any thread."""
        path = f"/hosts/{self._host}/owner?{place.kind}={quote(place.id)}&ip={quote(ip)}"
        return self._controller.get(path, Owner)

    def details(self) -> dict[str, object]:
        return {"listeners": len(self._listeners.look())}


def namespace(place: Place) -> str:
    return PREFIXES[place.kind] + place.id


def build(env: HostEnv) -> Service:
    from cumulet.neutron.metadata.sockets import NamespaceSockets

    (host, port), *others = env.metadata.addresses
    upstream = Upstream(host, port, env.metadata_secret, tuple(others), env.metadata.trust)
    proxy = Proxy(lambda place, ip: agent.find_owner(place, ip), upstream)
    agent = MetadataAgent(env.neutron, env.host, NamespaceSockets(proxy))
    return Service(
        loops=[agent.reconciler()], start=lambda wake: proxy.start(), stop=proxy.stop, details=agent.details
    )
