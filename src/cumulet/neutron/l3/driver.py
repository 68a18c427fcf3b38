"""The real side of the L3 agent: the kernel routes, in one namespace per router.

One dnsmasq per router with IPv6 networks that want it sends its router advertisements.

Order matters.  The table of rules is replaced first, so that no frame passes unfiltered; then come interfaces,
addresses and routes; last, and again some seconds later, the news: connections that were translated the old way
are ended and the addresses are announced.  How far the news of this very table has been told is written in the
table itself, as empty chains, so that a crash in between repeats it and forgets nothing.
"""

import logging
import shutil

from cumulet.core.config import Config
from cumulet.core.errors import Retry
from cumulet.host import arp, dnsmasq, netns, openvswitch
from cumulet.host.conntrack import Conntrack
from cumulet.host.interface import ensure_interface, ensure_namespace
from cumulet.host.jsonrpc import OvsdbError
from cumulet.host.netlink import Netlink, NetlinkError, Route
from cumulet.host.nft import Nft, NftError
from cumulet.host.ovsdb import Ovsdb
from cumulet.host.ovsdb_rows import Switch
from cumulet.host.process import ProcessError
from cumulet.neutron.l3 import plan as planning
from cumulet.neutron.l3.agent import Placed
from cumulet.neutron.l3.plan import Flow, Plan
from cumulet.neutron.model import RouterIntent
from cumulet.neutron.spaces import Spaces

LOG = logging.getLogger(__name__)
PREFIX = "qrouter-"
FAMILY, TABLE, TOLD = "inet", "cumulet", "told_"
PAUSES = (1.0, 4.0)
"""Announcements are repeated after these seconds: the switch may not have wired the port at once."""
_FAILURES = (OSError, OvsdbError, NftError, ProcessError)


class KernelRouters:
    """What ``agent.RouterHost`` asks for, on this machine."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._spaces = _spaces(config)
        self._switch: Switch | None = None

    def look(self) -> frozenset[str]:
        """The routers of which this host has something; one look at the switch for the whole pass."""
        self._switch, found = self._spaces.look()
        return found

    def ensure(self, intent: RouterIntent) -> Placed:
        """Everything of this router as wanted, and nothing else of it."""
        wanted = planning.plan(intent)
        namespace = PREFIX + intent.id
        try:
            ensure_namespace(self._config.run, namespace)
            _ensure_rules(namespace, wanted)
            self._ensure_interfaces(intent.id, wanted)
            refused = _ensure_routes(namespace, wanted) if wanted.up else []
            refused += self._ensure_advertising(intent.id, wanted)
            again_seconds = _tell(namespace, wanted)
        except _FAILURES as error:
            raise Retry(str(error)) from error
        return Placed(wanted.floating, (*wanted.refused, *refused), again_seconds)

    def remove(self, router_id: str) -> None:
        self._spaces.remove(router_id)

    def _ensure_advertising(self, router_id: str, wanted: Plan) -> list[str]:
        """The dnsmasq that advertises, or none; what fails here is said and leaves the rest of the router alone."""
        directory = self._spaces.directory(router_id)
        try:
            if wanted.advertising:
                if dnsmasq.ensure(PREFIX + router_id, directory, wanted.advertising, {}):
                    LOG.info("router advertisements started in %s", PREFIX + router_id)
            elif directory.exists():
                dnsmasq.end(directory)
                shutil.rmtree(directory, ignore_errors=True)
        except ProcessError as error:
            return [f"router advertisements: {error}"]
        return []

    def _ensure_interfaces(self, router_id: str, wanted: Plan) -> None:
        assert self._switch is not None
        self._spaces.remove_devices(router_id, {one.inner for one in wanted.interfaces})
        for one in wanted.interfaces:
            ensure_interface(
                self._spaces.ovsdb, self._switch, PREFIX + router_id, one.outer, one.inner,
                one.port_id, one.mac, one.mtu, one.addresses, wanted.up,
            )  # fmt: skip


def remove_all(config: Config) -> None:
    """Take down every router that our agents set up on this machine; for ``cumulet down``."""
    _spaces(config).remove_all()


def _spaces(config: Config) -> Spaces:
    ovsdb = Ovsdb(openvswitch.database_socket(str(config.run / "openvswitch")))
    return Spaces(config.run, PREFIX, "ra", _outer_device, ovsdb)


def _outer_device(inner: str) -> str:
    return planning.outer_device(inner) if planning.is_inner_device(inner) else ""


def _ensure_rules(namespace: str, wanted: Plan) -> None:
    with netns.enter(namespace):
        for key, value in wanted.sysctls.items():
            netns.sysctl(key, value)
        with Nft() as nft:
            if nft.ensure_table(FAMILY, TABLE, wanted.table):
                LOG.info("rules of %s replaced", namespace)


def _ensure_routes(namespace: str, wanted: Plan) -> list[str]:
    """Exactly the wanted routes besides the kernel's own; what the kernel refused, and why."""
    refused = []
    routes = [
        Route(hop.destination, hop.device, hop.via, 1024 if ":" in hop.destination else 0) for hop in wanted.routes
    ]
    with netns.enter(namespace), Netlink() as link:
        have = link.routes()
        for route in have - set(routes):
            link.delete_route(route)
        for route in routes:
            if route not in have:
                try:
                    link.ensure_route(route)
                except NetlinkError as error:
                    refused.append(str(error))
    return refused


def _tell(namespace: str, wanted: Plan) -> float:
    """Tell the news of this table that has not been told yet; the seconds to the next time, 0: all is told."""
    with netns.enter(namespace), Nft() as nft:
        chains = nft.list_json(f"list chains {FAMILY}")
        names = {entry["chain"]["name"] for entry in chains if "chain" in entry}
        told = sum(f"{TOLD}{number}" in names for number in range(len(PAUSES) + 1))
        if told > len(PAUSES):
            return 0.0
        _end_stale_connections(wanted)
        if wanted.up:
            arp.announce_all(
                [arp.News(one.inner, address, one.mac) for one in wanted.interfaces for address in one.announced],
                router=True,
            )
        nft.run(f"add chain {FAMILY} {TABLE} {TOLD}{told}")
    return PAUSES[told] if told < len(PAUSES) else 0.0


def _end_stale_connections(wanted: Plan) -> None:
    with Conntrack() as conntrack:
        for one in conntrack.connections():
            flow = Flow(one.source, one.destination, one.reply_source, one.reply_destination)
            if wanted.stale(flow) and conntrack.end(one):
                LOG.info("ended a connection of %s that was translated the old way", one.source)
