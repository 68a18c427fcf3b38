"""Who must look again?  Called in the transaction of each change that an agent has to act on.

A binding's generation tells an agent's report of the old intent from one of the new.  It grows here and nowhere
else: a port's when it is bound (``bind``), DHCP's with whatever dnsmasq must know (``bump_dhcp``), a router's
with gateway, interfaces, floating IPs, routes and address scopes (``bump_router``).  Addresses, rules and members
need no generation: the L2 agent reads them as part of its one document, and is only hinted.
"""

from collections.abc import Collection, Iterable
from typing import Any

import sqlalchemy as sa

from cumulet.core.among import among
from cumulet.core.db import Transaction
from cumulet.neutron.tables import (
    dhcp_bindings,
    port_bindings,
    port_groups,
    ports,
    router_bindings,
    routers,
    security_group_rules,
    subnets,
)

BINDINGS = "neutron.bindings"
_HOSTS_OF_NETWORK = (
    sa.select(port_bindings.c.host)
    .join(ports, ports.c.id == port_bindings.c.port_id)
    .where(ports.c.network_id == sa.bindparam("network"))
    .distinct()
)
_OF_PORT = sa.select(port_bindings).where(port_bindings.c.port_id == sa.bindparam("port"))
_RULES = security_group_rules.c
_HAVING = (
    sa.select(port_bindings.c.host).join(port_groups, port_groups.c.port_id == port_bindings.c.port_id).distinct()
)
"""The hosts that wire a port with a certain group."""
_HEEDING = _HAVING.join(
    security_group_rules, _RULES.security_group_id == port_groups.c.security_group_id
).where(among(_RULES.remote_group_id, "groups"))  # fmt: skip
_USING = _HAVING.where(among(port_groups.c.security_group_id, "groups"))
_SERVING = sa.and_(dhcp_bindings.c.network_id == sa.bindparam("network"), dhcp_bindings.c.wanted == "run")
_BUMP_DHCP = sa.update(dhcp_bindings).where(_SERVING).values(generation=dhcp_bindings.c.generation + 1)
_DHCP_HOSTS = sa.select(dhcp_bindings.c.host).where(_SERVING)


def bind(tx: Transaction, port_id: str, network_id: str, host: str) -> bool:
    """Let ``host`` wire the port, and no other; whether that is new.

    Hosts that had none of the network's ports become tunnel peers of those that have: all of them look again.
    """
    before = tx.all(_OF_PORT, {"port": port_id})
    if [row.host for row in before] == [host]:
        return False
    peers = {row.host for row in tx.all(_HOSTS_OF_NETWORK, {"network": network_id})}
    generation = max((row.generation for row in before), default=0) + 1
    if before:
        unbind(tx, port_id)
    tx.write(port_bindings.insert(), {"port_id": port_id, "host": host, "generation": generation})
    tx.hint(f"neutron.ports.{host}", port_id)
    if host not in peers:
        _hint_all(tx, peers)
    return True


def bind_also(tx: Transaction, port_id: str, network_id: str, host: str) -> None:
    """Let ``host`` wire the port too, until ``activate`` says which one stays."""
    before = tx.all(_OF_PORT, {"port": port_id})
    if host in {row.host for row in before}:
        return
    peers = {row.host for row in tx.all(_HOSTS_OF_NETWORK, {"network": network_id})}
    generation = max((row.generation for row in before), default=0) + 1
    row = {"port_id": port_id, "host": host, "generation": generation, "active": not before}
    tx.write(port_bindings.insert(), row)
    tx.hint(f"neutron.ports.{host}", port_id)
    _hint_all(tx, peers - {host})


