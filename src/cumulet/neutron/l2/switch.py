"""The real switch: the cloud's own Open vSwitch of this host.

A look is one read of OVSDB.  A change is at most one transaction for bridges and ports, one for tags, and one
bundle of flows per bridge; the three are made in the order in which a crash between them leaves ports cut off and
not open.  In the userspace datapath the host is shielded from the devices of the switch, and tunnels leave through
br-phy; everything that a restart of ovs-vswitchd loses is put back by the next pass, which the watch asks for.
"""

import contextlib
import hashlib
import ipaddress
import logging
import os
from collections.abc import Callable, Iterator

from cumulet.core.config import Config
from cumulet.core.errors import Retry
from cumulet.host import netns, openvswitch
from cumulet.host.device import DeviceError
from cumulet.host.jsonrpc import Connection
from cumulet.host.netlink import Netlink, NetlinkError
from cumulet.host.nft import Nft, NftError
from cumulet.host.openflow import OpenFlow, OpenFlowError
from cumulet.host.ovsdb import Change, Ovsdb, OvsdbError, OvsdbLost, OvsdbTimeout, PortRow
from cumulet.host.ovsdb import Switch as Rows
from cumulet.host.ovsdb_watch import Watch
from cumulet.neutron.l2 import underlay
from cumulet.neutron.l2.flows import EX, INT, LEARN_SECONDS, PHY, TUN
from cumulet.neutron.l2.kept import Kept
from cumulet.neutron.l2.plan import UNWIRED, Base, Device, Look, Tag, Wiring
from cumulet.neutron.l2.shield import ensure_shield
from cumulet.neutron.l2.uplink import OWNER, SWITCH_END, Uplink
from cumulet.neutron.model import WireIntent

LOG = logging.getLogger(__name__)
MARKS = {"owner": OWNER}
PORT_ID, NETWORK_ID, CLOUD = "iface-id", "net-id", "cloud-id"  # of a device: by who plugs it; the others by us
INT_TO_TUN, TUN_TO_INT, INT_TO_EX, EX_TO_INT = "patch-tun", "patch-int", "int-br-ex", "phy-br-ex"
_PATCHES = ((INT, INT_TO_EX, EX, EX_TO_INT), (INT, INT_TO_TUN, TUN, TUN_TO_INT))
_ANSWER_SECONDS = 10.0


