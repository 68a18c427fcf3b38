"""Giving ports their addresses.

The choice is pure (``ipam``); here it is made from the database's rows and written.  Two that choose the same
address at once are told apart by the primary key of ``port_addresses``: the loser gets ``Retry`` and chooses
again; only an address that the caller named is a 409.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, Conflict, NotFound, Retry
from cumulet.neutron import checks, ipam
from cumulet.neutron.tables import port_addresses, subnets

AUTOMATIC = ("slaac", "dhcpv6-stateless")
_SUBNETS = (
    sa.select(subnets)
    .where(subnets.c.network_id == sa.bindparam("network"))
    .order_by(subnets.c.created_at, subnets.c.id)
)


@dataclass(frozen=True)
class Wish:
    """An address that a port should have: a certain one, or any of a subnet or of an IP version."""

    subnet_id: str = ""
    ip: str = ""
    version: int = 0


@dataclass(frozen=True)
class Address:
    ip: str
    subnet_id: str
    slot: int | None


def automatic(subnet: Row[Any]) -> bool:
    """Whether ports of this subnet make their addresses from their MAC."""
    return subnet.ipv6_address_mode in AUTOMATIC or subnet.ipv6_ra_mode in AUTOMATIC


def subnets_of(tx: Transaction, network_id: str) -> Sequence[Row[Any]]:
    return tx.all(_SUBNETS, {"network": network_id})


def choose(
    tx: Transaction,
    network_id: str,
    available: Sequence[Row[Any]],
    mac: str,
    wishes: Sequence[Wish] | None,
    *,
    internal: bool = False,
) -> list[Address]:
    """Addresses for a port: as wished, else one IPv4, one IPv6 and those that follow from the MAC.

    ``internal`` ports (routers', DHCP's) may take a given address of a subnet with automatic ones.
    """
    if wishes is None:
        return _defaults(tx, network_id, available, mac)
    found: list[Address] = []
    for wish in wishes:
        found.append(_wished(tx, network_id, available, mac, wish, found, internal))
    stateless = [s for s in available if automatic(s) and wishes and not internal]
    named = {address.subnet_id for address in found}
    found += [_derived(s, mac) for s in stateless if s.id not in named]
    checks.distinct([address.ip for address in found], "fixed IPs")
    return found


def write(tx: Transaction, network_id: str, port_id: str, chosen: Sequence[Address], first: int = 0) -> None:
    """Give the port these addresses; a lost race is ``Retry``."""
    if not chosen:
        return
    rows = [
        {
            "network_id": network_id,
            "ip": address.ip,
            "port_id": port_id,
            "subnet_id": address.subnet_id,
            "slot": address.slot,
            "position": first + number,
        }
        for number, address in enumerate(chosen)
    ]
    try:
        tx.write(port_addresses.insert(), rows)
    except Conflict as race:
        raise Retry(f"an address of network {network_id} was taken by somebody else") from race


def _defaults(tx: Transaction, network_id: str, available: Sequence[Row[Any]], mac: str) -> list[Address]:
    found = []
    for version in (4, 6):
        stateful = [s for s in available if s.ip_version == version and not automatic(s)]
        if stateful:
            found.append(_any_of(tx, network_id, stateful, []))
    return found + [_derived(s, mac) for s in available if automatic(s)]


def _wished(
    tx: Transaction,
    network_id: str,
    available: Sequence[Row[Any]],
    mac: str,
    wish: Wish,
    already: Sequence[Address],
    internal: bool,
) -> Address:
    if wish.version:
        candidates = [s for s in available if s.ip_version == wish.version and not automatic(s)]
        return _any_of(tx, network_id, candidates, already)
    subnet = _subnet(network_id, available, wish)
    if not wish.ip:
        return _derived(subnet, mac) if automatic(subnet) else _any_of(tx, network_id, [subnet], already)
    if automatic(subnet) and not internal and wish.ip != ipam.eui64(subnet.cidr, mac):
        raise BadRequest(
            f"IPv6 address {wish.ip} can not be directly assigned to a port on subnet {subnet.id} as the subnet is "
            "configured for automatic addresses",
            kind="AllocationOnAutoAddressSubnet",
        )
    taken = sa.select(port_addresses.c.port_id).where(
        port_addresses.c.network_id == network_id, port_addresses.c.ip == wish.ip
    )
    if tx.find(taken):
        raise Conflict(
            f"Unable to complete operation for network {network_id}. The IP address {wish.ip} is in use.",
            kind="IpAddressInUse",
        )
    return Address(wish.ip, subnet.id, ipam.slot(subnet.cidr, wish.ip))


def _subnet(network_id: str, available: Sequence[Row[Any]], wish: Wish) -> Row[Any]:
    """The subnet that a wish means; 404 for an unknown one, 400 where the address does not fit."""
    if wish.subnet_id:
        subnet = next((s for s in available if s.id == wish.subnet_id), None)
        if subnet is None:
            raise BadRequest(
                f"Invalid input for operation: Failed to create port on network {network_id}, because fixed_ips "
                f"included invalid subnet {checks.shown(wish.subnet_id)}.",
                kind="InvalidInput",
            )
        if wish.ip and not ipam.inside(subnet.cidr, wish.ip):
            raise BadRequest(
                f"IP address {wish.ip} is not a valid IP for the specified subnet.", kind="InvalidIpForSubnet"
            )
        return subnet
    if not wish.ip:
        raise checks.bad("IP allocation requires subnet_id or ip_address")
    subnet = next((s for s in available if ipam.inside(s.cidr, wish.ip)), None)
    if subnet is None:
        raise BadRequest(
            f"IP address {wish.ip} is not a valid IP for any of the subnets on the specified network.",
            kind="InvalidIpForNetwork",
        )
    return subnet


def _any_of(
    tx: Transaction, network_id: str, candidates: Sequence[Row[Any]], already: Sequence[Address]
) -> Address:
    """The lowest free address of the first subnet that has one."""
    for subnet in candidates:
        mine = {a.slot for a in already if a.slot and a.subnet_id == subnet.id}
        for start, end in ipam.slots(subnet.cidr, [(pool["start"], pool["end"]) for pool in subnet.pools]):
            number = _free_slot(tx, subnet.id, start, end, mine)
            if number is not None:
                return Address(ipam.at_slot(subnet.cidr, number), subnet.id, number)
    raise Conflict(f"No more IP addresses available on network {network_id}.", kind="IpAddressGenerationFailure")


def _free_slot(tx: Transaction, subnet_id: str, start: int, end: int, mine: Collection[int]) -> int | None:
    """The lowest slot from ``start`` to ``end`` that is neither taken nor in ``mine``.

    The database looks for the first gap behind a taken slot, in its index: nothing is read but the answer.
    """
    while start <= end:
        place = {"subnet": subnet_id, "start": start, "end": end}
        number = start if tx.find(_TAKEN, place) is None else tx.value(_GAP, place)
        if number is None or number > end:
            return None
        if number not in mine:
            return int(number)
        start = number + 1
    return None


_after = port_addresses.alias("after")
_HERE = port_addresses.c.subnet_id == sa.bindparam("subnet")
_TAKEN = sa.select(port_addresses.c.slot).where(_HERE, port_addresses.c.slot == sa.bindparam("start"))
_GAP = (
    sa.select(port_addresses.c.slot + 1)
    .where(
        _HERE,
        port_addresses.c.slot.between(sa.bindparam("start"), sa.bindparam("end")),
        ~sa.exists().where(
            _after.c.subnet_id == port_addresses.c.subnet_id, _after.c.slot == port_addresses.c.slot + 1
        ),
    )
    .order_by(port_addresses.c.slot)
    .limit(1)
)


def _derived(subnet: Row[Any], mac: str) -> Address:
    ip = ipam.eui64(subnet.cidr, mac)
    return Address(ip, subnet.id, ipam.slot(subnet.cidr, ip))


def subnet_not_found(subnet_id: str) -> NotFound:
    return NotFound(f"Subnet {checks.shown(subnet_id)} could not be found.", kind="SubnetNotFound")
