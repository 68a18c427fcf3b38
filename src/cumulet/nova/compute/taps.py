"""Taps: the servers' ends on the host's switch.

A port is a persistent tap device, owned by QEMU's user, and a port of the integration bridge whose external_ids say
whose it is; the L2 agent finds it there and wires it.  The tap is made before the port and the port goes before
the tap: a device that is made anew under a living port stays deaf on the userspace datapath.  For the same reason a
port that has lost its device (the machine was rebooted: the switch's database remembers, the kernel does not) is
taken away first, in a change of its own.

What may be left by a crash is a tap without a port; ``look`` takes those away.
"""

import contextlib
import pwd
import re
import threading
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from cumulet.core.errors import Retry
from cumulet.host.netlink import Link, Netlink, NetlinkError, create_tap
from cumulet.host.ovsdb import Bridge, Ovsdb, OvsdbError, PortRow
from cumulet.nova.model import Nic

BRIDGE = "br-int"
OWNER = "cumulet"
_TAP = re.compile(r"tap[0-9a-f]{8}-[0-9a-f]{2}")


@dataclass(frozen=True)
class TapView:
    """One look.  By server: port ids with a tap on the switch, and those whose device is gone."""

    plugged: Mapping[str, frozenset[str]] = field(default_factory=dict)
    broken: Mapping[str, frozenset[str]] = field(default_factory=dict)
    devices: frozenset[str] = frozenset()  # ours on the switch


class Taps:
    def __init__(self, switch: Ovsdb, qemu_user: str) -> None:
        self._switch, self._user = switch, qemu_user
        self._making = threading.Lock()

    def look(self) -> TapView:
        """Everything of ours on the bridge; nothing if there is no bridge yet."""
        with _retrying():
            bridge = self._switch.look().bridges.get(BRIDGE)
            links = _links()
        plugged: defaultdict[str, set[str]] = defaultdict(set)
        broken: defaultdict[str, set[str]] = defaultdict(set)
        devices = set()
        for port in _ours(bridge):
            server_id, port_id = port.external_ids.get("vm-id", ""), port.external_ids.get("iface-id", "")
            (plugged if port.name in links else broken)[server_id].add(port_id)
            devices.add(port.name)
        return TapView(
            {server_id: frozenset(ports) for server_id, ports in plugged.items()},
            {server_id: frozenset(ports) for server_id, ports in broken.items()},
            frozenset(devices),
        )

    def userspace(self) -> bool:
        """Whether the bridge forwards outside the kernel; ``Retry`` while there is no bridge."""
        with _retrying():
            return self._bridge().datapath_type == "netdev"

    def plug(self, server_id: str, nics: Collection[Nic]) -> None:
        """A tap on the bridge for each of these NICs."""
        with self._making, _retrying():
            bridge = self._bridge()
            stale = [nic.tap for nic in nics if nic.tap in bridge.ports and nic.tap not in _links()]
            if stale:
                with self._switch.change() as change:
                    for tap in stale:
                        change.delete_port(tap)
            for nic in nics:
                self._make_device(nic)
            with self._switch.change() as change:
                for nic in nics:
                    change.ensure_port(BRIDGE, nic.tap, external_ids=_external_ids(server_id, nic))

    def unplug(self, devices: Collection[str], keep: Collection[str] = ()) -> None:
        """Off the bridge with these; the devices too, except those in ``keep`` (a domain still has them)."""
        if not devices:
            return
        with self._making, _retrying():
            with self._switch.change() as change:
                for device in devices:
                    change.delete_port(device)
            with Netlink() as netlink:
                for device in set(devices) - set(keep):
                    netlink.delete_link(device)

    def devices_of(self, server_id: str, port_ids: Collection[str] | None = None) -> frozenset[str]:
        """The server's devices on the bridge, all or those of some ports."""
        with _retrying():
            bridge = self._switch.look().bridges.get(BRIDGE)
        return frozenset(
            port.name
            for port in _ours(bridge)
            if port.external_ids.get("vm-id") == server_id
            and (port_ids is None or port.external_ids.get("iface-id") in port_ids)
        )

    def sweep(self, in_use: Collection[str]) -> None:
        """Take away taps that a crash left: our kind of name, on no switch and no bridge, in no domain."""
        with _retrying():
            links = _links()
            if not any(_orphan(link) and link.name not in in_use for link in links.values()):
                return
            with self._making:  # nobody is between tap and port now
                switch, links = self._switch.look(), _links()
                with Netlink() as netlink:
                    for link in links.values():
                        if _orphan(link) and link.name not in in_use and switch.find_port(link.name) is None:
                            netlink.delete_link(link.name)

    def _bridge(self) -> Bridge:
        bridge = self._switch.look().bridges.get(BRIDGE)
        if bridge is None:
            raise Retry(f"there is no bridge {BRIDGE} yet: neutron-openvswitch-agent makes it")
        return bridge

    def _make_device(self, nic: Nic) -> None:
        create_tap(nic.tap, owner_uid=pwd.getpwnam(self._user).pw_uid)
        with Netlink() as netlink:
            link = netlink.find_link(nic.tap)
            if link is None or link.mtu != nic.mtu:
                netlink.set_mtu(nic.tap, nic.mtu)
            if link is None or not link.up:
                netlink.set_up(nic.tap)


def _external_ids(server_id: str, nic: Nic) -> dict[str, str]:
    return {
        "iface-id": nic.port_id,
        "attached-mac": nic.mac,
        "vm-id": server_id,
        "iface-status": "active",
        "owner": OWNER,
    }


def _ours(bridge: Bridge | None) -> Iterator[PortRow]:
    for port in bridge.ports.values() if bridge else ():
        if port.external_ids.get("owner") == OWNER and port.external_ids.get("vm-id"):
            yield port


def _links() -> dict[str, Link]:
    with Netlink() as netlink:
        return netlink.links()


def _orphan(link: Link) -> bool:
    return link.kind == "tun" and link.master is None and _TAP.fullmatch(link.name) is not None


@contextlib.contextmanager
def _retrying() -> Iterator[None]:
    """What the host refuses now it may grant later."""
    try:
        yield
    except OvsdbError as error:
        raise Retry(f"Open vSwitch: {error}") from error
    except NetlinkError as error:
        raise Retry(f"network device: {error}") from error
    except OSError as error:
        raise Retry(f"tap: {error}") from error
