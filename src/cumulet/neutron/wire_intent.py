"""What the L2 agent of one host has to know: one document, a constant number of queries."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from cumulet.core.db import Transaction
from cumulet.core.tables import agents
from cumulet.neutron import ipam
from cumulet.neutron.bindings import L2_AGENT
from cumulet.neutron.model import Rule, Segment, WireIntent, WirePort
from cumulet.neutron.standard import grouped
from cumulet.neutron.tables import (
    networks,
    port_addresses,
    port_bindings,
    port_groups,
    port_pairs,
    ports,
    security_group_rules,
)

SEPARATOR, BETWEEN = "\n", "\t"
"""In texts that the database makes of many rows; no name of a host and no address has one in it."""

# Statements about the host ``:host``; those with IN take a subquery, not a list of any length.
_BOUND = sa.select(port_bindings.c.port_id).where(port_bindings.c.host == sa.bindparam("host"))
_NETWORKS = sa.select(ports.c.network_id).where(ports.c.id.in_(_BOUND))
_GROUPS = sa.select(port_groups.c.security_group_id).where(port_groups.c.port_id.in_(_BOUND))
_REMOTE = sa.select(security_group_rules.c.remote_group_id).where(
    security_group_rules.c.security_group_id.in_(_GROUPS), security_group_rules.c.remote_group_id.is_not(None)
)

PORTS = (
    sa.select(ports, *(port_bindings.c[name] for name in ("generation", "wired_generation", "wired_in", "active")))
    .join(port_bindings, port_bindings.c.port_id == ports.c.id)
    .where(port_bindings.c.host == sa.bindparam("host"))
    .order_by(ports.c.id)
)
ADDRESSES = (
    sa.select(port_addresses.c.port_id, port_addresses.c.ip)
    .where(port_addresses.c.port_id.in_(_BOUND))
    .order_by(port_addresses.c.position)
)
PAIRS = (
    sa.select(port_pairs).where(port_pairs.c.port_id.in_(_BOUND)).order_by(port_pairs.c.prefix, port_pairs.c.mac)
)
PORT_GROUPS = (
    sa.select(port_groups).where(port_groups.c.port_id.in_(_BOUND)).order_by(port_groups.c.security_group_id)
)
SEGMENTS = sa.select(networks).where(networks.c.id.in_(_NETWORKS))
_HOSTS = (
    sa.select(ports.c.network_id, port_bindings.c.host)
    .join(port_bindings, port_bindings.c.port_id == ports.c.id)
    .where(ports.c.network_id.in_(_NETWORKS), port_bindings.c.host != sa.bindparam("host"))
    .distinct()
    .subquery()
)
# What may be thousands of rows for one document comes as one text for each network or group, made by the database.
PEERS = sa.select(_HOSTS.c.network_id, sa.func.aggregate_strings(_HOSTS.c.host, SEPARATOR).label("hosts")).group_by(
    _HOSTS.c.network_id
)
_END = agents.c.details["tunnel_address"].as_string()
TUNNELS = sa.select(sa.func.aggregate_strings(agents.c.host + BETWEEN + _END, SEPARATOR)).where(
    agents.c.binary == L2_AGENT
)
RULES = (
    sa.select(security_group_rules)
    .where(security_group_rules.c.security_group_id.in_(_GROUPS))
    .order_by(security_group_rules.c.id)
)
MEMBERS = (
    sa.select(
        port_groups.c.security_group_id, sa.func.aggregate_strings(port_addresses.c.ip, SEPARATOR).label("ips")
    )
    .group_by(port_groups.c.security_group_id)
    .join(port_addresses, port_addresses.c.port_id == port_groups.c.port_id)
    .where(port_groups.c.security_group_id.in_(_REMOTE))
)
MEMBER_PAIRS = (
    sa.select(port_groups.c.security_group_id, port_pairs.c.prefix)
    .join(port_pairs, port_pairs.c.port_id == port_groups.c.port_id)
    .where(port_groups.c.security_group_id.in_(_REMOTE))
)


def tunnel_ends(tx: Transaction) -> str:
    """Where the tunnels of all hosts end, to be given to ``wire_intent``; the same text as long as they do."""
    return tx.value(TUNNELS) or ""


def wire_intent(tx: Transaction, host: str, tunnels: str, cloud: str) -> WireIntent:
    """The ports of ``host`` with all that wiring them takes: out of tables of one stamp, and what is given."""
    here = {"host": host}
    rows = tx.all(PORTS, here)
    if not rows:
        return WireIntent(cloud=cloud)
    ips, pairs = grouped(tx.all(ADDRESSES, here), "port_id"), grouped(tx.all(PAIRS, here), "port_id")
    groups = grouped(tx.all(PORT_GROUPS, here), "port_id")
    rules = grouped(tx.all(RULES, here), "security_group_id")
    return WireIntent(
        ports=tuple(_port(row, ips, pairs, groups) for row in rows),
        segments=_segments(tx, here, _by_host(tunnels)),
        rules={group: tuple(_rule(rule) for rule in found) for group, found in sorted(rules.items())}
        | {
            row.security_group_id: ()
            for found in groups.values()
            for row in found
            if row.security_group_id not in rules
        },
        cloud=cloud,
        members=_members(tx, here, {rule.remote_group_id for found in rules.values() for rule in found}),
    )


Rows = dict[str, list[Row[Any]]]


def _port(row: Row[Any], ips: Rows, pairs: Rows, groups: Rows) -> WirePort:
    return WirePort(
        id=row.id,
        network_id=row.network_id,
        mac=row.mac,
        ips=tuple(address.ip for address in ips.get(row.id, ())),
        device_owner=row.device_owner,
        generation=row.generation,
        wired_generation=row.wired_generation,
        wired_in=row.wired_in or "",
        admin_up=row.admin_up,
        port_security=row.port_security,
        allowed_pairs=tuple((pair.mac, pair.prefix) for pair in pairs.get(row.id, ())),
        security_groups=tuple(group.security_group_id for group in groups.get(row.id, ())),
        active=row.active,
    )


def _segments(tx: Transaction, here: dict[str, str], tunnels: Mapping[str, str]) -> dict[str, Segment]:
    peers = {row.network_id: row.hosts.split(SEPARATOR) for row in tx.all(PEERS, here)}
    return {
        row.id: Segment(
            network_id=row.id,
            kind=row.kind,
            mtu=row.mtu,
            segmentation_id=row.segmentation_id,
            physical_network=row.physical_network,
            peers=_ends(peers.get(row.id, ()), tunnels) if row.kind == "vxlan" else (),
        )
        for row in sorted(tx.all(SEGMENTS, here), key=lambda row: str(row.id))
    }


@lru_cache(2)
def _by_host(tunnels: str) -> Mapping[str, str]:
    """The same text is read for each host's document."""
    return dict(pair.split(BETWEEN, 1) for pair in tunnels.split(SEPARATOR)) if tunnels else {}


