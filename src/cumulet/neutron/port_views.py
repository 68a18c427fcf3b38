"""Ports as the API shows them."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Row

from cumulet.core import schema
from cumulet.core.db import Transaction
from cumulet.core.http import Request
from cumulet.core.made import Made
from cumulet.core.tables import agents
from cumulet.neutron import ipam, standard
from cumulet.neutron.bindings import L2_AGENT
from cumulet.neutron.dhcp_intent import host_of
from cumulet.neutron.port_status import status
from cumulet.neutron.standard import Json
from cumulet.neutron.tables import networks, port_addresses, port_groups, port_pairs

PRIVATE = ("binding:vif_type", "binding:vif_details", "binding:host_id", "binding:profile")
VIF_DETAILS = {
    "connectivity": "l2",
    "port_filter": True,
    "ovs_hybrid_plug": False,
    "datapath_type": "system",
    "bridge_name": "br-int",
}


_ADDRESSES = sa.select(port_addresses.c.port_id, port_addresses.c.ip, port_addresses.c.subnet_id).order_by(
    port_addresses.c.position
)
_GROUPS = sa.select(port_groups.c.port_id, port_groups.c.security_group_id)
_PAIRS = sa.select(port_pairs.c.port_id, port_pairs.c.prefix, port_pairs.c.mac)
_PARTS = (_ADDRESSES, _GROUPS, _PAIRS)
_DOMAINS = sa.select(networks.c.id, networks.c.dns_domain)
_WIRING_HOSTS = sa.select(agents.c.host).where(agents.c.binary == L2_AGENT)
Part = tuple[Any, ...]


def port_views(tx: Transaction, request: Request, rows: Sequence[Row[Any]]) -> list[Json]:
    """Rows of ``port_rows.PORTS`` as documents: one query per table, however many."""
    return [_view(*given) for given in _gathered(tx, request, rows)]


def port_lines(tx: Transaction, request: Request, rows: Sequence[Row[Any]]) -> list[msgspec.Raw]:
    """The same as JSON, for lists."""
    return [_lines.of((row.id, shown), row, *given, shown) for row, *given, shown in _gathered(tx, request, rows)]


def _gathered(tx: Transaction, request: Request, rows: Sequence[Row[Any]]) -> Iterator[tuple[Any, ...]]:
    """What each port's document is made from."""
    ids = [row.id for row in rows]
    theirs = [standard.parts(tx, part, part.selected_columns.port_id, ids) for part in _PARTS]
    domains = standard.parts(tx, _DOMAINS, networks.c.id, [row.network_id for row in rows])
    shown = tuple(name for name in PRIVATE if request.allows(f"get_port:{name}", {}))
    wiring = {row.host for row in tx.all(_WIRING_HOSTS)} if shown else set()
    for row in rows:
        domain = domains[row.network_id][0][0].rstrip(".") or request.config.network.dns_domain
        yield row, *[found.get(row.id, ()) for found in theirs], domain, row.host in wiring, shown


def _view(
    row: Any,
    addresses: Sequence[Part],
    groups: Sequence[Part],
    pairs: Sequence[Part],
    domain: str,
    wiring: bool,
    shown: Collection[str],
) -> Json:
    binding = _binding(row, wiring)
    return {
        **standard.standard_view(row),
        "network_id": row.network_id,
        "mac_address": row.mac,
        "admin_state_up": row.admin_up,
        "status": status(row),
        "device_id": row.device_id,
        "device_owner": row.device_owner,
        "fixed_ips": [{"subnet_id": subnet_id, "ip_address": ip} for ip, subnet_id in addresses],
        "security_groups": sorted(group for (group,) in groups),
        "port_security_enabled": row.port_security,
        "allowed_address_pairs": [{"ip_address": ipam.bare(prefix), "mac_address": mac} for prefix, mac in pairs],
        "extra_dhcp_opts": row.dhcp_options,
        "dns_name": row.dns_name,
        "binding:vnic_type": row.vnic_type,
        "dns_assignment": _names(row, addresses, domain),
        **{name: binding[name] for name in shown},
    }


def _line(*given: Any) -> msgspec.Raw:
    return msgspec.Raw(schema.encode(_view(*given)))


_lines = Made(_line)


def _names(row: Any, addresses: Sequence[Part], domain: str) -> list[Json]:
    found = []
    for ip, _ in addresses:
        host = host_of(row.dns_name, ip)
        found.append({"ip_address": ip, "hostname": host, "fqdn": f"{host}.{domain}."})
    return found


def _binding(row: Any, wiring: bool) -> Json:
    kind = "unbound" if row.host is None else "ovs" if wiring else "binding_failed"
    return {
        "binding:host_id": row.host or "",
        "binding:profile": row.profile,
        "binding:vif_type": kind,
        "binding:vif_details": VIF_DETAILS if kind == "ovs" else {},
    }
