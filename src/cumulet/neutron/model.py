"""neutron's nouns.  Types only: importable from anywhere above, from agents and from pure code.

``*Intent`` goes from neutron-server to the agent of one host, ``*Seen`` comes back; both are JSON of exactly
these types.  Addresses are text as ``ipaddress`` prints them.
"""

from typing import Annotated

from msgspec import Meta, Struct

from cumulet.core.schema import Count

TRUSTED_OWNERS = (
    "network:dhcp",
    "network:router_interface",
    "network:router_gateway",
)
"""Device owners of ports that the cloud's own agents plug: no anti-spoofing, no security groups."""


METADATA_V4, METADATA_V6 = "169.254.169.254", "fe80::a9fe:a9fe"
"""Where guests ask for their metadata."""


def device_name(port_id: str) -> str:
    """A port's device on the switch; the same name for everybody who looks for it."""
    return f"tap{port_id[:11]}"


class PortWish(Struct, frozen=True):
    """A port that a server asks for: an existing one, or a new one on a network, perhaps at an address."""

    network_id: str = ""
    port_id: str = ""
    fixed_ip: str = ""


class Port(Struct, frozen=True):
    """A port as other projects see it (``neutron.public``)."""

    id: str
    network_id: str
    network_name: str
    mac: str
    addresses: tuple["Address", ...]
    mtu: int
    wired: bool
    device_id: str
    status: str
    security_groups: tuple[str, ...] = ()  # names, as nova shows them
    floating_ips: tuple[tuple[str, str], ...] = ()  # (fixed address, floating address)
    created_by_nova: bool = True
    name: str = ""
    wired_in: str = ""  # the boot of its host in which that was said; '': not known


class Inlet(Struct, frozen=True):
    """A rule of a security group that lets packets in."""

    id: str
    ethertype: str  # 'IPv4', 'IPv6'
    protocol: str | None  # a name or a number; None: any
    port_min: int | None
    port_max: int | None
    prefix: str | None
    group: tuple[str, str] | None  # name and project of the group whose members it lets in


class SecurityGroup(Struct, frozen=True):
    id: str
    name: str
    description: str
    project_id: str
    inlets: tuple[Inlet, ...]


class Address(Struct, frozen=True):
    ip: str
    subnet_id: str
    cidr: str
    gateway: str = ""  # empty: none
    dns: tuple[str, ...] = ()
    routes: tuple[tuple[str, str], ...] = ()  # (destination, next hop)
    dhcp: bool = True
    ip_version: int = 4
    ipv6_mode: str = ""  # '', 'slaac', 'dhcpv6-stateful', 'dhcpv6-stateless'


# ── neutron-openvswitch-agent ────────────────────────────────────────────────────────────────────────────────


class Rule(Struct, frozen=True):
    """A security group rule.  ``protocol`` is a number; ports are ICMP's type and code for 1 and 58."""

    direction: str  # 'ingress' or 'egress'
    ip_version: int  # 4 or 6
    protocol: int | None = None
    port_min: int | None = None
    port_max: int | None = None
    remote_prefix: str = ""
    remote_group: str = ""


class Segment(Struct, frozen=True):
    """How a network's frames leave a host."""

    network_id: str
    kind: str  # 'vxlan', 'flat', 'vlan'
    mtu: int
    segmentation_id: int = 0  # VNI or VLAN id
    physical_network: str = ""  # for flat and vlan
    peers: tuple[str, ...] = ()  # tunnel ends of the other hosts with ports on it


class WirePort(Struct, frozen=True):
    """A port that is bound to this host."""

    id: str
    network_id: str
    mac: str
    ips: tuple[str, ...]
    device_owner: str
    generation: int  # of the binding
    wired_generation: int  # what this host last reported
    wired_in: str = ""  # in which of its boots
    admin_up: bool = True
    port_security: bool = True
    allowed_pairs: tuple[tuple[str, str], ...] = ()  # (MAC, prefix)
    security_groups: tuple[str, ...] = ()
    active: bool = True  # False: its station is on another host yet, and may come here at any moment

    @property
    def trusted(self) -> bool:
        return self.device_owner in TRUSTED_OWNERS


