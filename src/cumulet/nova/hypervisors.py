"""``/os-hypervisors``: the compute hosts, what they have (their reports) and what is used of it (placement).

A hypervisor's id is that of its nova-compute, so the two lists can be joined by whoever reads them.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, NotFound
from cumulet.core.http import Json, Request, Route
from cumulet.core.tables import agents
from cumulet.nova import versions
from cumulet.nova.paging import PAGE, boolean, whole_number
from cumulet.nova.services import COMPUTE, is_up, list_agents
from cumulet.nova.tables import server_hosts, servers
from cumulet.placement import public as placement
from cumulet.placement.model import DISK_GB, MEMORY_MB, VCPU, Capacity, Inventory


@dataclass(frozen=True)
class Hosts:
    """Everything that the views need of all hosts, in three queries."""

    rows: list[Row[Any]]
    capacities: Mapping[str, Capacity]
    servers: Mapping[str, list[Json]]


def _look(tx: Transaction) -> Hosts:
    found: dict[str, list[Json]] = defaultdict(list)
    living = (
        sa.select(server_hosts.c.host, servers.c.id, servers.c.name)
        .join_from(server_hosts, servers)
        .where(servers.c.gone_at.is_(None))
        .order_by(servers.c.created_at, servers.c.id)
    )
    for row in tx.all(living):
        found[row.host].append({"name": row.name, "uuid": row.id})
    rows = list_agents(tx, agents.c.binary == COMPUTE)
    return Hosts(rows, {capacity.host: capacity for capacity in placement.list_capacity(tx)}, found)


def list_hypervisors(request: Request) -> Json:
    return _list(request, full=False)


def list_hypervisors_detail(request: Request) -> Json:
    return _list(request, full=True)


def _list(request: Request, *, full: bool) -> Json:
    versions.check_query("hypervisors", request)
    with request.db.read() as tx:
        hosts = _look(tx)
    chosen, more = _page(request, _matching(request, hosts.rows))
    document: Json = {"hypervisors": [_view(request, row, hosts, full=full) for row in chosen]}
    if more and request.version >= (2, 33):
        href = f"{request.app.endpoint}{request.path}?limit={len(chosen)}&marker={chosen[-1].id}"
        document["hypervisors_links"] = [{"rel": "next", "href": href}]
    return document


def _matching(request: Request, rows: list[Row[Any]]) -> list[Row[Any]]:
    pattern = request.one("hypervisor_hostname_pattern")
    if pattern is None or request.version < (2, 53):
        return rows
    if request.one("limit") or request.one("marker"):
        raise BadRequest(
            "Paging over hypervisors with the hypervisor_hostname_pattern query parameter is not supported."
        )
    found = [row for row in rows if pattern in row.host]
    if not found:
        raise NotFound(f"No hypervisor matching '{pattern[:300]}' could be found.")
    return found


def _page(request: Request, rows: list[Row[Any]]) -> tuple[list[Row[Any]], bool]:
    limit, marker = whole_number(request.one("limit"), "limit"), request.one("marker")
    if marker:
        places = [number for number, row in enumerate(rows) if row.id == marker]
        if not places:
            raise BadRequest(f"marker [{marker[:300]}] not found")
        rows = rows[places[0] + 1 :]
    most = min(limit or PAGE, PAGE)
    return rows[:most], len(rows) > most


def show_hypervisor(request: Request) -> Json:
    versions.check_query("hypervisor", request)
    row, hosts = _get(request)
    return {"hypervisor": _view(request, row, hosts, full=True)}


def show_uptime(request: Request) -> Json:
    row, hosts = _get(request)
    if not is_up(row, request.config):
        raise BadRequest(f"Compute service of {row.host} is unavailable at this time.")
    return {"hypervisor": {**_view(request, row, hosts, full=False), "uptime": row.details.get("uptime", "")}}


def search_hypervisors(request: Request) -> Json:
    rows, hosts = _named(request)
    return {"hypervisors": [_view(request, row, hosts, full=False) for row in rows]}


def list_hypervisors_servers(request: Request) -> Json:
    """Hypervisors by a part of their name, each with its servers if it has any."""
    rows, hosts = _named(request)
    found = []
    for row in rows:
        servers_there = {"servers": hosts.servers[row.host]} if hosts.servers.get(row.host) else {}
        found.append({**_view(request, row, hosts, full=False), **servers_there})
    return {"hypervisors": found}


def _get(request: Request) -> tuple[Row[Any], Hosts]:
    with request.db.read() as tx:
        hosts = _look(tx)
    for row in hosts.rows:
        if request.params["id"] in (row.id, str(versions.number(row.id)) if request.version < (2, 53) else row.id):
            return row, hosts
    raise NotFound(f"Hypervisor with ID '{request.params['id']}' could not be found.")


def _named(request: Request) -> tuple[list[Row[Any]], Hosts]:
    """Those whose name has the URL's word in it; NotFound if there is none."""
    with request.db.read() as tx:
        hosts = _look(tx)
    pattern = request.params["id"]
    rows = [row for row in hosts.rows if pattern in row.host]
    if not rows:
        raise NotFound(f"No hypervisor matching '{pattern[:300]}' could be found.")
    return rows, hosts


