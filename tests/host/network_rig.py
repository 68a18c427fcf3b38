"""The hosts of the network contract: DHCP servers and routers, simulated and real, seen in the same terms."""

import contextlib
import os
import signal
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cumulet.host import netns, process
from cumulet.host.netlink import Netlink
from cumulet.host.nft import Nft
from cumulet.neutron.dhcp.agent import DhcpHost
from cumulet.neutron.dhcp.driver import DnsmasqHost
from cumulet.neutron.l2.firewall import link_local
from cumulet.neutron.l3.agent import RouterHost
from cumulet.neutron.l3.driver import FAMILY, TABLE, KernelRouters
from cumulet.neutron.l3.plan import Hop
from cumulet.neutron.model import device_name
from cumulet.sim.network import SimDhcp, SimRouters
from tests.host.private_node import PrivateNode


@dataclass(frozen=True)
class Seen:
    """A device of a namespace.  Its own link-local address is the kernel's affair."""

    mac: str
    mtu: int
    addresses: frozenset[str]
    up: bool


Devices = dict[str, Seen]  # by the name of the port's device on the switch


class Rig(Protocol):
    def restart_agent(self) -> None:
        """All that the agent remembered is lost."""

    def devices(self, key: str) -> Devices:
        """The devices of a network's or router's namespace; empty if there is none."""

    def on_switch(self) -> set[str]:
        """The devices that are ports of the switch, strangers' included."""

    def mark(self) -> object:
        """Another one after every lasting change."""

    def make_stranger(self) -> str:
        """A namespace and a port like ours, that somebody else made; the port's device."""

    def is_whole(self, stranger: str) -> bool: ...

    def close(self) -> None: ...


class DhcpRig(Rig, Protocol):
    @property
    def host(self) -> DhcpHost: ...

    def files(self, network_id: str) -> dict[str, str]:
        """What the network's dnsmasq was given to read."""

    def argument(self, network_id: str, start: str) -> list[str]:
        """The arguments of the dnsmasq that runs, those that begin so; none if none runs."""

    def kill(self, network_id: str) -> None:
        """dnsmasq dies by itself."""


class RouterRig(Rig, Protocol):
    @property
    def host(self) -> RouterHost: ...

    def routes(self, router_id: str) -> set[Hop]: ...

    def rules(self, router_id: str) -> bool:
        """Whether there is a table of rules."""

    def advertises(self, router_id: str, start: str) -> list[str]:
        """The arguments of the dnsmasq that advertises, those that begin so; none if none runs."""

    def kill(self, router_id: str) -> None:
        """The dnsmasq that advertises dies by itself."""


# ── made of dictionaries ─────────────────────────────────────────────────────────────────────────────────────


class _Ports:
    def __init__(self) -> None:
        self.devices: set[str] = set()

    def add_device(self, port_id: str) -> None:
        self.devices.add(device_name(port_id))

    def remove_device(self, port_id: str) -> None:
        self.devices.discard(device_name(port_id))


class _SimRig:
    def __init__(self) -> None:
        self.switch, self.count = _Ports(), 0

    @contextmanager
    def effect(self, name: str) -> Iterator[None]:
        yield
        self.count += 1

    def restart_agent(self) -> None:
        """It remembers nothing."""

    def on_switch(self) -> set[str]:
        return set(self.switch.devices)

    def mark(self) -> object:
        return self.count, self.on_switch()

    def make_stranger(self) -> str:
        self.switch.add_device("stranger-00")
        return device_name("stranger-00")

    def is_whole(self, stranger: str) -> bool:
        return stranger in self.switch.devices

    def close(self) -> None:
        pass


class SimDhcpRig(_SimRig):
    def __init__(self) -> None:
        super().__init__()
        self.host = SimDhcp(self.switch)
        self.host.effect = self.effect  # type: ignore[method-assign]

    def devices(self, key: str) -> Devices:
        server = self.host.networks.get(key)
        found = server.devices if server else {}
        return {device_name(port): Seen(d.mac, d.mtu, d.addresses, d.up) for port, d in found.items()}

    def files(self, network_id: str) -> dict[str, str]:
        return dict(self.host.networks[network_id].read)

    def argument(self, network_id: str, start: str) -> list[str]:
        return [word for word in self.host.networks[network_id].running if word.startswith(start)]

    def kill(self, network_id: str) -> None:
        self.host.kill(network_id)


class SimRouterRig(_SimRig):
    def __init__(self) -> None:
        super().__init__()
        self.host = SimRouters(self.switch)
        self.host.effect = self.effect  # type: ignore[method-assign]

    def devices(self, key: str) -> Devices:
        router = self.host.routers.get(key)
        found = router.devices if router else {}
        return {device_name(port): Seen(d.mac, d.mtu, d.addresses, d.up) for port, d in found.items()}

    def routes(self, router_id: str) -> set[Hop]:
        return set(self.host.routers[router_id].routes)

    def rules(self, router_id: str) -> bool:
        return bool(self.host.routers[router_id].table)

    def advertises(self, router_id: str, start: str) -> list[str]:
        router = self.host.routers.get(router_id)
        return [word for word in router.advertising if word.startswith(start)] if router else []

    def kill(self, router_id: str) -> None:
        self.host.kill(router_id)


