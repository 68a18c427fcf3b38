"""``/os-services``: nova's services, where they run, whether they live and whether they may be used.

A service is up if it gave a sign of life within ``agents.down_seconds``, unless an administrator says that it is
down.  Disabling a nova-compute keeps new servers away from its host; only it can be disabled, as upstream.
Until 2.52 the URL says what to do, and host and binary are in the body; since then a service has an id.
"""

from collections.abc import Collection, Mapping
from typing import Any, Literal

import sqlalchemy as sa
from msgspec import UNSET, UnsetType
from sqlalchemy.engine import Row

from cumulet.core import clock
from cumulet.core.among import among
from cumulet.core.config import Config
from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, Conflict, NotFound
from cumulet.core.http import Json, Reply, Request, Route
from cumulet.core.schema import Strict, given
from cumulet.core.tables import agents
from cumulet.nova import versions, zones
from cumulet.nova.checks import check_description
from cumulet.nova.paging import boolean
from cumulet.nova.tables import aggregate_hosts, server_hosts
from cumulet.placement import public as placement

COMPUTE = "nova-compute"
API_SERVICES = ("nova-api", "nova-api-metadata")


class ServiceChange(Strict):
    status: Literal["enabled", "disabled"] | UnsetType = UNSET
    disabled_reason: str | UnsetType = UNSET
    forced_down: bool | str | UnsetType = UNSET


class NamedService(Strict):
    host: str
    binary: str


class DisabledService(NamedService):
    disabled_reason: str


class ForcedService(NamedService):
    forced_down: bool | str = False


def list_agents(tx: Transaction, *conditions: sa.ColumnElement[bool]) -> list[Row[Any]]:
    """nova's services but for its APIs, by binary and host."""
    mine = sa.and_(agents.c.binary.like("nova-%"), agents.c.binary.not_in(API_SERVICES), *conditions)
    return list(tx.all(sa.select(agents).where(mine).order_by(agents.c.binary, agents.c.host)))


_COMPUTES = sa.select(agents).where(agents.c.binary == COMPUTE, among(agents.c.host, "hosts"))


def list_hosts(tx: Transaction) -> dict[str, Row[Any]]:
    """The nova-compute of each host."""
    return {row.host: row for row in list_agents(tx, agents.c.binary == COMPUTE)}


def find_hosts(tx: Transaction, hosts: Collection[str]) -> dict[str, Row[Any]]:
    """The same for these hosts only."""
    return {row.host: row for row in tx.all(_COMPUTES, {"hosts": sorted(hosts)})} if hosts else {}


def is_up(row: Row[Any], config: Config) -> bool:
    return not row.forced_down and bool(row.seen_at >= clock.later(-config.agents.down_seconds))


def host_address(row: Row[Any] | None) -> str:
    """Where this nova-compute can be asked for consoles, as it said; empty if it has not."""
    details = row.details if row else {}
    return str(details.get("address") or details.get("inventory", {}).get("address") or "")


def host_status(row: Row[Any] | None, config: Config) -> str:
    """What ``host_status`` of a server says of its host."""
    if row is None:
        return "UNKNOWN"
    if not row.enabled:
        return "MAINTENANCE"
    return "UP" if is_up(row, config) else "UNKNOWN"


def list_services(request: Request) -> Json:
    versions.check_query("services", request)
    wanted = [getattr(agents.c, name) == value for name in ("host", "binary") if (value := request.one(name))]
    with request.db.read() as tx:
        rows, where = list_agents(tx, *wanted), zones.read_zones(tx)
    return {"services": [_view(request, row, where) for row in rows]}


def update_service(request: Request) -> Json:
    """Enable or disable a nova-compute, with a reason, or say that it is down."""
    values = _values(request.body)
    with request.db.transaction() as tx:
        changed = _change(tx, _get(tx, request), values)
        return {"service": _view(request, changed, zones.read_zones(tx))}


def _values(change: ServiceChange) -> dict[str, Any]:
    wish = given(change)
    if not wish:
        raise BadRequest("No updates were requested. Fields 'status' or 'forced_down' should be specified.")
    reason = check_description(wish.get("disabled_reason"), "disabled_reason")
    if reason is not None and wish.get("status") != "disabled":
        raise BadRequest("Specifying 'disabled_reason' when status is 'enabled' is invalid.")
    values: dict[str, Any] = {}
    if "status" in wish:
        values |= {"enabled": wish["status"] == "enabled", "disabled_reason": reason}
    if "forced_down" in wish:
        values["forced_down"] = boolean(wish["forced_down"], "forced_down")
    return values