class WireIntent(Struct, frozen=True):
    """Everything the L2 agent of one host has to know, in one document."""

    ports: tuple[WirePort, ...] = ()
    segments: dict[str, Segment] = {}  # by network id
    rules: dict[str, tuple[Rule, ...]] = {}  # by security group id, those that the ports name
    members: dict[str, tuple[str, ...]] = {}  # addresses by security group id, those that rules name as remote
    cloud: str = ""  # whose database this is


class WireSeen(Struct, frozen=True):
    """Reported on change: ports that are wired at a generation, and ports whose device is not there (0)."""

    wired: dict[str, Count] = {}
    boot_id: Annotated[str, Meta(max_length=64)] = ""  # of the host


# ── neutron-dhcp-agent ───────────────────────────────────────────────────────────────────────────────────────


class Subnet(Struct, frozen=True):
    id: str
    cidr: str
    ip_version: int
    dhcp: bool
    gateway: str = ""
    dns: tuple[str, ...] = ()
    routes: tuple[tuple[str, str], ...] = ()
    ipv6_address_mode: str = ""
    ipv6_ra_mode: str = ""


class Lease(Struct, frozen=True):
    """A port that may ask for its addresses.  ``options``: (option name or number, value, IP version)."""

    port_id: str
    mac: str
    ips: tuple[str, ...]
    hostname: str
    options: tuple[tuple[str, str, int], ...] = ()


class DhcpIntent(Struct, frozen=True):
    """What this host should do for one network.  ``absent`` is a tombstone: take everything away."""

    network_id: str
    generation: int
    absent: bool
    seen_generation: int = 0
    port_id: str = ""
    mac: str = ""
    ips: tuple[str, ...] = ()  # with prefix length, e.g. 10.0.0.2/24
    mtu: int = 1500
    domain: str = ""
    subnets: tuple[Subnet, ...] = ()
    leases: tuple[Lease, ...] = ()
    metadata_isolated: bool = True  # serve 169.254.169.254 and fe80::a9fe:a9fe here too
    metadata_v6: bool = True  # the latter: at one place of a network


class DhcpSeen(Struct, frozen=True):
    generation: Count
    running: bool  # False after a tombstone was obeyed: nothing is left
    fault: str = ""


# ── neutron-l3-agent ─────────────────────────────────────────────────────────────────────────────────────────


class Advertised(Struct, frozen=True):
    """An IPv6 subnet that the router advertises to its network."""

    subnet_id: str
    cidr: str
    mode: str  # 'slaac', 'dhcpv6-stateful', 'dhcpv6-stateless'
    dns: tuple[str, ...] = ()


class RouterPort(Struct, frozen=True):
    id: str
    network_id: str
    mac: str
    ips: tuple[str, ...]  # with prefix length
    mtu: int
    gateways: tuple[str, ...] = ()  # next hops of default routes; the external port only
    advertised: tuple[Advertised, ...] = ()  # internal ports only
    metadata_v6: bool = True  # serve fe80::a9fe:a9fe here: at one place of a network
    scope_v4: str = ""  # the network's address scopes
    scope_v6: str = ""


class FloatingIp(Struct, frozen=True):
    id: str
    floating: str
    fixed: str


class RouterIntent(Struct, frozen=True):
    """What this host should do for one router.  ``absent`` is a tombstone."""

    id: str
    generation: int
    absent: bool
    seen_generation: int = 0
    admin_up: bool = True
    external: RouterPort | None = None
    snat: bool = True
    interfaces: tuple[RouterPort, ...] = ()
    floating: tuple[FloatingIp, ...] = ()
    routes: tuple[tuple[str, str], ...] = ()  # (destination, next hop)


class RouterSeen(Struct, frozen=True):
    generation: Count
    running: bool
    fault: str = ""
    floating: tuple[str, ...] = ()  # ids of the floating IPs that are in place


# ── neutron-metadata-agent ───────────────────────────────────────────────────────────────────────────────────


class Owner(Struct, frozen=True):
    """Whose port it is that asks for metadata; empty if nobody's."""

    device_id: str = ""
    project_id: str = ""
