"""Making and unmaking ports, for whoever needs one: users, nova, DHCP, routers, floating IPs.

One place, so that a port's addresses, groups, binding, hints and generations always change together.  Callers
have checked who may; here is only what must hold.
"""

import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from cumulet.core.among import among
from cumulet.core.context import Context
from cumulet.core.db import Transaction
from cumulet.core.errors import Conflict, Retry
from cumulet.neutron import addresses, effects, ipam, notices, standard
from cumulet.neutron.addresses import Wish
from cumulet.neutron.tables import floatingips, port_addresses, port_bindings, port_groups, port_pairs, ports

PORTS = sa.select(
    ports,
    port_bindings.c.host,
    port_bindings.c.generation,
    port_bindings.c.wired_generation,
    port_bindings.c.wired_at,
).outerjoin(port_bindings, sa.and_(port_bindings.c.port_id == ports.c.id, port_bindings.c.active))
"""Ports with their active bindings; what ``status`` and the views are made of."""
_THEIR_GROUPS = sa.select(port_groups.c.security_group_id).where(among(port_groups.c.port_id, "ports")).distinct()
_THEIR_FLOATING_IPS = sa.select(floatingips).where(among(floatingips.c.port_id, "ports"))


@dataclass(frozen=True)
class NewPort:
    """A port to make.  ``wishes``: None for the addresses that the network gives by itself."""

    network: Row[Any]
    project_id: str
    values: Mapping[str, Any] = field(default_factory=dict)  # columns of ``ports``
    wishes: Sequence[Wish] | None = None
    groups: Collection[str] = ()
    pairs: Collection[tuple[str, str]] = ()  # (MAC or empty for the port's own, prefix)
    host: str = ""


def create_port_row(tx: Transaction, new: NewPort) -> str:
    """Make a port with its addresses, groups and binding; its id."""
    return create_port_rows(tx, [new])[0]


def create_port_rows(tx: Transaction, wanted: Sequence[NewPort]) -> list[str]:
    """Make ports, in order: their ids.  Of many on one network each costs little more than its address."""
    rows = [_row(new) for new in wanted]
    _write_ports(tx, wanted, rows)
    network_ids = dict.fromkeys(new.network.id for new in wanted)
    available = {network_id: addresses.subnets_of(tx, network_id) for network_id in network_ids}
    addressed = set()
    for new, row in zip(wanted, rows, strict=True):
        network_id, internal = new.network.id, row["device_owner"].startswith("network:")
        chosen = addresses.choose(tx, network_id, available[network_id], row["mac"], new.wishes, internal=internal)
        addresses.write(tx, network_id, row["id"], chosen)
        if chosen and row["device_owner"] != "network:floatingip":
            addressed.add(network_id)
    members = [
        {"port_id": row["id"], "security_group_id": group}
        for new, row in zip(wanted, rows, strict=True)
        for group in new.groups
    ]
    if members:
        tx.write(port_groups.insert(), members)
    for new, row in zip(wanted, rows, strict=True):
        set_pairs(tx, row["id"], row["mac"], new.pairs)
        if new.host:
            effects.bind(tx, row["id"], new.network.id, new.host)
    effects.hint_members(tx, {group for new in wanted for group in new.groups})
    for network_id in sorted(addressed):
        effects.bump_dhcp(tx, network_id)
    return [row["id"] for row in rows]


def _row(new: NewPort) -> dict[str, Any]:
    row = standard.new_row(new.project_id) | _PLAIN | {"network_id": new.network.id} | dict(new.values)
    return row | {"mac": row["mac"] or ipam.mac_address(secrets.randbits(24))}


_PLAIN: dict[str, Any] = {
    "mac": "",
    "admin_up": True,
    "device_id": "",
    "device_owner": "",
    "port_security": True,
    "dhcp_options": [],
    "dns_name": "",
    "vnic_type": "normal",
    "profile": {},
    "server_id": None,
    "nova_made": False,
}
"""What is not said of a port."""


def _write_ports(tx: Transaction, wanted: Sequence[NewPort], rows: Sequence[dict[str, Any]]) -> None:
    """A MAC that is taken is a 409 if somebody asked for it; else others are tried."""
    try:
        tx.write(ports.insert(), rows)
    except Conflict as race:
        for new, row in zip(wanted, rows, strict=True):
            same = sa.and_(ports.c.network_id == new.network.id, ports.c.mac == row["mac"], ports.c.id != row["id"])
            twice = sum(r["mac"] == row["mac"] and r["network_id"] == row["network_id"] for r in rows) > 1
            if new.values.get("mac") and (twice or tx.find(sa.select(ports.c.id).where(same))):
                raise mac_in_use(new.network.id, row["mac"]) from race
        raise Retry("the MAC is taken") from race


