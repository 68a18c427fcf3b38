"""What a subnet pool's definition must fulfil, and which prefix of it is free.  Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network
from typing import Any

from cumulet.core.errors import BadRequest
from cumulet.neutron import checks

Cidr = IPv4Network | IPv6Network
SHORTEST, LONGEST = {4: 8, 6: 64}, {4: 32, 6: 128}


@dataclass(frozen=True)
class Bounds:
    """The lengths of the prefixes that a pool gives."""

    smallest: int
    default: int
    largest: int


def prefixes(texts: Sequence[str]) -> list[str]:
    """Prefixes of one IP version, joined where they can be."""
    if not texts:
        raise BadRequest("Empty subnet pool prefix list.", kind="EmptySubnetPoolPrefixList")
    found = [ip_network(checks.prefix(text, strict=True, mask=True)) for text in texts]
    if len({one.version for one in found}) > 1:
        raise BadRequest("Cannot mix IPv4 and IPv6 prefixes in a subnet pool.", kind="PrefixVersionMismatch")
    joined: Iterable[Cidr] = collapse_addresses(found)  # type: ignore[type-var]
    return [str(one) for one in joined]


def bounds(version: int, smallest: Any, default: Any, largest: Any) -> Bounds:
    """Those that are given, and upstream's defaults for the others (None)."""
    least = SHORTEST[version] if smallest is None else smallest
    most = LONGEST[version] if largest is None else largest
    usual = least if default is None else default
    for name, value, other, limit, good in (
        ("min_prefixlen", least, "max_prefixlen", most, least <= most),
        ("max_prefixlen", most, "ip_version", LONGEST[version], most <= LONGEST[version]),
        ("default_prefixlen", usual, "min_prefixlen", least, usual >= least),
        ("default_prefixlen", usual, "max_prefixlen", most, usual <= most),
    ):
        if not good:
            raise BadRequest(
                f"Illegal prefix bounds: {name}={value}, {other}={limit}.", kind="IllegalSubnetPoolPrefixBounds"
            )
    return Bounds(least, usual, most)


def check_length(length: int, least: int, most: int) -> None:
    if length < least:
        raise BadRequest(
            f"Unable to allocate subnet with prefix length {length}, minimum allowed prefix is {least}.",
            kind="MinPrefixSubnetAllocationError",
        )
    if length > most:
        raise BadRequest(
            f"Unable to allocate subnet with prefix length {length}, maximum allowed prefix is {most}.",
            kind="MaxPrefixSubnetAllocationError",
        )


def inside(pool: Sequence[str], cidr: str) -> bool:
    """Whether one of the pool's prefixes holds ``cidr``."""
    wanted = ip_network(cidr)
    held = (ip_network(one) for one in pool)
    return any(one.version == wanted.version and wanted.subnet_of(one) for one in held)  # type: ignore[arg-type]


def choose(pool: Sequence[str], taken: Iterable[str], length: int) -> str | None:
    """The lowest free prefix of this length in ``pool``; None when there is none."""
    used = sorted((int(one.network_address), int(one.broadcast_address)) for one in map(ip_network, taken))
    for prefix in map(ip_network, pool):
        if length < prefix.prefixlen:
            continue
        size = 1 << (prefix.max_prefixlen - length)
        start, last = int(prefix.network_address), int(prefix.broadcast_address)
        for low, high in used:
            if high >= start and low < start + size:
                start = -(-(high + 1) // size) * size
        if start + size - 1 <= last:
            return f"{type(prefix.network_address)(start)}/{length}"
    return None


def units(cidr: str) -> int:
    """What a subnet counts for in a pool's quota: addresses, or /64 networks of IPv6."""
    network = ip_network(cidr)
    return network.num_addresses if network.version == 4 else max(1, network.num_addresses >> 64)
