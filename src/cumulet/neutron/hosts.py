"""neutron-server for agents: the intent of their host to read, what they have seen to write.

A host reads and writes only what is bound to it: the path's host is the caller (``core.http``), and each
statement names it.  Reports that come twice, late or for things that are gone change nothing.
"""

import time
import zlib
from typing import Any

import sqlalchemy as sa

from cumulet.core import clock
from cumulet.core.controller import etag_of, etagged
from cumulet.core.db import Transaction
from cumulet.core.facts import find_cloud_id
from cumulet.core.http import Reply, Request, Route
from cumulet.core.policy import HOST
from cumulet.core.schema import encode
from cumulet.core.stamps import Memory
from cumulet.neutron import ipam
from cumulet.neutron.dhcp_intent import dhcp_intents
from cumulet.neutron.model import DhcpSeen, Owner, RouterSeen, WireSeen
from cumulet.neutron.router_intent import INTERFACE, router_intents
from cumulet.neutron.tables import (
    STAMP,
    dhcp_bindings,
    floatingips,
    port_addresses,
    port_bindings,
    ports,
    router_bindings,
)
from cumulet.neutron.wire_intent import tunnel_ends, wire_intent

ERA_SECONDS = 300
_SENT: Memory[str] = Memory(STAMP, most=10_000)
"""The ETags of wiring documents, by host and by what is in them that has no stamp."""


def get_wire_intent(request: Request) -> Reply:
    """Who asks to be sure, and has the document as it is, costs no more than to see that nothing has changed."""
    host, made = request.params["host"], list[bytes]()
    with request.db.read() as tx:
        tunnels, cloud = tunnel_ends(tx), find_cloud_id(tx)

        def make() -> str:
            made.append(encode(wire_intent(tx, host, tunnels, cloud)))
            return etag_of(made[0])

        etag = _SENT.recall(tx, (host, cloud, etag_of(tunnels.encode()), _era(host)), make)
        if etag and request.headers.get("if-none-match") == etag:
            return Reply(None, 304, {"ETag": etag})
        if not made:
            make()
    return Reply(made[0], 200, {"ETag": etag_of(made[0])})


def _era(host: str) -> int:
    """Another number every so often, at another time for each host.

    A controller of the version before changes the tables without the stamp, and may do so while both run.
    """
    return int(time.monotonic() + zlib.crc32(host.encode()) % ERA_SECONDS) // ERA_SECONDS


def report_wired(request: Request) -> None:
    """Ports that are wired, at which generation; 0 for those whose device is not there."""
    seen: WireSeen = request.body
    with request.db.transaction() as tx:
        changed = [
            port_id
            for port_id in _bound(tx, port_bindings, port_bindings.c.port_id, request) & seen.wired.keys()
            if _write_wired(tx, request.params["host"], port_id, seen.wired[port_id], seen.boot_id or None)
        ]
        statement = sa.select(ports.c.server_id).where(ports.c.id.in_(changed), ports.c.server_id.is_not(None))
        for row in tx.all(statement.distinct()) if changed else ():
            tx.hint(f"nova.hosts.{request.params['host']}", row.server_id)


def _bound(tx: Transaction, table: sa.Table, key: sa.Column[str], request: Request) -> set[str]:
    """What is bound to the host: a report of anything else, however long, costs nothing."""
    return {row[0] for row in tx.all(sa.select(key).where(table.c.host == request.params["host"]))}


def _write_wired(tx: Transaction, host: str, port_id: str, generation: int, boot_id: str | None) -> bool:
    bound = port_bindings
    known = bound.c.wired_in.is_not_distinct_from(boot_id)
    statement = (
        sa.update(bound)
        .where(
            bound.c.port_id == port_id,
            bound.c.host == host,
            bound.c.generation >= generation,
            sa.or_(bound.c.wired_generation != generation, bound.c.wired_at.is_(None), sa.not_(known)),
        )
        .values(wired_generation=generation, wired_at=clock.now(), wired_in=boot_id)
    )
    return bool(tx.write(statement))


def get_dhcp_intents(request: Request) -> Reply:
    with request.db.read() as tx:
        return etagged(request, dhcp_intents(tx, request.params["host"], request.config.network.dns_domain))


def report_dhcp(request: Request) -> None:
    """What DHCP servers run; a tombstone that was obeyed goes."""
    seen: dict[str, DhcpSeen] = request.body
    with request.db.transaction() as tx:
        for network_id in _bound(tx, dhcp_bindings, dhcp_bindings.c.network_id, request) & seen.keys():
            mine = dhcp_bindings.c.network_id == network_id
            _write_seen(tx, dhcp_bindings, mine, request.params["host"], seen[network_id])


