"""``/os-hosts``, until 2.42: hosts by their services, and what is used of a compute host, project by project."""

from collections import Counter
from typing import Any, Literal

import sqlalchemy as sa
from msgspec import UNSET, UnsetType

from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, NotFound, NotImplementedHere
from cumulet.core.http import Json, Request, Route
from cumulet.core.schema import Strict
from cumulet.core.tables import agents
from cumulet.nova import zones
from cumulet.nova.services import COMPUTE, list_agents, list_hosts
from cumulet.nova.tables import server_hosts, servers
from cumulet.placement import public as placement
from cumulet.placement.model import Resources


class HostChange(Strict):
    status: Literal["enable", "disable"] | UnsetType = UNSET
    maintenance_mode: Literal["enable", "disable"] | UnsetType = UNSET


def list_all(request: Request) -> Json:
    zone, service = request.one("zone"), request.one("service")
    with request.db.read() as tx:
        rows, where = list_agents(tx), zones.read_zones(tx)
    hosts = [
        {
            "host_name": row.host,
            "service": row.binary.removeprefix("nova-"),
            "zone": where.get(row.host, zones.DEFAULT) if row.binary == COMPUTE else zones.INTERNAL,
        }
        for row in rows
    ]
    return {
        "hosts": [one for one in hosts if zone in (None, "", one["zone"]) and service in (None, "", one["service"])]
    }


def show_host(request: Request) -> Json:
    host = request.params["host"]
    with request.db.read() as tx:
        _check_host(tx, host)
        capacity = placement.find_capacity(tx, host)
        here = sa.and_(server_hosts.c.host == host, servers.c.gone_at.is_(None))
        rows = tx.all(
            sa.select(servers.c.project_id, servers.c.vcpus, servers.c.memory_mb, servers.c.root_gb)
            .join_from(servers, server_hosts)
            .where(here)
            .order_by(servers.c.created_at, servers.c.id)
        )
    projects: dict[str, Counter[str]] = {}
    for row in rows:
        sizes = {"cpu": row.vcpus, "memory_mb": row.memory_mb, "disk_gb": row.root_gb}
        for project in ("(used_max)", row.project_id):
            projects.setdefault(project, Counter()).update(sizes)
    total, used = (capacity.total, capacity.used) if capacity else (Resources(), Resources())
    views = {"(total)": _sizes(total), "(used_now)": _sizes(used), "(used_max)": _sizes(Resources()), **projects}
    return {"host": [{"resource": {"host": host, "project": name, **sizes}} for name, sizes in views.items()]}


def _sizes(amount: Resources) -> dict[str, Any]:
    return {"cpu": amount.vcpus, "memory_mb": amount.memory_mb, "disk_gb": amount.disk_gb}


def update_host(request: Request) -> Json:
    """Let new servers onto the host or not.  There is no mode of maintenance."""
    host, change = request.params["host"], request.body
    if change.status is UNSET and change.maintenance_mode is UNSET:
        raise BadRequest("Invalid input: give status or maintenance_mode")
    with request.db.transaction() as tx:
        _check_host(tx, host)
        if change.maintenance_mode is not UNSET:
            raise NotImplementedHere("Unable to complete the requested operation: hosts have no maintenance mode.")
        mine = sa.and_(agents.c.binary == COMPUTE, agents.c.host == host)
        tx.write(sa.update(agents).where(mine).values(enabled=change.status == "enable", disabled_reason=None))
        tx.hint("nova.servers", "*")
    return {"host": host, "status": f"{change.status}d"}


def refuse_power(request: Request) -> Json:
    """No service of a cloud starts, stops or reboots the machine that it runs on."""
    with request.db.read() as tx:
        _check_host(tx, request.params["host"])
    raise NotImplementedHere("Unable to complete the requested operation: hosts are not switched from here.")


def _check_host(tx: Transaction, host: str) -> None:
    if host not in list_hosts(tx):
        raise NotFound(f"Compute host {host} could not be found.", kind="ComputeHostNotFound")


POLICY = "os_compute_api:os-hosts:"
URL, UNTIL = "/v2.1/os-hosts", (2, 42)
ROUTES = (
    Route("GET", URL, list_all, POLICY + "list", until=UNTIL),
    Route("GET", URL + "/{host}", show_host, POLICY + "show", until=UNTIL),
    Route("PUT", URL + "/{host}", update_host, POLICY + "update", body=HostChange, also=(501,), until=UNTIL),
    Route("GET", URL + "/{host}/reboot", refuse_power, POLICY + "reboot", also=(501,), until=UNTIL),
    Route("GET", URL + "/{host}/shutdown", refuse_power, POLICY + "shutdown", also=(501,), until=UNTIL),
    Route("GET", URL + "/{host}/startup", refuse_power, POLICY + "start", also=(501,), until=UNTIL),
)
