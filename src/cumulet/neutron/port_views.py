"""Ports as the API shows them."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from cumulet.core.db import Transaction
from cumulet.core.http import Request
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


def port_views(tx: Transaction, request: Request, rows: Sequence[Row[Any]]) -> list[Json]:
    """Rows of ``port_rows.PORTS`` as documents: one query per table, however many."""
    ids = [row.id for row in rows]
    places = sa.select(port_addresses).order_by(port_addresses.c.position)
    names = sa.select(networks.c.id, networks.c.dns_domain)
    addresses = standard.related(tx, places, port_addresses.c.port_id, ids)
    groups = standard.related(tx, sa.select(port_groups), port_groups.c.port_id, ids)
    pairs = standard.related(tx, sa.select(port_pairs), port_pairs.c.port_id, ids)
    domains = standard.related(tx, names, networks.c.id, [row.network_id for row in rows])
    shown = [name for name in PRIVATE if request.allows(f"get_port:{name}", {})]
    wiring = _wiring_hosts(tx) if shown else set()
    return [
        {
            **_view(row, addresses.get(row.id, ()), groups.get(row.id, ()), pairs.get(row.id, ())),
            "dns_assignment": _names(row, addresses.get(row.id, ()), _domain(request, domains[row.network_id][0])),
            **{name: value for name, value in _binding(row, wiring).items() if name in shown},
        }
        for row in rows
    ]


def _view(row: Any, addresses: Sequence[Any], groups: Sequence[Any], pairs: Sequence[Any]) -> Json:
    return {
        **standard.standard_view(row),
        "network_id": row.network_id,
        "mac_address": row.mac,
        "admin_state_up": row.admin_up,
        "status": status(row),
        "device_id": row.device_id,
        "device_owner": row.device_owner,
        "fixed_ips": [{"subnet_id": address.subnet_id, "ip_address": address.ip} for address in addresses],
        "security_groups": sorted(group.security_group_id for group in groups),
        "port_security_enabled": row.port_security,
        "allowed_address_pairs": [
            {"ip_address": ipam.bare(pair.prefix), "mac_address": pair.mac} for pair in pairs
        ],
        "extra_dhcp_opts": row.dhcp_options,
        "dns_name": row.dns_name,
        "binding:vnic_type": row.vnic_type,
    }


def _names(row: Any, addresses: Sequence[Any], domain: str) -> list[Json]:
    found = []
    for address in addresses:
        host = host_of(row.dns_name, address.ip)
        found.append({"ip_address": address.ip, "hostname": host, "fqdn": f"{host}.{domain}."})
    return found


def _domain(request: Request, network: Any) -> str:
    return network.dns_domain.rstrip(".") or request.config.network.dns_domain


def _binding(row: Any, wiring: set[str]) -> Json:
    kind = "unbound" if row.host is None else "ovs" if row.host in wiring else "binding_failed"
    return {
        "binding:host_id": row.host or "",
        "binding:profile": row.profile,
        "binding:vif_type": kind,
        "binding:vif_details": VIF_DETAILS if kind == "ovs" else {},
    }


def _wiring_hosts(tx: Transaction) -> set[str]:
    return {row.host for row in tx.all(sa.select(agents.c.host).where(agents.c.binary == L2_AGENT))}