def activate(tx: Transaction, port_id: str, network_id: str, host: str, leaving: str) -> None:
    """From now on ``host`` wires the port instead of ``leaving``; what it has wired already stays as it is.

    So does what a third host has wired: the server may be on its way there already.
    """
    bind_also(tx, port_id, network_id, host)
    hint_port(tx, port_id)
    mine, here = port_bindings.c.port_id == port_id, port_bindings.c.host == host
    tx.write(sa.delete(port_bindings).where(mine, port_bindings.c.host == leaving))
    tx.write(sa.update(port_bindings).where(mine, here, sa.not_(port_bindings.c.active)).values(active=True))


def unbind(tx: Transaction, port_id: str) -> None:
    """No host wires the port any more; those that did look again."""
    hint_port(tx, port_id)
    tx.write(sa.delete(port_bindings).where(port_bindings.c.port_id == port_id))


def rewire(tx: Transaction, port_id: str) -> None:
    """What the wiring is made of (the MAC) changed."""
    tx.write(
        sa.update(port_bindings)
        .where(port_bindings.c.port_id == port_id)
        .values(generation=port_bindings.c.generation + 1)
    )
    hint_port(tx, port_id)


def hint_port(tx: Transaction, port_id: str) -> None:
    for row in tx.all(_OF_PORT, {"port": port_id}):
        tx.hint(f"neutron.ports.{row.host}", port_id)


def hint_network(tx: Transaction, network_id: str) -> None:
    """Every host that wires a port of the network."""
    _hint_all(tx, {row.host for row in tx.all(_HOSTS_OF_NETWORK, {"network": network_id})})


def hint_members(tx: Transaction, group_ids: Collection[str]) -> None:
    """The addresses of these groups changed: hosts with a port whose rules name one of them as remote."""
    _hint_hosts(tx, _HEEDING, group_ids)


def hint_users(tx: Transaction, group_ids: Collection[str]) -> None:
    """The rules of these groups changed: hosts with a port that has one of them."""
    _hint_hosts(tx, _USING, group_ids)


def _hint_hosts(tx: Transaction, statement: sa.Select[Any], group_ids: Collection[str]) -> None:
    if group_ids:
        _hint_all(tx, {row.host for row in tx.all(statement, {"groups": sorted(group_ids)})})


def _hint_all(tx: Transaction, hosts: Iterable[str]) -> None:
    """Something that more hosts than a port's own have to know."""
    for host in hosts:
        tx.hint(f"neutron.ports.{host}", "*")


def bump_dhcp(tx: Transaction, network_id: str) -> None:
    """What the network's DHCP server has to know changed."""
    if tx.write(_BUMP_DHCP, {"network": network_id}):
        for row in tx.all(_DHCP_HOSTS, {"network": network_id}):
            tx.hint(f"neutron.dhcp.{row.host}", network_id)


def bump_router(tx: Transaction, router_id: str) -> int:
    """What the router has to be changed; the generation at which it is so."""
    mine = sa.and_(router_bindings.c.router_id == router_id, router_bindings.c.wanted == "run")
    if not tx.write(sa.update(router_bindings).where(mine).values(generation=router_bindings.c.generation + 1)):
        tx.hint(BINDINGS, router_id)
        return 1
    rows = tx.all(sa.select(router_bindings.c.host, router_bindings.c.generation).where(mine))
    for row in rows:
        tx.hint(f"neutron.routers.{row.host}", router_id)
    return max(int(row.generation) for row in rows)


def bump_routers_of_network(tx: Transaction, network_id: str) -> None:
    """A subnet of the network changed: the routers that stand in it."""
    owned = sa.select(ports.c.device_id).where(
        ports.c.network_id == network_id, ports.c.device_owner.like("network:router%")
    )
    for row in tx.all(sa.select(routers.c.id).where(routers.c.id.in_(owned))):
        bump_router(tx, row.id)


def bump_routers_of_pool(tx: Transaction, pool_id: str) -> None:
    """The address scope of the pool's subnets changed: the routers that stand in their networks."""
    for row in tx.all(sa.select(subnets.c.network_id).where(subnets.c.subnetpool_id == pool_id).distinct()):
        bump_routers_of_network(tx, row.network_id)