def enable_service(request: Request) -> Json:
    return _update_named(request, {"enabled": True, "disabled_reason": None}, "status")


def disable_service(request: Request) -> Json:
    return _update_named(request, {"enabled": False, "disabled_reason": None}, "status")


def disable_service_with_reason(request: Request) -> Json:
    reason = check_description(request.body.disabled_reason, "disabled_reason")
    return _update_named(request, {"enabled": False, "disabled_reason": reason}, "status", "disabled_reason")


def force_service_down(request: Request) -> Json:
    return _update_named(request, {"forced_down": boolean(request.body.forced_down, "forced_down")}, "forced_down")


def _update_named(request: Request, values: dict[str, Any], *shown: str) -> Json:
    host, binary = request.body.host, request.body.binary
    with request.db.transaction() as tx:
        rows = list_agents(tx, agents.c.host == host, agents.c.binary == binary)
        if not rows:
            raise NotFound(f"Could not find binary {binary[:300]} on host {host[:300]}.", kind="HostBinaryNotFound")
        document = _view(request, _change(tx, rows[0], values), {})
    return {"service": {name: document[name] for name in ("host", "binary", *shown)}}


def _change(tx: Transaction, row: Row[Any], values: dict[str, Any]) -> Row[Any]:
    if row.binary != COMPUTE:
        raise BadRequest(
            f"Updating a {row.binary} service is not supported. Only nova-compute services can be updated."
        )
    tx.write(sa.update(agents).where(agents.c.id == row.id).values(values))
    tx.hint("nova.servers", "*")
    return list_agents(tx, agents.c.id == row.id)[0]


def delete_service(request: Request) -> Reply:
    """Forget a service, with a nova-compute what its host has to give.  One that lives tells of itself again.

    A nova-compute must have no servers.
    """
    with request.db.transaction() as tx:
        row = _get(tx, request)
        if row.binary == COMPUTE:
            if tx.find(sa.select(server_hosts.c.host).where(server_hosts.c.host == row.host)):
                raise Conflict(
                    "Unable to delete compute service that is hosting instances. Migrate or delete the instances "
                    "first."
                )
            placement.forget_host(tx, row.host)
            tx.write(sa.delete(aggregate_hosts).where(aggregate_hosts.c.host == row.host))
        tx.write(sa.delete(agents).where(agents.c.id == row.id))
    return Reply()


def _get(tx: Transaction, request: Request) -> Row[Any]:
    for row in list_agents(tx):
        if request.params["id"] == (row.id if request.version >= (2, 53) else str(versions.number(row.id))):
            return row
    raise NotFound(f"Service {request.params['id']} could not be found.", kind="ServiceNotFound")


def _view(request: Request, row: Row[Any], where: Mapping[str, str]) -> Json:
    document = {
        "binary": row.binary,
        "host": row.host,
        "id": row.id,
        "zone": where.get(row.host, zones.DEFAULT) if row.binary == COMPUTE else zones.INTERNAL,
        "status": "enabled" if row.enabled else "disabled",
        "state": "up" if is_up(row, request.config) else "down",
        "updated_at": row.seen_at[:26],
        "disabled_reason": row.disabled_reason,
        "forced_down": row.forced_down,
    }
    return versions.render("service", document, request.version)


POLICY = "os_compute_api:os-services:"
URL = "/v2.1/os-services"
UPDATE, OLD = POLICY + "update", (2, 52)
ROUTES = (
    Route("GET", URL, list_services, POLICY + "list"),
    Route("PUT", URL + "/enable", enable_service, UPDATE, body=NamedService, until=OLD),
    Route("PUT", URL + "/disable", disable_service, UPDATE, body=NamedService, until=OLD),
    Route(
        "PUT", URL + "/disable-log-reason", disable_service_with_reason, UPDATE, body=DisabledService, until=OLD
    ),
    Route(
        "PUT", URL + "/force-down", force_service_down, UPDATE, body=ForcedService, since=(2, 11), until=OLD
    ),
    Route("PUT", URL + "/{id}", update_service, UPDATE, body=ServiceChange, since=(2, 53)),
    Route("DELETE", URL + "/{id}", delete_service, POLICY + "delete", 204),
)  # fmt: skip
