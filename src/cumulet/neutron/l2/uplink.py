"""This node's way to the physical network "public": br-ex, a cable from it to the host, and the host as its router.

The host's end of the cable, `cumulet-ext`, has the first address of `network.public_cidr`, which is the gateway of
the public network.  The host forwards for it, and masquerades it where there is a default route; so servers reach
the world, and whoever is on this node reaches floating IPs.  Through the cable the host itself answers pings and
its own connections' replies, nothing else.

Where a device of this node carries the public network (`network.external_interface`), that is in br-ex in the
place of the cable, and its router is somebody else; an empty `network.public_cidr` turns the cable off, too.
"""

import contextlib
import ipaddress
import logging
from pathlib import Path

from cumulet.core.config import Config
from cumulet.host import netns, openvswitch
from cumulet.host.netlink import Netlink, checksum_off
from cumulet.host.nft import Nft
from cumulet.host.ovsdb import Ovsdb, OvsdbError
from cumulet.neutron.l2 import shield, underlay
from cumulet.neutron.l2.flows import PHY

LOG = logging.getLogger(__name__)
HOST_END, SWITCH_END = "cumulet-ext", "cumulet-wire"
OWNER = "cumulet"
FAMILY, TABLE = "inet", "cumulet"
_FORWARD = "net.ipv4.ip_forward"


class Uplink:
    """The cable and what the host does with it; every method may be repeated."""

    def __init__(self, config: Config) -> None:
        self._mtu = config.network.mtu
        self._before = config.run / "ip_forward"
        self.external = config.network.external_interface
        cidr = "" if self.external else config.network.public_cidr
        self._network = ipaddress.IPv4Network(cidr) if cidr else None

    @property
    def wanted(self) -> bool:
        return self._network is not None

    def missing(self, netlink: Netlink) -> bool:
        """Whether the cable must be made; a port of the switch that is left over from it must go before."""
        link = netlink.find_link(HOST_END)
        other = netlink.find_link(SWITCH_END)
        return link is None or other is None or (link.peer_index, other.peer_index) != (other.index, link.index)

    def make(self, netlink: Netlink) -> None:
        """A fresh cable, in the place of whatever had its names."""
        for name in (HOST_END, SWITCH_END):
            netlink.delete_link(name)
        netlink.ensure_veth(HOST_END, SWITCH_END, mtu=self._mtu)
        netlink.set_up(SWITCH_END)

    def ensure(self, netlink: Netlink, nft: Nft) -> None:
        """Address, state, forwarding and NAT."""
        if self._network is None:
            return
        for name in (HOST_END, SWITCH_END):
            with contextlib.suppress(netns.NetnsError):  # a kernel without IPv6
                netns.sysctl(f"net/ipv6/conf/{name}/disable_ipv6", 1)
            netlink.set_up(name)
        checksum_off(HOST_END)
        gateway = next(self._network.hosts())
        netlink.ensure_addresses(HOST_END, {f"{gateway}/{self._network.prefixlen}"})
        self._ensure_forwarding()
        routed = _has_default_route()
        if nft.ensure_table(FAMILY, TABLE, _rules(self._network, routed)):
            LOG.info("the public network %s is behind %s%s", self._network, HOST_END, ", with NAT" * routed)

    def _ensure_forwarding(self) -> None:
        """Remember what it was before the first change, for `remove_all`."""
        now = Path("/proc/sys", *_FORWARD.split(".")).read_text().strip()
        if now != "1":
            with contextlib.suppress(FileExistsError), self._before.open("x") as file:
                file.write(now)
            netns.sysctl(_FORWARD, 1)


def _has_default_route() -> bool:
    """Whether this namespace has an IPv4 default route, by the kernel's own short table."""
    rows = [line.split() for line in Path("/proc/thread-self/net/route").read_text().splitlines()[1:]]
    return any(row[1] == row[7] == "00000000" and row[0] != HOST_END for row in rows)


def _rules(network: ipaddress.IPv4Network, routed: bool) -> str:
    masquerade = f'ip saddr {network} oifname != "{HOST_END}" masquerade' if routed else ""
    return f"""chain postrouting {{
type nat hook postrouting priority 100; policy accept;
{masquerade}
}}
chain forward {{
type filter hook forward priority 0; policy accept;
iifname "{HOST_END}" ip saddr {network} accept
iifname "{HOST_END}" drop
oifname "{HOST_END}" accept
}}
chain input {{
type filter hook input priority 0; policy accept;
iifname "{HOST_END}" ct state established,related accept
iifname "{HOST_END}" icmp type echo-request accept
iifname "{HOST_END}" drop
}}"""


def remove_all(config: Config) -> None:
    """Take everything off this host that this agent made: for `cumulet down`, while Open vSwitch still runs."""
    with Netlink() as netlink, Nft() as nft:
        with (
            contextlib.suppress(OvsdbError),
            Ovsdb(openvswitch.database_socket(str(config.run / "openvswitch"))) as ovsdb,
        ):
            _remove_bridges(ovsdb, netlink)
        nft.delete_table(FAMILY, TABLE)
        nft.delete_table(shield.FAMILY, shield.TABLE)
        for name in (HOST_END, SWITCH_END):
            netlink.delete_link(name)
    before = config.run / "ip_forward"
    with contextlib.suppress(FileNotFoundError):
        netns.sysctl(_FORWARD, before.read_text().strip())
        before.unlink()


def _remove_bridges(ovsdb: Ovsdb, netlink: Netlink) -> None:
    switch = ovsdb.look()
    if PHY in switch.bridges:
        underlay.give_back(switch.bridges[PHY], netlink)
    with ovsdb.change(wait=bool(switch.vswitchd)) as change:
        for name, bridge in switch.bridges.items():
            if bridge.external_ids.get("owner") == OWNER:
                change.delete_bridge(name)