def _ends(peers: Iterable[str], tunnels: Mapping[str, str]) -> tuple[str, ...]:
    """Where the tunnels of these hosts end; some have none yet."""
    return tuple(sorted(set(filter(None, map(tunnels.get, peers)))))


def _rule(row: Row[Any]) -> Rule:
    return Rule(
        direction=row.direction,
        ip_version=4 if row.ethertype == "IPv4" else 6,
        protocol=row.protocol_number,
        port_min=row.port_min,
        port_max=row.port_max,
        remote_prefix=row.remote_prefix or "",
        remote_group=row.remote_group_id or "",
    )


def _members(tx: Transaction, here: dict[str, str], remote: set[str | None]) -> dict[str, tuple[str, ...]]:
    """The addresses of each group that a rule names; an empty one is empty, which lets nobody in."""
    found: dict[str, set[str]] = {group: set() for group in remote if group}
    if not found:
        return {}
    for row in tx.all(MEMBERS, here):
        found.setdefault(row.security_group_id, set()).update(row.ips.split(SEPARATOR))
    for row in tx.all(MEMBER_PAIRS, here):
        found.setdefault(row.security_group_id, set()).add(ipam.bare(row.prefix))
    return {group: tuple(sorted(ips)) for group, ips in sorted(found.items())}
