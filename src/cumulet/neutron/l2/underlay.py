"""br-phy: where the userspace datapath sends its tunnels' frames.

The userspace datapath routes tunnel packets itself, and only through a bridge of its own that has the underlay's
device as a port and the tunnel address on its own interface.  So the device's addresses and routes move to
br-phy.  What was where is written down with the bridge before anything moves; a crash in between, or a restart of
ovs-vswitchd (which makes the interface anew, without addresses), is mended by the next pass.
"""

import json

from cumulet.core.errors import Retry
from cumulet.host.netlink import Netlink, Route, checksum_off
from cumulet.host.ovsdb import Bridge, Change, Switch
from cumulet.neutron.l2.flows import PHY

_DEVICE, _ADDRESSES, _ROUTES = "underlay-device", "underlay-addresses", "underlay-routes"


def plan_bridge(
    change: Change, switch: Switch, netlink: Netlink, tunnel_address: str, marks: dict[str, str]
) -> None:
    """Have br-phy, made after the device that holds the tunnel address.  Raises Retry if there is none."""
    bridge = switch.bridges.get(PHY)
    if bridge is not None:
        known = bridge.external_ids
        if tunnel_address not in {text.partition("/")[0] for text in json.loads(known.get(_ADDRESSES, "[]"))}:
            raise Retry(f"{PHY} was made for another address than network.tunnel_address {tunnel_address}")
        device, hwaddr, notes = known[_DEVICE], None, dict(known)
    else:
        device = _find_device(netlink, tunnel_address)
        hwaddr = netlink.links()[device].mac
        notes = {
            _DEVICE: device,
            _ADDRESSES: json.dumps(sorted(a for a in netlink.addresses(device) if not a.startswith("fe80:"))),
            _ROUTES: json.dumps(sorted(route for route in netlink.routes() if route.dev == device)),
        }
    change.ensure_bridge(PHY, "netdev", fail_mode="standalone", hwaddr=hwaddr, external_ids={**notes, **marks})
    change.ensure_port(PHY, device, external_ids=marks)


def ensure_addresses(bridge: Bridge, netlink: Netlink) -> None:
    """Addresses and routes on br-phy and no longer on the device."""
    addresses, routes = _notes(bridge)
    device = bridge.external_ids[_DEVICE]
    if netlink.find_link(device) is None:
        raise Retry(f"the underlay's device {device} is gone")
    netlink.set_up(device)
    netlink.ensure_addresses(device, ())
    netlink.set_up(PHY)
    checksum_off(PHY)
    netlink.ensure_addresses(PHY, addresses, exact=False)
    for route in routes:
        netlink.ensure_route(route._replace(dev=PHY))


def give_back(bridge: Bridge, netlink: Netlink) -> None:
    """The reverse, before the bridge is deleted."""
    addresses, routes = _notes(bridge)
    device = bridge.external_ids.get(_DEVICE, "")
    if not device or netlink.find_link(device) is None:
        return
    if netlink.find_link(PHY):
        netlink.ensure_addresses(PHY, ())
    netlink.ensure_addresses(device, addresses, exact=False)
    for route in routes:
        netlink.ensure_route(route)


def _notes(bridge: Bridge) -> tuple[list[str], list[Route]]:
    known = bridge.external_ids
    routes = [Route(*fields) for fields in json.loads(known.get(_ROUTES, "[]"))]
    return json.loads(known.get(_ADDRESSES, "[]")), sorted(routes, key=lambda route: route.via is not None)


def _find_device(netlink: Netlink, address: str) -> str:
    for name in netlink.links():
        if address in {text.partition("/")[0] for text in netlink.addresses(name)}:
            return name
    raise Retry(f"no device of this host has network.tunnel_address {address}")
