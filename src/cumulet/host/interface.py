"""A port of the switch inside a network namespace: how the DHCP and the L3 agent plug themselves in.

The outer end of a veth pair is a port of the integration bridge, the inner one is in the namespace.  A veth
survives a restart of ovs-vswitchd, an internal port in a namespace does not.  The switch's userspace datapath
reads frames without checksum offload, so the inner end's is switched off.  Namespaces that an agent makes are
written down in the run directory first: ``down`` removes those and no others.
"""

import contextlib
import ipaddress
import os
from collections.abc import Collection
from pathlib import Path

from cumulet.host import netns
from cumulet.host.device import checksum_off
from cumulet.host.netlink import Netlink, NetlinkError
from cumulet.host.ovsdb import Ovsdb
from cumulet.host.ovsdb_rows import Switch

BRIDGE = "br-int"
OWNER = "cumulet"


def ensure_namespace(run_dir: Path, name: str) -> bool:
    """The namespace ``name``, written down as ours; True when it was made."""
    mark = _mark(run_dir, name)
    if not mark.exists():
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    return netns.create(name)


def remove_namespace(run_dir: Path, name: str) -> None:
    netns.delete(name)
    _mark(run_dir, name).unlink(missing_ok=True)


def own_namespaces(run_dir: Path, prefix: str) -> list[str]:
    """The namespaces with this prefix that our agents made, whether they still are there or not."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(name for name in os.listdir(_mark(run_dir, "")) if name.startswith(prefix))
    return []


def ensure_interface(
    ovsdb: Ovsdb,
    switch: Switch,
    namespace: str,
    outer: str,
    inner: str,
    port_id: str,
    mac: str,
    mtu: int,
    addresses: Collection[str],
    up: bool = True,
) -> bool:
    """The port ``port_id`` plugged into ``namespace`` with exactly these addresses; True when something changed.

    With ``up`` false the inner end stays down: nothing answers there.  Besides ``addresses`` it has the link-local
    one of its hardware address, and that is what it speaks from: other link-local ones are only answered at.

    A device is never made anew under a live switch port (the port would be deaf): the port goes first, in a
    change of its own.
    """
    changed = False
    with Netlink() as link:
        try:
            made = link.ensure_veth(outer, inner, namespace, mtu, peer_mac=mac)
        except NetlinkError:
            remove_interface(ovsdb, outer)
            made = link.ensure_veth(outer, inner, namespace, mtu, peer_mac=mac)
        if made:
            _delete_port(ovsdb, outer)
        link.set_up(outer)
        with netns.enter(namespace), Netlink() as inside:
            if made:
                checksum_off(inner)
            (inside.set_up if up else inside.set_down)(inner)
            own = link_local(mac)
            passive = {address for address in addresses if address.startswith("fe80:") and address != own}
            exactly = {own, *addresses}
            changed = inside.ensure_addresses(inner, exactly, passive=passive, link_local=False) or made
    if made or switch.find_port(outer) is None:
        with ovsdb.change() as change:
            if change.lacks(outer):
                ids = {"iface-id": port_id, "attached-mac": mac, "owner": OWNER}
                change.ensure_port(BRIDGE, outer, external_ids=ids)
        changed = True
    return changed


def link_local(mac: str) -> str:
    """The link-local address that follows from a hardware address (RFC 4291, appendix A), with its length."""
    octets = bytes.fromhex(mac.replace(":", ""))
    host = bytes((octets[0] ^ 2, *octets[1:3], 0xFF, 0xFE, *octets[3:]))
    return f"{ipaddress.IPv6Address(bytes.fromhex('fe80') + bytes(6) + host)}/64"


def remove_interface(ovsdb: Ovsdb, outer: str) -> None:
    """Take the port off the switch, then its devices away."""
    _delete_port(ovsdb, outer)
    with Netlink() as link:
        link.delete_link(outer)


def _delete_port(ovsdb: Ovsdb, name: str) -> None:
    with ovsdb.change() as change:
        change.delete_port(name)


def _mark(run_dir: Path, name: str) -> Path:
    return run_dir / "owned" / "netns" / name
