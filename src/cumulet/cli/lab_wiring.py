"""How the machines of a lab are cabled: bridges on a machine of their own, ``outside``, and a cable to each node.

Three networks: ``br-mgmt`` is the management network, ``br-tun`` carries the tunnels of nodes that have an address
of their own for them, ``br-ext`` is the public network.  On the last one the machine ``outside`` is the gateway,
and it is where a user of the cloud would be; it also brings the controllers to floating IPs, and nobody from the
public network into the management network.  Pure: text for ``ip -batch`` and ``nft -f``.
"""

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cumulet.core import topology as topologies
from cumulet.core.errors import BadRequest
from cumulet.core.topology import Node, Topology

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
OUTSIDE = "outside"
MANAGEMENT, TUNNELS, PUBLIC = "br-mgmt", "br-tun", "br-ext"
MANAGEMENT_DEVICE, TUNNEL_DEVICE = "mgmt0", "tun0"
RULES = f"""table inet lab {{
chain forward {{
type filter hook forward priority 0; policy drop;
ct state established,related accept
iifname "{MANAGEMENT}" oifname "{PUBLIC}" accept
}}
}}
"""


@dataclass(frozen=True)
class Cable:
    """``end`` is its name outside, ``device`` the node's end."""

    bridge: str
    end: str
    device: str
    address: str = ""


@dataclass(frozen=True)
class Wiring:
    management: Network
    public: Network
    outside: str  # its address in the management network
    cables: dict[str, tuple[Cable, ...]]  # by node


def plan(topology: Topology) -> Wiring:
    """BadRequest if a lab cannot have these addresses."""
    management = spanning(node.address for node in topology.nodes)
    taken = {ipaddress.ip_address(node.address) for node in topology.nodes}
    free = next((one for one in _from_the_end(management) if one not in taken), None)
    if free is None:
        raise BadRequest(f"there is no free address in the management network {management}")
    public = ipaddress.ip_network(topology.network.public_cidr)
    ends = [node.tunnel_address for node in topology.nodes if _has_own_tunnel(node)]
    tunnels = spanning(ends) if ends else None
    networks = [network for network in (management, public, tunnels) if network]
    for one, other in ((one, other) for i, one in enumerate(networks) for other in networks[i + 1 :]):
        if one.version == other.version and one.overlaps(other):
            raise BadRequest(f"in a lab the networks {one} and {other} must not overlap")
    cables = {
        node.name: tuple(_cables(number, node, management, tunnels))
        for number, node in enumerate(topology.nodes, 1)
    }
    return Wiring(management, public, str(free), cables)


def spanning(addresses: Iterable[str]) -> Network:
    """The smallest network with all of them, of 24 bits (IPv6: 64) or fewer."""
    found = [ipaddress.ip_address(address) for address in addresses]
    if len({address.version for address in found}) != 1:
        raise BadRequest("the addresses of a lab's nodes in one network must be of one IP version")
    network = ipaddress.ip_network((found[0], 24 if found[0].version == 4 else 64), strict=False)
    while any(address not in network for address in found):
        network = network.supernet()
    return network


def outside_commands(wiring: Wiring, mtu: int) -> Iterator[str]:
    """The machine with the bridges."""
    yield "link set lo up"
    for bridge in (MANAGEMENT, TUNNELS, PUBLIC):
        yield f"link add {bridge} mtu {mtu + (50 if bridge == TUNNELS else 0)} type bridge"
        yield f"link set {bridge} up"
    yield f"addr add {wiring.outside}/{wiring.management.prefixlen} dev {MANAGEMENT}"
    yield f"addr add {wiring.public[1]}/{wiring.public.prefixlen} dev {PUBLIC}"


def cable_commands(wiring: Wiring, name: str, pid: int, mtu: int) -> Iterator[str]:
    """Outside: the cables of a node whose process 1 is ``pid``."""
    for cable in wiring.cables[name]:
        size = mtu + (50 if cable.bridge == TUNNELS else 0)
        yield f"link add {cable.end} mtu {size} type veth peer name {cable.device} mtu {size} netns {pid}"
        yield f"link set {cable.end} master {cable.bridge} up"


def node_commands(wiring: Wiring, topology: Topology, name: str) -> Iterator[str]:
    """On the node."""
    yield "link set lo up"
    node = topologies.get_node(topology, name)
    for cable in wiring.cables[name]:
        if cable.address:
            yield f"addr add {cable.address} dev {cable.device}"
        yield f"link set {cable.device} up"
    if node.public_address not in ("", node.address):
        yield f"addr add {node.public_address} dev {MANAGEMENT_DEVICE}"
    if topologies.controls(node):
        yield f"route add {wiring.public} via {wiring.outside}"


def hosts(topology: Topology) -> str:
    """/etc/hosts."""
    lines = [f"{node.address} {node.name}" for node in topology.nodes]
    return "\n".join(["127.0.0.1 localhost", "::1 localhost", *lines]) + "\n"


def _cables(number: int, node: Node, management: Network, tunnels: Network | None) -> Iterator[Cable]:
    yield Cable(MANAGEMENT, f"mgmt{number}", MANAGEMENT_DEVICE, f"{node.address}/{management.prefixlen}")
    if tunnels and _has_own_tunnel(node):
        yield Cable(TUNNELS, f"tun{number}", TUNNEL_DEVICE, f"{node.tunnel_address}/{tunnels.prefixlen}")
    if node.external_interface in (MANAGEMENT_DEVICE, TUNNEL_DEVICE):
        raise BadRequest(f"node {node.name}: in a lab {node.external_interface} is the name of another device")
    if node.external_interface:
        yield Cable(PUBLIC, f"ext{number}", node.external_interface)


def _has_own_tunnel(node: Node) -> bool:
    return node.tunnel_address not in ("", node.address)


def _from_the_end(network: Network) -> Iterator[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    last = int(network.broadcast_address) - 1
    for number in range(last, int(network.network_address), -1):
        yield ipaddress.ip_address(number)
