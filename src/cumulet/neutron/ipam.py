"""Which address?  Pure: pools and what is taken in, an address out.

Addresses are text as ``ipaddress`` prints them.  A *slot* is the distance of an address from its subnet's first
one: small integers that databases sort, whatever the IP version.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Cidr = IPv4Network | IPv6Network
Pool = tuple[str, str]
LARGEST_SLOT = 1 << 62
BASE_MAC = "fa:16:3e"


def mac_address(bits: int) -> str:
    """A MAC of the cloud's own range, from 24 random bits."""
    low = bits & 0xFFFFFF
    return f"{BASE_MAC}:{low >> 16:02x}:{low >> 8 & 0xFF:02x}:{low & 0xFF:02x}"


def eui64(cidr: str, mac: str) -> str:
    """The address that a host with ``mac`` gives itself in the /64 ``cidr`` (RFC 4291, appendix A)."""
    octets = bytes.fromhex(mac.replace(":", ""))
    interface = bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    network = ip_network(cidr)
    return str(ip_address(int(network.network_address) | int.from_bytes(interface, "big")))


def mac_of(ip: str) -> str:
    """The MAC from which a link-local address was made; empty for any other address."""
    try:
        address = IPv6Address(ip)
    except ValueError:
        return ""
    octets = address.packed
    if octets[:8] != b"\xfe\x80" + bytes(6) or octets[11:13] != b"\xff\xfe":
        return ""
    return bytes([octets[8] ^ 2, *octets[9:11], *octets[13:]]).hex(":")


def slot(cidr: str, ip: str) -> int | None:
    """The distance of ``ip`` from the first address of ``cidr``; None if it is beyond what is searched."""
    distance = int(ip_address(ip)) - int(ip_network(cidr).network_address)
    return distance if 0 <= distance < LARGEST_SLOT else None


def at_slot(cidr: str, number: int) -> str:
    return str(ip_network(cidr).network_address + number)


def slots(cidr: str, pools: Iterable[Pool]) -> list[tuple[int, int]]:
    """``pools`` as ranges of slots, lowest first."""
    base = int(ip_network(cidr).network_address)
    ranges = ((int(ip_address(start)) - base, int(ip_address(end)) - base) for start, end in pools)
    return sorted((start, min(end, LARGEST_SLOT - 1)) for start, end in ranges if start < LARGEST_SLOT)


def default_pools(cidr: str, gateway: str | None) -> list[Pool]:
    """All usable addresses of ``cidr`` but the gateway's."""
    network = ip_network(cidr)
    first, last = usable(network)
    if gateway is None or not first <= int(ip_address(gateway)) <= last:
        ranges = [(first, last)]
    else:
        middle = int(ip_address(gateway))
        ranges = [(first, middle - 1), (middle + 1, last)]
    kind = type(network.network_address)
    return [(str(kind(start)), str(kind(end))) for start, end in ranges if start <= end]


def default_gateway(cidr: str) -> str:
    """The first usable address, as upstream chooses it."""
    network = ip_network(cidr)
    return str(type(network.network_address)(usable(network)[0]))


def usable(network: Cidr) -> tuple[int, int]:
    """The first and last address that a port may have: neither the network's own nor the broadcast's."""
    first, last = int(network.network_address), int(network.broadcast_address)
    if network.num_addresses <= 2:
        return first, last
    return first + 1, last - 1 if network.version == 4 else last


def inside(cidr: str, ip: str) -> bool:
    """Whether a port may have ``ip`` in ``cidr``."""
    network, address = ip_network(cidr), ip_address(ip)
    if network.version != address.version:
        return False
    first, last = usable(network)
    return first <= int(address) <= last


def overlapping(one: str, other: str) -> bool:
    first, second = ip_network(one), ip_network(other)
    return first.version == second.version and first.overlaps(second)


def bare(prefix: str) -> str:
    """``10.0.0.5/32`` as an address, other prefixes as they are."""
    whole = prefix.endswith("/128") if ":" in prefix else prefix.endswith("/32")
    return prefix.partition("/")[0] if whole else prefix