# ── real ─────────────────────────────────────────────────────────────────────────────────────────────────────


def find(directory: Path) -> process.Process | None:
    """The dnsmasq of this directory."""
    return process.find(str(directory / "pid"), str(directory))


def words(directory: Path, start: str) -> list[str]:
    found = find(directory)
    cmdline = Path(f"/proc/{found.pid}/cmdline").read_text() if found else ""
    return [word for word in cmdline.split("\0") if word and word.startswith(start)]


def kill(directory: Path) -> None:
    found = find(directory)
    assert found
    os.kill(found.pid, signal.SIGKILL)
    assert process.wait_ended(found, 5)


class _KernelRig:
    prefix = ""

    def __init__(self, node: PrivateNode) -> None:
        self.node = node
        self._strangers: list[str] = []

    def devices(self, key: str) -> Devices:
        if not netns.exists(self.prefix + key):
            return {}
        found: Devices = {}
        with netns.enter(self.prefix + key), Netlink() as link:
            for name, one in link.links().items():
                if name != "lo":
                    own = f"{link_local(one.mac).network_address}/64"
                    addresses = frozenset(link.addresses(name) - {own})
                    found[f"tap{name[3:]}"] = Seen(one.mac, one.mtu, addresses, one.up)
        return found

    def on_switch(self) -> set[str]:
        return self.node.ports()

    def make_stranger(self) -> str:
        tail = uuid.uuid4().hex[:8]
        space, device = f"{self.prefix}{tail}", f"tap{tail}"
        netns.create(space)
        self._strangers.append(space)
        with Netlink() as link:
            link.ensure_veth(device, f"qr-{tail}", space, 1450)
        with self.node.ovsdb.change() as change:
            change.ensure_port("br-int", device)
        return device

    def is_whole(self, stranger: str) -> bool:
        space = self.prefix + stranger.removeprefix("tap")
        if stranger not in self.node.ports() or not netns.exists(space):
            return False
        with netns.enter(space), Netlink() as link:
            return len(link.links()) == 2

    def _inodes(self) -> dict[str, int]:
        return {name: os.stat(f"{netns.DIRECTORY}/{name}").st_ino for name in netns.list_names(self.prefix)}

    def close(self) -> None:
        for space in self._strangers:
            netns.delete(space)
            with self.node.ovsdb.change() as change:
                change.delete_port("tap" + space.removeprefix(self.prefix))


class DnsmasqRig(_KernelRig):
    prefix = "qdhcp-"

    def __init__(self, node: PrivateNode) -> None:
        super().__init__(node)
        self.restart_agent()

    def restart_agent(self) -> None:
        self.host: DhcpHost = DnsmasqHost(self.node.config)

    def _directory(self, network_id: str) -> Path:
        return self.node.config.run / "dhcp" / network_id

    def _find(self, network_id: str) -> process.Process | None:
        return find(self._directory(network_id))

    def files(self, network_id: str) -> dict[str, str]:
        return {name: (self._directory(network_id) / name).read_text() for name in ("hosts", "names", "options")}

    def argument(self, network_id: str, start: str) -> list[str]:
        return words(self._directory(network_id), start)

    def kill(self, network_id: str) -> None:
        kill(self._directory(network_id))

    def mark(self) -> object:
        networks = self.host.look()
        times = {
            str(path): path.stat().st_mtime_ns
            for network in networks
            for path in self._directory(network).iterdir()
            if path.name != "leases"
        }
        there = {network: (self.devices(network), self._find(network)) for network in networks}
        return self.node.ovsdb.look(), self._inodes(), times, there

    def close(self) -> None:
        super().close()
        for network in self.host.look():
            self.host.remove(network)


class KernelRouterRig(_KernelRig):
    prefix = "qrouter-"

    def __init__(self, node: PrivateNode) -> None:
        super().__init__(node)
        self.restart_agent()

    def restart_agent(self) -> None:
        self.host: RouterHost = KernelRouters(self.node.config)

    def routes(self, router_id: str) -> set[Hop]:
        with netns.enter(self.prefix + router_id), Netlink() as link:
            return {Hop(route.destination, route.dev, route.via) for route in link.routes()}

    def rules(self, router_id: str) -> bool:
        return bool(self._table(router_id))

    def advertises(self, router_id: str, start: str) -> list[str]:
        return words(self.node.config.run / "ra" / router_id, start)

    def kill(self, router_id: str) -> None:
        kill(self.node.config.run / "ra" / router_id)

    def _table(self, router_id: str) -> str:
        with contextlib.suppress(netns.NetnsError), netns.enter(self.prefix + router_id), Nft() as nft:
            return str(nft.list_json(f"list table {FAMILY} {TABLE}"))
        return ""

    def mark(self) -> object:
        there = {
            router: (
                self.devices(router),
                self.routes(router),
                self._table(router),
                find(self.node.config.run / "ra" / router),
            )
            for router in self.host.look()
        }
        return self.node.ovsdb.look(), self._inodes(), there

    def close(self) -> None:
        super().close()
        for router in self.host.look():
            self.host.remove(router)
