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

from cumulet.core.context import Context
from cumulet.core.db import Transaction
from cumulet.core.errors import Conflict, Retry
from cumulet.neutron import addresses, effects, ipam, standard
from cumulet.neutron.addresses import Wish
from cumulet.neutron.tables import floatingips, port_addresses, port_bindings, port_groups, port_pairs, ports

PORTS = sa.select(
    ports,
    port_bindings.c.host,
    port_bindings.c.generation,
    port_bindings.c.wired_generation,
    port_bindings.c.wired_at,
).outerjoin(port_bindings, port_bindings.c.port_id == ports.c.id)
"""Ports with their bindings; what ``status`` and the views are made of."""


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
    row = standard.new_row(new.project_id) | {"network_id": new.network.id, "mac": ""} | dict(new.values)
    given = bool(row["mac"])
    row["mac"] = row["mac"] or ipam.mac_address(secrets.randbits(24))
    internal = str(row.get("device_owner", "")).startswith("network:")
    available = addresses.subnets_of(tx, new.network.id)
    chosen = addresses.choose(tx, new.network.id, available, row["mac"], new.wishes, internal=internal)
    try:
        tx.write(ports.insert(), row)
    except Conflict as race:
        if given:
            raise mac_in_use(new.network.id, row["mac"]) from race
        raise Retry("the MAC is taken") from race
    port_id: str = row["id"]
    addresses.write(tx, new.network.id, port_id, chosen)
    set_groups(tx, port_id, new.groups)
    set_pairs(tx, port_id, row["mac"], new.pairs)
    if new.host:
        effects.bind(tx, port_id, new.network.id, new.host)
    effects.hint_members(tx, new.groups)
    if chosen and row.get("device_owner", "") != "network:floatingip":
        effects.bump_dhcp(tx, new.network.id)
    return port_id


def delete_port_rows(tx: Transaction, context: Context, rows: Sequence[Row[Any]]) -> None:
    """Delete ports with all that hangs on them; floating IPs lose their port but stay."""
    ids = [row.id for row in rows]
    if not ids:
        return
    groups = tx.all(sa.select(port_groups.c.security_group_id).where(port_groups.c.port_id.in_(ids)).distinct())
    for row in tx.all(sa.select(floatingips).where(floatingips.c.port_id.in_(ids))):
        release_floating(tx, row)
    for port_id in ids:
        effects.hint_port(tx, port_id)
    effects.hint_members(tx, {row.security_group_id for row in groups})
    tx.write(sa.delete(ports).where(ports.c.id.in_(ids)))
    for network_id in dict.fromkeys(row.network_id for row in rows if row.device_owner != "network:floatingip"):
        effects.bump_dhcp(tx, network_id)
    for row in rows:
        tx.notify(context, "port.delete.end", standard.PUBLISHER, {"port_id": row.id, "port": {"id": row.id}})


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