def show_statistics(request: Request) -> Json:
    """The sums over all hosts that are not disabled."""
    with request.db.read() as tx:
        hosts = _look(tx)
    totals: dict[str, int] = dict.fromkeys((*_statistics(None, 0), "count"), 0)
    for row in hosts.rows:
        if row.enabled:
            totals["count"] += 1
            for name, value in _statistics(hosts.capacities.get(row.host), len(hosts.servers[row.host])).items():
                totals[name] += value
    return {"hypervisor_statistics": totals}


def _statistics(capacity: Capacity | None, running: int) -> dict[str, int]:
    inventories = capacity.inventories if capacity else {}
    cpu, memory, disk = (inventories.get(name, Inventory(0)) for name in (VCPU, MEMORY_MB, DISK_GB))
    return {
        "vcpus": cpu.total,
        "memory_mb": memory.total,
        "local_gb": disk.total,
        "vcpus_used": cpu.used,
        "memory_mb_used": memory.used + memory.reserved,
        "local_gb_used": disk.used,
        "free_ram_mb": memory.total - memory.used - memory.reserved,
        "free_disk_gb": disk.total - disk.used,
        "current_workload": 0,
        "running_vms": running,
        "disk_available_least": disk.total - disk.used,
    }


def _view(request: Request, row: Row[Any], hosts: Hosts, *, full: bool) -> Json:
    up = is_up(row, request.config)
    document: Json = {
        "id": row.id,
        "hypervisor_hostname": row.host,
        "state": "up" if up else "down",
        "status": "enabled" if row.enabled else "disabled",
    }
    if full:
        document |= _details(row, hosts, up)
    asked = request.one("with_servers")
    if asked is not None and request.version >= (2, 53) and boolean(asked, "with_servers"):
        document["servers"] = hosts.servers.get(row.host, [])
    return versions.render("hypervisor", document, request.version)


def _details(row: Row[Any], hosts: Hosts, up: bool) -> Json:
    inventory = row.details.get("inventory") or {}
    capacity, running = hosts.capacities.get(row.host), len(hosts.servers.get(row.host, []))
    return {
        "hypervisor_type": "QEMU",
        "hypervisor_version": inventory.get("hypervisor_version", 0),
        "host_ip": inventory.get("address") or row.details.get("address") or "",
        "service": {"id": row.id, "host": row.host, "disabled_reason": row.disabled_reason},
        "uptime": row.details.get("uptime") if up else None,
        "cpu_info": {"model": inventory.get("cpu_model", ""), "arch": inventory.get("details", {}).get("arch", "")},
        **_statistics(capacity, running),
    }


POLICY = "os_compute_api:os-hypervisors:"
URL = "/v2.1/os-hypervisors"
ROUTES = (
    Route("GET", URL, list_hypervisors, POLICY + "list", also=(404,)),
    Route("GET", URL + "/detail", list_hypervisors_detail, POLICY + "list-detail", also=(404,)),
    Route("GET", URL + "/statistics", show_statistics, POLICY + "statistics", until=(2, 87)),
    Route("GET", URL + "/{id}", show_hypervisor, POLICY + "show"),
    Route("GET", URL + "/{id}/uptime", show_uptime, POLICY + "uptime", until=(2, 87)),
    Route("GET", URL + "/{id}/search", search_hypervisors, POLICY + "search", until=(2, 52)),
    Route("GET", URL + "/{id}/servers", list_hypervisors_servers, POLICY + "servers", until=(2, 52)),
)