class OvsSwitch:
    """Keeps its promises by repetition; what it holds are connections."""

    def __init__(self, config: Config) -> None:
        self._run = str(config.run / "openvswitch")
        self._database = openvswitch.database_socket(self._run)
        self._ovsdb = Ovsdb(self._database, _ANSWER_SECONDS)
        self._openflow = OpenFlow(self._run)
        self._uplink = Uplink(config)
        self._kept = Kept(config.run / "openvswitch" / "wired.json")
        self._tunnel_address = config.network.tunnel_address
        self._looked: Rows | None = None  # the last look, for the change that follows it
        self._settled = ""  # the ovs-vswitchd that is known to have read its configuration
        asked = config.network.datapath
        self.datapath = openvswitch.datapath_type() if asked == "auto" else asked
        why = f"network.datapath is {asked}" if asked != "auto" else _WHY[self.datapath]
        LOG.info("the datapath is %s, because %s", self.datapath, why)

    # ── look ─────────────────────────────────────────────────────────────────────────────────────────────────

    def look(self) -> Look:
        with _faults(), Netlink() as netlink:
            rows = self._looked = self._rows()
            probe = Change(rows, lambda _: None)
            self._plan_base(probe, rows, netlink, Base(frozenset()))
            ports = rows.bridges[INT].ports if INT in rows.bridges else {}
            return Look(
                datapath=self.datapath,
                complete=not probe.changed and not (self._uplink.wanted and self._uplink.missing(netlink)),
                devices=tuple(_device(row) for row in ports.values() if row.external_ids.get(PORT_ID)),
                to_tunnels=_number(rows, INT_TO_TUN),
                from_int=_number(rows, TUN_TO_INT),
                to_external=_number(rows, INT_TO_EX),
                tunnels={row.options["remote_ip"]: max(row.ofport or 0, 0) for row in _tunnels(rows)},
                tunnel_address=self._tunnel_address,
            )

    def _rows(self) -> Rows:
        """The database, once the vswitchd that runs now has made it real: port numbers are its own."""
        rows = self._ovsdb.look()
        if not rows.vswitchd:
            raise Retry("ovs-vswitchd does not run")
        if rows.vswitchd != self._settled:
            self._ovsdb.settle()
            self._settled = rows.vswitchd
            rows = self._ovsdb.look()
        return rows

    # ── bridges, cables, tunnels ─────────────────────────────────────────────────────────────────────────────

    def apply(self, change: Base | Wiring) -> None:
        with _faults(), Netlink() as netlink, Nft() as nft:
            if isinstance(change, Base):
                self._make_base(change, netlink)
            else:
                self._wire(change, netlink, nft)

    def _make_base(self, base: Base, netlink: Netlink) -> None:
        if self._uplink.wanted and self._uplink.missing(netlink):
            with self._ovsdb.change() as change:
                change.delete_port(SWITCH_END)  # of its own: under a live port a new device is deaf
            self._uplink.make(netlink)
        if self._uplink.external:
            netlink.set_up(self._uplink.external)
        rows = self._rows()
        change = Change(rows, self._ovsdb.transact)
        self._plan_base(change, rows, netlink, base)
        change.commit()

    def _plan_base(self, change: Change, rows: Rows, netlink: Netlink, base: Base) -> None:
        bridges = [INT, EX, TUN] if self._tunnel_address else [INT, EX]
        ageing = {"mac-aging-time": str(LEARN_SECONDS)}
        for name in bridges:
            change.ensure_bridge(name, self.datapath, external_ids=MARKS, other_config=ageing)
        for here, near, there, far in _PATCHES:
            if there in bridges:
                change.ensure_port(here, near, "patch", {"peer": far}, external_ids=MARKS)
                change.ensure_port(there, far, "patch", {"peer": near}, external_ids=MARKS)
        if self._uplink.wanted:
            change.ensure_port(EX, SWITCH_END, external_ids=MARKS)
        if self._uplink.external:
            change.ensure_port(EX, self._uplink.external, external_ids=MARKS)
        if self._tunnel_address and self.datapath == "netdev":
            underlay.plan_bridge(change, rows, netlink, self._tunnel_address, MARKS)
        for peer in sorted(base.tunnels):
            options = {"local_ip": self._tunnel_address, "remote_ip": peer, "in_key": "flow", "out_key": "flow"}
            change.ensure_port(TUN, tunnel_name(peer), "vxlan", options, external_ids=MARKS)

    # ── ports ────────────────────────────────────────────────────────────────────────────────────────────────

    def _wire(self, wiring: Wiring, netlink: Netlink, nft: Nft) -> None:
        rows = self._looked or self._rows()
        self._kept.save(wiring.by)
        if PHY in rows.bridges and self._tunnel_address:
            underlay.ensure_addresses(rows.bridges[PHY], netlink)
        if self.datapath == "netdev":
            ensure_shield(nft, [row.name for row in _own_devices(rows)])
        for tag in sorted(wiring.fresh):
            self._forget_connections(tag)
        self._write_tags(rows, dict(wiring.tags))
        for bridge, flows in wiring.flows.items():
            added, removed = self._openflow.sync_flows(bridge, flows)
            if added or removed:
                LOG.info("%s: %d flows added, %d removed", bridge, added, removed)
        self._write_tags(rows, dict.fromkeys(wiring.untags, UNWIRED))
        self._drop_tunnels(rows, wiring.tunnels)
        self._uplink.ensure(netlink, nft)  # last: a host that refuses NAT still gets its filters

    def _write_tags(self, rows: Rows, tags: dict[str, Tag]) -> None:
        if not tags:
            return
        change = Change(rows, self._ovsdb.transact)
        for name, wanted in sorted(tags.items()):
            row = rows.bridges[INT].ports.get(name)
            if row is None:  # gone since the look
                continue
            with contextlib.suppress(netns.NetnsError):  # the host itself has nothing to say to a guest
                netns.sysctl(f"net/ipv6/conf/{name}/disable_ipv6", 1)
            marks = {NETWORK_ID: wanted.network_id, CLOUD: wanted.cloud}
            change.ensure_port(INT, name, row.type, row.options, wanted.tag, marks)
        change.commit()

    def _drop_tunnels(self, rows: Rows, wanted: frozenset[str]) -> None:
        surplus = [row.name for row in _tunnels(rows) if row.options["remote_ip"] not in wanted]
        if surplus:
            change = Change(rows, self._ovsdb.transact)
            for name in surplus:
                change.delete_port(name)
            change.commit()

    def _forget_connections(self, tag: int) -> None:
        """A network that takes over a local VLAN must not take over the connections of the one before."""
        control = os.path.join(self._run, "ovs-vswitchd.ctl")
        zone = f"zone={tag}"
        with contextlib.closing(Connection(control, _ANSWER_SECONDS)) as connection:
            try:
                connection.call("dpctl/flush-conntrack", [_DATAPATHS[self.datapath], zone])
            except (OvsdbLost, OvsdbTimeout):
                raise
            except (
                OvsdbError
            ):  # Open vSwitch 3.1 takes the datapath for something else; it needs none if it has one
                connection.call("dpctl/flush-conntrack", [zone])

    def recall(self) -> WireIntent:
        return self._kept.load()

    def watch(self, on_change: Callable[[], None]) -> Callable[[], None]:
        return Watch(self._database, on_change).close


