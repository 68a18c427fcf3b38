"""DHCP servers and routers made of dictionaries: the simulated sides of the DHCP and the L3 agent.

They keep the promises of ``neutron.dhcp.agent.DhcpHost`` and ``neutron.l3.agent.RouterHost`` and no more: what is
to be there comes from the same pure plans that the real host follows, in the same order of lasting changes.
``effect`` surrounds every one of them, so that a test can count them all and die just before or just after any one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from cumulet.neutron.dhcp import plan as dhcp_planning
from cumulet.neutron.l3 import plan as l3_planning
from cumulet.neutron.l3.agent import Placed
from cumulet.neutron.l3.plan import Flow, Hop
from cumulet.neutron.model import DhcpIntent, RouterIntent

PAUSES = (1.0, 4.0)


class Plugs(Protocol):
    """The switch, as far as devices come and go; both may be repeated."""

    def add_device(self, port_id: str) -> None: ...

    def remove_device(self, port_id: str) -> None: ...


@dataclass
class Device:
    """A device of a namespace."""

    mac: str
    mtu: int
    addresses: frozenset[str]
    up: bool = True


@dataclass
class Server:
    """What this host has of one network: its namespace, and in it perhaps a DHCP server."""

    devices: dict[str, Device] = field(default_factory=dict)  # by port id
    files: dict[str, str] = field(default_factory=dict)
    running: tuple[str, ...] = ()  # the arguments of dnsmasq
    read: dict[str, str] = field(default_factory=dict)  # the files as dnsmasq read them


@dataclass
class Router:
    """What this host has of one router."""

    table: str = ""
    sysctls: dict[str, str] = field(default_factory=dict)
    devices: dict[str, Device] = field(default_factory=dict)  # by port id
    routes: frozenset[Hop] = frozenset()
    advertising: tuple[str, ...] = ()  # the arguments of dnsmasq
    flows: set[Flow] = field(default_factory=set)
    told: int = 0  # how often the news of this table was told
    announced: list[str] = field(default_factory=list)


class _SimHost:
    """``fail_next``: the next calls of a method raise these, before they have changed anything."""

    def __init__(self, switch: Plugs | None = None) -> None:
        self._switch = switch
        self._failures: dict[str, list[Exception]] = {}

    @contextmanager
    def effect(self, name: str) -> Iterator[None]:
        """A seam: around every lasting change."""
        yield

    def fail_next(self, method: str, *errors: Exception) -> None:
        self._failures.setdefault(method, []).extend(errors)

    def _begin(self, method: str) -> None:
        errors = self._failures.get(method)
        if errors:
            raise errors.pop(0)

    def _plug(self, devices: dict[str, Device], port_id: str, wanted: Device) -> None:
        if devices.get(port_id) != wanted:
            with self.effect(f"device {port_id}"):
                devices[port_id] = wanted
        if self._switch:
            self._switch.add_device(port_id)

    def _unplug(self, devices: dict[str, Device], port_id: str) -> None:
        """Off the switch first: a device that is gone cannot be found again."""
        if self._switch:
            self._switch.remove_device(port_id)
        with self.effect(f"no device {port_id}"):
            del devices[port_id]


class SimDhcp(_SimHost):
    """``networks``: what there is, by network id."""

    def __init__(self, switch: Plugs | None = None, dns_servers: tuple[str, ...] = ()) -> None:
        super().__init__(switch)
        self.networks: dict[str, Server] = {}
        self._dns_servers = dns_servers

    def look(self) -> frozenset[str]:
        self._begin("look")
        return frozenset(self.networks)

    def ensure(self, intent: DhcpIntent) -> tuple[str, ...]:
        self._begin("ensure")
        wanted = dhcp_planning.plan(intent, f"/sim/{intent.network_id}", self._dns_servers)
        if intent.network_id not in self.networks:
            with self.effect(f"namespace {intent.network_id}"):
                self.networks[intent.network_id] = Server()
        server = self.networks[intent.network_id]
        device = Device(intent.mac, intent.mtu, frozenset(dhcp_planning.addresses(intent)))
        self._plug(server.devices, intent.port_id, device)
        for port_id in sorted(set(server.devices) - {intent.port_id}):
            self._unplug(server.devices, port_id)
        if server.files != wanted.files:
            with self.effect(f"files {intent.network_id}"):
                server.files = dict(wanted.files)
        if server.running != wanted.arguments or server.read != server.files:
            with self.effect(f"dnsmasq {intent.network_id}"):
                server.running, server.read = wanted.arguments, dict(server.files)
        return wanted.refused

    def remove(self, network_id: str) -> None:
        self._begin("remove")
        server = self.networks.get(network_id)
        if server is None:
            return
        if server.running:
            with self.effect(f"no dnsmasq {network_id}"):
                server.running = ()
        for port_id in sorted(server.devices):
            self._unplug(server.devices, port_id)
        with self.effect(f"no namespace {network_id}"):
            del self.networks[network_id]

    # ── what the world does to it ────────────────────────────────────────────────────────────────────────────

    def holdings(self) -> list[object]:
        """Empty when nothing of any network is left."""
        return list(self.networks.values())

    def kill(self, network_id: str) -> None:
        """dnsmasq dies."""
        self.networks[network_id].running = ()

    def cut_power(self) -> None:
        """The host goes dark and boots again: namespaces do not outlive that."""
        self.networks.clear()


class SimRouters(_SimHost):
    """``routers``: what there is, by router id."""

    def __init__(self, switch: Plugs | None = None) -> None:
        super().__init__(switch)
        self.routers: dict[str, Router] = {}

    def look(self) -> frozenset[str]:
        self._begin("look")
        return frozenset(self.routers)

    def ensure(self, intent: RouterIntent) -> Placed:
        self._begin("ensure")
        wanted = l3_planning.plan(intent)
        if intent.id not in self.routers:
            with self.effect(f"namespace {intent.id}"):
                self.routers[intent.id] = Router()
        router = self.routers[intent.id]
        if router.sysctls != dict(wanted.sysctls):
            with self.effect(f"sysctls {intent.id}"):
                router.sysctls = dict(wanted.sysctls)
        if router.table != wanted.table:
            with self.effect(f"rules {intent.id}"):
                router.table, router.told = wanted.table, 0
        for port_id in sorted(set(router.devices) - {one.port_id for one in wanted.interfaces}):
            self._unplug(router.devices, port_id)
        for one in wanted.interfaces:
            self._plug(router.devices, one.port_id, Device(one.mac, one.mtu, one.addresses, wanted.up))
        if router.routes != frozenset(wanted.routes):
            with self.effect(f"routes {intent.id}"):
                router.routes = frozenset(wanted.routes)
        if router.advertising != wanted.advertising:
            with self.effect(f"advertising {intent.id}"):
                router.advertising = wanted.advertising
        return Placed(wanted.floating, wanted.refused, self._tell(intent.id, router, wanted))

    def remove(self, router_id: str) -> None:
        self._begin("remove")
        router = self.routers.get(router_id)
        if router is None:
            return
        if router.advertising:
            with self.effect(f"no advertising {router_id}"):
                router.advertising = ()
        for port_id in sorted(router.devices):
            self._unplug(router.devices, port_id)
        with self.effect(f"no namespace {router_id}"):
            del self.routers[router_id]

    def _tell(self, router_id: str, router: Router, wanted: l3_planning.Plan) -> float:
        if router.told > len(PAUSES):
            return 0.0
        for flow in sorted(flow for flow in router.flows if wanted.stale(flow)):
            with self.effect(f"no connection of {flow.source}"):
                router.flows.remove(flow)
        told = router.told
        if wanted.up:
            with self.effect(f"announce {router_id}"):
                router.announced += [address for one in wanted.interfaces for address in one.announced]
        with self.effect(f"told {router_id}"):
            router.told += 1
        return PAUSES[told] if told < len(PAUSES) else 0.0

    # ── what the world does to it ────────────────────────────────────────────────────────────────────────────

    def kill(self, router_id: str) -> None:
        """The dnsmasq that advertises dies."""
        self.routers[router_id].advertising = ()

    def holdings(self) -> list[object]:
        """Empty when nothing of any router is left."""
        return list(self.routers.values())

    def cut_power(self) -> None:
        """The host goes dark and boots again: namespaces do not outlive that."""
        self.routers.clear()