def get_router_intents(request: Request) -> Reply:
    with request.db.read() as tx:
        return etagged(request, router_intents(tx, request.params["host"]))


def report_routers(request: Request) -> None:
    """What routers run with which floating IPs; a tombstone that was obeyed goes."""
    seen: dict[str, RouterSeen] = request.body
    with request.db.transaction() as tx:
        for router_id in _bound(tx, router_bindings, router_bindings.c.router_id, request) & seen.keys():
            mine = router_bindings.c.router_id == router_id
            runs = sa.and_(
                mine, router_bindings.c.host == request.params["host"], router_bindings.c.wanted == "run"
            )
            known = _write_seen(tx, router_bindings, mine, request.params["host"], seen[router_id])
            if known and tx.find(sa.select(router_bindings.c.host).where(runs)):
                _write_floating(tx, router_id, seen[router_id])


def _write_seen(
    tx: Transaction, table: sa.Table, mine: sa.ColumnElement[bool], host: str, seen: DhcpSeen | RouterSeen
) -> bool:
    """Write what ``host`` has seen; whether it is bound to the host, and of a generation that exists."""
    mine = sa.and_(mine, table.c.host == host, table.c.generation >= seen.generation)
    if not seen.running and tx.write(
        sa.delete(table).where(mine, table.c.wanted == "absent", table.c.generation == seen.generation)
    ):
        return False
    values = {
        "seen_generation": seen.generation,
        "running": seen.running,
        "fault": seen.fault[:4000] or None,
        "seen_at": clock.now(),
    }
    return bool(tx.write(sa.update(table).where(mine).values(**values)))


def _write_floating(tx: Transaction, router_id: str, seen: RouterSeen) -> None:
    """Floating IPs of the router that are in place now, and those that no longer are."""
    here = floatingips.c.router_id == router_id
    in_place = floatingips.c.id.in_(seen.floating)
    tx.write(
        sa.update(floatingips)
        .where(here, in_place, floatingips.c.seen_generation != seen.generation)
        .values(seen_generation=seen.generation)
    )
    tx.write(
        sa.update(floatingips)
        .where(here, sa.not_(in_place), floatingips.c.seen_generation != 0)
        .values(seen_generation=0)
    )


def get_owner(request: Request) -> Owner:
    """Whose port has this address, seen from a network or router that the host serves; empty if nobody's.

    A link-local address is in no table: it follows from the port's MAC, and the L2 agent lets no other be used.
    """
    host, ip = request.params["host"], request.one("ip") or ""
    network_id, router_id = request.one("network") or "", request.one("router") or ""
    if network_id:
        served: sa.Select[Any] = sa.select(dhcp_bindings.c.network_id).where(
            dhcp_bindings.c.network_id == network_id, dhcp_bindings.c.host == host
        )
    else:
        behind = sa.select(router_bindings.c.router_id).where(
            router_bindings.c.router_id == router_id, router_bindings.c.host == host
        )
        served = sa.select(ports.c.network_id).where(
            ports.c.device_id.in_(behind), ports.c.device_owner == INTERFACE
        )
    statement = sa.select(ports.c.device_id, ports.c.project_id).where(
        ports.c.network_id.in_(served), ports.c.server_id.is_not(None)
    )
    if mac := ipam.mac_of(ip):
        statement = statement.where(ports.c.mac == mac)
    else:
        owners = sa.select(port_addresses.c.port_id).where(
            port_addresses.c.ip == ip, port_addresses.c.network_id.in_(served)
        )
        statement = statement.where(ports.c.id.in_(owners))
    with request.db.read() as tx:
        rows = tx.all(statement)
    return Owner(rows[0].device_id, rows[0].project_id) if len(rows) == 1 else Owner()


BASE = "/hosts/{host}"
ROUTES = [
    Route("GET", BASE + "/ports", get_wire_intent, HOST),
    Route("POST", BASE + "/ports", report_wired, HOST, 204, body=WireSeen),
    Route("GET", BASE + "/dhcp", get_dhcp_intents, HOST),
    Route("POST", BASE + "/dhcp", report_dhcp, HOST, 204, body=dict[str, DhcpSeen]),
    Route("GET", BASE + "/routers", get_router_intents, HOST),
    Route("POST", BASE + "/routers", report_routers, HOST, 204, body=dict[str, RouterSeen]),
    Route("GET", BASE + "/owner", get_owner, HOST),
]
