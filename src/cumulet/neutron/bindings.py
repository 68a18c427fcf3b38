"""Which host serves a network with DHCP, and which one is a router?

A binding is given to the live agent with the least of them, in the transaction that makes the need.  If no
agent lives then, the loop ``bindings`` (``failover``) gives it later; until then nothing is wrong but that nobody
serves.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any
from uuid import NAMESPACE_DNS, uuid5

import sqlalchemy as sa
from sqlalchemy.engine import Row

from cumulet.core import clock
from cumulet.core.config import Config
from cumulet.core.db import Transaction
from cumulet.core.errors import Retry
from cumulet.core.tables import agents
from cumulet.neutron import addresses, effects, port_rows, standard
from cumulet.neutron.addresses import Wish
from cumulet.neutron.port_rows import PORTS, NewPort
from cumulet.neutron.tables import dhcp_bindings, floatingips, networks, ports, router_bindings

DHCP_AGENT, L3_AGENT, L2_AGENT = "neutron-dhcp-agent", "neutron-l3-agent", "neutron-openvswitch-agent"
METADATA_AGENT = "neutron-metadata-agent"


def choose_host(alive: Sequence[str], load: Mapping[str, int]) -> str | None:
    """The host with the fewest bindings, the first by name among equals."""
    return min(alive, key=lambda host: (load.get(host, 0), host), default=None)


def lock(tx: Transaction, table: sa.Table, key: str) -> int:
    """Let nobody else give the same thing to another host: the row stays ours until the end."""
    return tx.write(sa.update(table).where(table.c.id == key).values(revision_number=table.c.revision_number))


def find_host(
    tx: Transaction, config: Config, binary: str, table: sa.Table, besides: Collection[str] = ()
) -> str | None:
    """A host whose ``binary`` is alive and enabled; ``table`` holds the bindings that count."""
    since = clock.later(-config.agents.down_seconds)
    alive = tx.all(
        sa.select(agents.c.host).where(
            agents.c.binary == binary, agents.c.enabled.is_(True), agents.c.seen_at >= since
        )
    )
    load = tx.all(
        sa.select(table.c.host, sa.func.count().label("bindings"))
        .where(table.c.wanted == "run")
        .group_by(table.c.host)
    )
    return choose_host(
        [row.host for row in alive if row.host not in besides], {row.host: row.bindings for row in load}
    )


_RUN_DHCP = sa.select(dhcp_bindings).where(
    dhcp_bindings.c.network_id == sa.bindparam("network"), dhcp_bindings.c.wanted == "run"
)


# ── DHCP ─────────────────────────────────────────────────────────────────────────────────────────────────────


def ensure_dhcp(tx: Transaction, config: Config, network_id: str) -> bool:
    """Make the network's DHCP binding and port fit its subnets; False if no agent lives that could take it."""
    served = [subnet for subnet in addresses.subnets_of(tx, network_id) if subnet.dhcp]
    bindings = tx.all(_RUN_DHCP, {"network": network_id})
    if not served:
        for binding in bindings:
            end_dhcp(tx, binding)
        return True
    if bindings:
        used = [binding.port_id for binding in bindings]
        for port in tx.all(PORTS.where(ports.c.id.in_(used))):
            _fit_dhcp_port(tx, port, served)
        effects.bump_dhcp(tx, network_id)
        return True
    if lock(tx, networks, network_id) and tx.find(_RUN_DHCP, {"network": network_id}):
        raise Retry("somebody else has just given the network to a host")
    host = find_host(tx, config, DHCP_AGENT, dhcp_bindings)
    if host is None:
        tx.hint(effects.BINDINGS, network_id)
        return False
    begin_dhcp(tx, network_id, host)
    return True


def _end(tx: Transaction, table: sa.Table, key: sa.Column[str], binding: Row[Any]) -> None:
    """Leave a tombstone of the binding; Retry if somebody else has ended it, or given it back, meanwhile."""
    same = sa.and_(key == binding._mapping[key.name], table.c.host == binding.host)
    statement = sa.update(table).where(same, table.c.wanted == binding.wanted)
    if not tx.write(statement.values(wanted="absent", generation=table.c.generation + 1)):
        raise Retry(f"the binding to {binding.host} was changed by somebody else")


def end_dhcp(tx: Transaction, binding: Row[Any]) -> None:
    """Let a host stop serving: its port goes, a tombstone stays until the agent has obeyed."""
    port_rows.delete_port_rows(tx, standard.system_context(), tx.all(PORTS.where(ports.c.id == binding.port_id)))
    _end(tx, dhcp_bindings, dhcp_bindings.c.network_id, binding)
    tx.hint(f"neutron.dhcp.{binding.host}", binding.network_id)


