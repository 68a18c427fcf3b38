"""``/servers``: what servers there are, and small changes that no host has to act on.

``get_server`` is the one way to a server: what the caller may not see does not exist.  ``order`` is the one way
to change what is wanted of it: compare-and-set on the generation, a row of history, hints.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import sqlalchemy as sa
from msgspec import UNSET, UnsetType
from msgspec import field as named
from sqlalchemy.engine import Row

from cumulet.core import clock
from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, Conflict, NotFound, Retry
from cumulet.core.http import Json, Reply, Request, Route
from cumulet.core.listing import list_page
from cumulet.core.schema import Strict, given
from cumulet.neutron import public as neutron
from cumulet.nova import notices, server_views, status, versions
from cumulet.nova.checks import check_description, check_name
from cumulet.nova.hostnames import check_hostname
from cumulet.nova.paging import next_links
from cumulet.nova.server_filters import LISTING, wanted_servers
from cumulet.nova.tables import server_actions, servers
from cumulet.nova.tag_rows import find_tags

POLICY = "os_compute_api:servers:"

_ONE, _WITH_USER_DATA = (one.where(servers.c.id == sa.bindparam("server")) for one in (status.DETAIL, status.FULL))


class ServerChange(Strict):
    name: str | UnsetType = UNSET
    description: str | UnsetType | None = UNSET
    hostname: str | UnsetType = UNSET
    access_ip_v4: str | UnsetType = named(name="accessIPv4", default=UNSET)
    access_ip_v6: str | UnsetType = named(name="accessIPv6", default=UNSET)
    disk_config: str | UnsetType = named(name="OS-DCF:diskConfig", default=UNSET)


class UpdateServer(Strict):
    server: ServerChange


@dataclass(frozen=True)
class Order:
    """A change of what is wanted of a server.  ``verb``: its host must do it once, whatever the power is."""

    action: str
    values: Mapping[str, Any] = field(default_factory=dict)
    verb: bool = False
    params: Mapping[str, Any] = field(default_factory=dict)


def get_server(
    tx: Transaction, request: Request, rule: str, *, gone: bool = False, user_data: bool = False
) -> Row[Any]:
    """The server of the URL, if the caller may see it (else NotFound) and ``rule`` lets them (else Forbidden).

    ``gone``: also one of which nothing is left.
    """
    server_id = request.params["id"]
    row = tx.find(_WITH_USER_DATA if user_data else _ONE, {"server": server_id})
    visible = row is not None and (gone or row.gone_at is None)
    if row is None or not visible or not _sees(request, row.project_id):
        raise NotFound(f"Instance {server_id} could not be found.", kind="InstanceNotFound")
    request.enforce(rule, {"project_id": row.project_id, "user_id": row.user_id})
    return row


def _sees(request: Request, project_id: str) -> bool:
    return request.context.project_id == project_id or request.allows("context_is_admin", {})


def check_unlocked(request: Request, row: Row[Any]) -> None:
    if row.locked and not request.context.admin:
        raise Conflict(f"Instance {row.id} is locked", kind="InstanceIsLocked")


def order(tx: Transaction, request: Request, row: Row[Any], what: Order) -> None:
    """Write a new wish, if the server has not changed since ``row`` was read (else Retry).

    ``power_on.start`` and the like are told, and those who have to act are hinted.
    """
    now, generation = clock.now(), row.generation + 1
    still = sa.and_(servers.c.id == row.id, servers.c.generation == row.generation, servers.c.gone_at.is_(None))
    change = {"generation": generation, "request_id": request.context.request_id, "updated_at": now, **what.values}
    if what.action != "delete":
        change["forced_error"] = False
    if not tx.write(sa.update(servers).where(still).values(change)):
        raise Retry(f"server {row.id} has changed meanwhile")
    record(tx, request, row.id, row.project_id, what, generation)
    event = notices.EVENTS.get(what.action)
    changed = notices.find_row(tx, row.id)
    if event and changed:
        notices.tell(tx, changed, f"{event}.start", state=row.vm_state, host=row.host or "")
    tx.hint("nova.servers", row.id)
    for host in {row.host, row.move_source, row.move_destination} - {None}:
        tx.hint(f"nova.hosts.{host}", row.id)


def record(
    tx: Transaction,
    request: Request,
    server_id: str,
    project_id: str,
    what: Order,
    generation: int,
    *,
    finished: bool = False,
) -> None:
    """A row of the server's history, which is also what a host carries out if it is a verb.

    ``finished``: no host has to act on it.
    """
    row = {
        "server_id": server_id,
        "action": what.action,
        "request_id": request.context.request_id,
        "user_id": request.context.user_id,
        "project_id": project_id,
        "started_at": clock.now(),
        "generation": generation,
        "verb": what.verb,
        "params": dict(what.params),
        "finished_at": clock.now() if finished else None,
    }
    tx.write(server_actions.insert(), row)


def change_server(tx: Transaction, row: Row[Any], values: Mapping[str, Any]) -> None:
    """Change what no host has to act on, if nobody else has meanwhile (else Retry)."""
    same = sa.and_(servers.c.id == row.id, servers.c.updated_at == row.updated_at, servers.c.gone_at.is_(None))
    if not tx.write(sa.update(servers).where(same).values({**values, "updated_at": clock.now()})):
        raise Retry(f"server {row.id} has changed meanwhile")
    changed = notices.find_row(tx, row.id)
    if changed:
        notices.tell(tx, changed, "update", state=row.vm_state, host=row.host or "")


# ── lists ────────────────────────────────────────────────────────────────────────────────────────────────────


def list_servers(request: Request) -> Json:
    """Ids, names and links."""
    with request.db.read() as tx:
        wanted, filters = wanted_servers(tx, request, status.BRIEF, POLICY + "index")
        page = list_page(tx, wanted, filters, LISTING)
    found = [server_views.brief(row, request.app.endpoint) for row in page.rows]
    return {"servers": found, **next_links(request, "servers", page)}


def list_servers_detail(request: Request) -> Json:
    """Everything of each; the number of queries does not depend on the number of servers."""
    with request.db.read() as tx:
        face = server_views.face_for(request)
        columns = status.FULL if face.extended and face.version >= (2, 3) else status.DETAIL
        wanted, filters = wanted_servers(tx, request, columns, POLICY + "detail")
        page = list_page(tx, wanted, filters, LISTING)
        ids = [row.id for row in page.rows]
        look = server_views.look_for(tx, request, face, page.rows)
        ports = neutron.list_server_ports(tx, ids)
        tags = find_tags(tx, ids)
    found = [server_views.listed(row, ports.get(row.id, ()), look, tags.get(row.id, ())) for row in page.rows]
    return {"servers": found, **next_links(request, "servers", page)}


# ── one server ───────────────────────────────────────────────────────────────────────────────────────────────


def show_server(request: Request) -> Json:
    with request.db.read() as tx:
        return {"server": _shown(tx, request, POLICY + "show", "server")}


def _shown(tx: Transaction, request: Request, rule: str, kind: str) -> Json:
    row = get_server(tx, request, rule, user_data=True)
    look = server_views.look_for(tx, request, server_views.face_for(request, row.project_id), [row], row.project_id)
    ports = neutron.list_server_ports(tx, [row.id]).get(row.id, ())
    return server_views.detail(row, ports, look, find_tags(tx, [row.id]).get(row.id, ()), kind=kind)


def update_server(request: Request) -> Json:
    wish: ServerChange = request.body.server
    versions.check_fields("server", given(wish), request.version)
    values = _checked(wish, request)
    with request.db.transaction() as tx:
        row = get_server(tx, request, POLICY + "update")
        if values:
            change_server(tx, row, values)
        return {"server": _shown(tx, request, POLICY + "update", "server_update")}


def _checked(wish: ServerChange, request: Request) -> dict[str, Any]:
    values = dict(given(wish))
    if "name" in values:
        check_name(values["name"])
    if "description" in values:
        check_description(values["description"])
    if "hostname" in values:
        check_hostname(values["hostname"], fqdn=request.version >= (2, 94))
    if "disk_config" in values:
        check_disk_config(values["disk_config"])
    for column, kind in (("access_ip_v4", IPv4Address), ("access_ip_v6", IPv6Address)):
        if column in values:
            values[column] = check_access_ip(values[column], kind)
    return values


def check_disk_config(value: str) -> str:
    if value not in ("AUTO", "MANUAL"):
        raise BadRequest(f"Invalid input for field/attribute OS-DCF:diskConfig. Value: {value[:300]}")
    return value


def check_access_ip(value: str, kind: type[IPv4Address] | type[IPv6Address]) -> str | None:
    """An address as ``ipaddress`` prints it; none for an empty text."""
    try:
        return str(kind(value)) if value else None
    except ValueError as error:
        name = "accessIPv4" if kind is IPv4Address else "accessIPv6"
        raise BadRequest(f"Invalid input for field/attribute {name}. Value: {value[:300]}. {error}") from error


def delete_server(request: Request) -> Reply:
    return order_away(request, POLICY + "delete")


def order_away(request: Request, rule: str) -> Reply:
    """Order the server away.  Its host destroys it; then all it held is released, and it is gone."""
    with request.db.transaction() as tx:
        row = get_server(tx, request, rule)
        check_unlocked(request, row)
        if row.deleted_at is None:
            order(tx, request, row, Order("delete", {"deleted_at": clock.now()}))
    return Reply()


ROUTES = (
    Route("GET", "/v2.1/servers", list_servers, POLICY + "index"),
    Route("GET", "/v2.1/servers/detail", list_servers_detail, POLICY + "detail"),
    Route("GET", "/v2.1/servers/{id}", show_server, POLICY + "show"),
    Route("PUT", "/v2.1/servers/{id}", update_server, POLICY + "update", body=UpdateServer),
    Route("DELETE", "/v2.1/servers/{id}", delete_server, POLICY + "delete", 204),
)