_DATAPATHS = {"system": "system@ovs-system", "netdev": "netdev@ovs-netdev"}
_WHY = {
    "system": "the kernel has Open vSwitch",
    "netdev": "the kernel has no Open vSwitch: forwarding is slower, this host's stack is shielded from the "
    "switch's devices, tunnels leave through br-phy",
}


def tunnel_name(peer: str) -> str:
    """A port name of at most 15 characters for the tunnel to `peer`: its address in hexadecimal, or a digest."""
    packed = ipaddress.ip_address(peer).packed
    return f"vxlan-{(packed if len(packed) == 4 else hashlib.blake2b(packed, digest_size=4).digest()).hex()}"


def _device(row: PortRow) -> Device:
    return Device(
        name=row.name,
        port_id=row.external_ids[PORT_ID],
        number=max(row.ofport or 0, 0),
        tag=row.tag,
        network_id=row.external_ids.get(NETWORK_ID, ""),
        error=row.error or "",
        cloud=row.external_ids.get(CLOUD, ""),
    )


def _number(rows: Rows, port: str) -> int:
    found = rows.find_port(port)
    return max(found[1].ofport or 0, 0) if found else 0


def _tunnels(rows: Rows) -> Iterator[PortRow]:
    """Our tunnels; an operator's own are left alone."""
    if TUN in rows.bridges:
        for row in rows.bridges[TUN].ports.values():
            if row.type == "vxlan" and row.external_ids.get("owner") == OWNER:
                yield row


def _own_devices(rows: Rows) -> Iterator[PortRow]:
    """Devices of the host that are ports of the userspace datapath's bridges."""
    for name in (INT, EX, TUN, PHY):
        if name in rows.bridges:
            yield from (row for row in rows.bridges[name].ports.values() if row.type == "")


@contextlib.contextmanager
def _faults() -> Iterator[None]:
    """A part of the host that refuses or is away is no bug: the next pass looks again."""
    try:
        yield
    except (OvsdbError, OpenFlowError, NftError, NetlinkError, DeviceError, netns.NetnsError) as error:
        raise Retry(str(error)) from error