def move_dhcp(tx: Transaction, binding: Row[Any], host: str) -> None:
    """Let ``host`` serve in another's place.  The port goes with it: servers know its addresses."""
    _end(tx, dhcp_bindings, dhcp_bindings.c.network_id, binding)
    tx.hint(f"neutron.dhcp.{binding.host}", binding.network_id)
    device = {"device_id": _device_id(host, binding.network_id)}
    tx.write(sa.update(ports).where(ports.c.id == binding.port_id).values(**device))
    effects.bind(tx, binding.port_id, binding.network_id, host)
    _begin(tx, dhcp_bindings, {"network_id": binding.network_id, "host": host}, {"port_id": binding.port_id})
    tx.hint(f"neutron.dhcp.{host}", binding.network_id)


def _device_id(host: str, network_id: str) -> str:
    return f"dhcp{uuid5(NAMESPACE_DNS, host)}-{network_id}"


def begin_dhcp(tx: Transaction, network_id: str, host: str) -> None:
    """Let ``host`` serve the network's subnets, by a port of its own."""
    served = [subnet for subnet in addresses.subnets_of(tx, network_id) if subnet.dhcp]
    network = tx.find(sa.select(networks).where(networks.c.id == network_id))
    assert network is not None
    values = {
        "device_owner": "network:dhcp",
        "device_id": _device_id(host, network_id),
        "port_security": False,
    }
    wishes = [Wish(subnet.id) for subnet in served]
    port_id = port_rows.create_port_row(tx, NewPort(network, network.project_id, values, wishes, host=host))
    _begin(tx, dhcp_bindings, {"network_id": network_id, "host": host}, {"port_id": port_id})
    tx.hint(f"neutron.dhcp.{host}", network_id)


def _begin(tx: Transaction, table: sa.Table, key: dict[str, str], values: dict[str, Any]) -> int:
    """A binding of a host, new or risen from a tombstone; its generation."""
    mine = [table.c[name] == value for name, value in key.items()]
    before = tx.find(sa.select(table.c.generation).where(*mine))
    if before is None:
        tx.write(table.insert(), {**key, **values, "wanted": "run", "generation": 1})
        return 1
    generation: int = before.generation + 1
    tx.write(sa.update(table).where(*mine).values(**values, wanted="run", generation=generation))
    return generation


def _fit_dhcp_port(tx: Transaction, port: Row[Any], served: Sequence[Row[Any]]) -> None:
    wishes = [Wish(subnet.id) for subnet in served]
    port_rows.set_addresses(tx, port, wishes, served)


# ── routers ──────────────────────────────────────────────────────────────────────────────────────────────────


def ensure_router(tx: Transaction, config: Config, router_id: str) -> str:
    """The host of a router, given now if it has none; empty if no agent lives that could take it."""
    binding = tx.find(
        sa.select(router_bindings).where(
            router_bindings.c.router_id == router_id, router_bindings.c.wanted == "run"
        )
    )
    if binding:
        return str(binding.host)
    host = find_host(tx, config, L3_AGENT, router_bindings)
    if host is None:
        tx.hint(effects.BINDINGS, router_id)
        return ""
    begin_router(tx, router_id, host)
    return host


def begin_router(tx: Transaction, router_id: str, host: str) -> None:
    """Let ``host`` be the router; its floating IPs are in place when this host has said so."""
    generation = _begin(tx, router_bindings, {"router_id": router_id, "host": host}, {})
    tx.write(
        sa.update(floatingips)
        .where(floatingips.c.router_id == router_id)
        .values(generation=generation, seen_generation=0)
    )
    for port in tx.all(PORTS.where(ports.c.device_id == router_id, ports.c.device_owner.like("network:router%"))):
        effects.bind(tx, port.id, port.network_id, host)
    tx.hint(f"neutron.routers.{host}", router_id)


def end_router(tx: Transaction, router_id: str) -> None:
    """No host is the router any more: tombstones for those that still have it; its floating IPs are nowhere."""
    tx.write(sa.update(floatingips).where(floatingips.c.router_id == router_id).values(seen_generation=0))
    for binding in tx.all(sa.select(router_bindings).where(router_bindings.c.router_id == router_id)):
        _end(tx, router_bindings, router_bindings.c.router_id, binding)
        tx.hint(f"neutron.routers.{binding.host}", router_id)