def delete_port_rows(tx: Transaction, context: Context, rows: Sequence[Row[Any]]) -> None:
    """Delete ports with all that hangs on them; floating IPs lose their port but stay."""
    ids = [row.id for row in rows]
    if not ids:
        return
    groups = tx.all(_THEIR_GROUPS, {"ports": ids})
    for row in tx.all(_THEIR_FLOATING_IPS, {"ports": ids}):
        release_floating(tx, row)
    for port_id in ids:
        effects.hint_port(tx, port_id)
    effects.hint_members(tx, {row.security_group_id for row in groups})
    tx.write(sa.delete(ports).where(ports.c.id.in_(ids)))
    for network_id in dict.fromkeys(row.network_id for row in rows if row.device_owner != "network:floatingip"):
        effects.bump_dhcp(tx, network_id)
    for row in rows:
        tx.notify(context, "port.delete.end", notices.PUBLISHER, {"port_id": row.id, "port": {"id": row.id}})


def release_floating(tx: Transaction, row: Row[Any]) -> None:
    """Take a floating IP from its port."""
    generation = effects.bump_router(tx, row.router_id) if row.router_id else 0
    values = {"port_id": None, "fixed_ip": None, "router_id": None, "generation": generation, "seen_generation": 0}
    standard.touch(tx, floatingips, [row.id])
    tx.write(sa.update(floatingips).where(floatingips.c.id == row.id).values(**values))


def set_addresses(tx: Transaction, row: Row[Any], wishes: Sequence[Wish], subnets: Sequence[Row[Any]]) -> None:
    """Give the port the wished addresses and no others; it keeps those that it has."""
    mine = tx.all(
        sa.select(port_addresses).where(port_addresses.c.port_id == row.id).order_by(port_addresses.c.position)
    )
    kept, new = _keep(mine, wishes)
    for address in mine:
        if address not in kept:
            tx.write(
                sa.delete(port_addresses).where(
                    port_addresses.c.network_id == row.network_id, port_addresses.c.ip == address.ip
                )
            )
    chosen = addresses.choose(
        tx, row.network_id, subnets, row.mac, new, internal=row.device_owner.startswith("network:")
    )
    named = {address.subnet_id for address in kept}
    automatic = {subnet.id for subnet in subnets if addresses.automatic(subnet)}
    chosen = [a for a in chosen if not (a.subnet_id in automatic and a.subnet_id in named)]
    addresses.write(tx, row.network_id, row.id, chosen, first=max((a.position for a in mine), default=-1) + 1)


def release_lost(tx: Transaction, port_id: str) -> None:
    """Floating IPs of addresses that the port has no more are free again."""
    kept = sa.select(port_addresses.c.ip).where(port_addresses.c.port_id == port_id)
    lost = sa.select(floatingips).where(floatingips.c.port_id == port_id, floatingips.c.fixed_ip.not_in(kept))
    for floating in tx.all(lost):
        release_floating(tx, floating)


def _keep(mine: Sequence[Row[Any]], wishes: Sequence[Wish]) -> tuple[list[Row[Any]], list[Wish]]:
    """The addresses that fulfil a wish, and the wishes that none fulfils; exact wishes choose first."""
    kept: list[Row[Any]] = []
    new = []
    for wish in sorted(wishes, key=lambda wish: not wish.ip):
        match = next(
            (
                address
                for address in mine
                if address not in kept
                and (not wish.ip or wish.ip == address.ip)
                and (not wish.subnet_id or wish.subnet_id == address.subnet_id)
            ),
            None,
        )
        if match is None:
            new.append(wish)
        else:
            kept.append(match)
    return kept, new


def fulfilled(mine: Sequence[Row[Any]], wishes: Sequence[Wish]) -> bool:
    """Whether these addresses are what is wished, no more and no less."""
    kept, new = _keep(mine, wishes)
    return not new and len(kept) == len(mine)


def set_groups(tx: Transaction, port_id: str, groups: Collection[str]) -> None:
    if groups:
        tx.write(port_groups.insert(), [{"port_id": port_id, "security_group_id": group} for group in groups])


def set_pairs(tx: Transaction, port_id: str, mac: str, pairs: Collection[tuple[str, str]]) -> None:
    if pairs:
        rows = {(pair_mac or mac, prefix) for pair_mac, prefix in pairs}
        tx.write(port_pairs.insert(), [{"port_id": port_id, "mac": m, "prefix": p} for m, p in sorted(rows)])


def mac_in_use(network_id: str, mac: str) -> Conflict:
    return Conflict(
        f"Unable to complete operation for network {network_id}. The mac address {mac} is in use.",
        kind="MacAddressInUse",
    )
