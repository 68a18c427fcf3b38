"""/v2.0/routers"""

from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from typing import Annotated, Any

import sqlalchemy as sa
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy.engine import Row

from cumulet.core import listing
from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, Conflict, NotFound, Retry
from cumulet.core.http import Request, Route
from cumulet.core.listing import Listing
from cumulet.core.schema import Strict
from cumulet.neutron import bindings, checks, effects, gateways, notices, quotas, standard
from cumulet.neutron.checks import IdText, Tag
from cumulet.neutron.gateways import GatewayInfo
from cumulet.neutron.networks import ZONE, known_zones
from cumulet.neutron.port_rows import PORTS
from cumulet.neutron.router_intent import INTERFACE
from cumulet.neutron.standard import Json, Named, target
from cumulet.neutron.subnet_plan import HostRoute
from cumulet.neutron.tables import ports, router_bindings, routers

MOST_ROUTES = 30


class RouterChange(Named):
    admin_state_up: bool | UnsetType = UNSET
    external_gateway_info: GatewayInfo | UnsetType | None = UNSET
    routes: Annotated[list[HostRoute], Meta(max_length=1000)] | UnsetType | None = UNSET


class NewRouter(RouterChange):
    project_id: IdText | UnsetType = UNSET
    tenant_id: IdText | UnsetType = UNSET
    tags: list[Tag] | UnsetType = UNSET
    availability_zone_hints: list[IdText] | UnsetType = UNSET


class RoutersBody(Strict):
    router: NewRouter | UnsetType = UNSET
    routers: list[NewRouter] | UnsetType = UNSET


class RouterBody(Strict):
    router: RouterChange


class ExtraRoutes(Strict):
    routes: Annotated[list[HostRoute], Meta(max_length=1000)]


class ExtraRoutesBody(Strict):
    router: ExtraRoutes


def create_routers(request: Request) -> Json:
    bodies, bulk = standard.wanted(request.body, "router", "routers")
    with request.db.transaction() as tx:
        documents = [_create(tx, request, body) for body in bodies]
        notices.created(tx, request, "router", bodies, documents)
    return standard.created(documents, "router", "routers", bulk)


def _create(tx: Transaction, request: Request, body: NewRouter) -> Json:
    project_id = standard.project_of(request, body)
    about = {"project_id": project_id, "tenant_id": project_id}
    request.enforce("create_router", about)
    gateways.enforce(request, "create_router", body.external_gateway_info, about)
    quotas.reserve(tx, project_id, "router")
    row = {
        **standard.new_row(project_id, body),
        "admin_up": body.admin_state_up is not False,
        "zone_hints": known_zones(list(body.availability_zone_hints or [])),
    }
    tx.write(routers.insert(), row)
    bindings.ensure_router(tx, request.config, row["id"])
    router = get_router(tx, request, row["id"])
    if isinstance(body.external_gateway_info, GatewayInfo):
        gateways.set_gateway(tx, request, router, body.external_gateway_info)
    if body.routes:
        _set_routes(tx, get_router(tx, request, router.id), _routes(body.routes))
    return _finish(tx, request, router.id)


def list_routers(request: Request) -> Json:
    with request.db.read() as tx:
        scoped = sa.select(routers).where(standard.visible(request, routers))
        page = listing.list_page(tx, scoped, request, LISTING)
        return standard.document(request, "routers", page, router_views(tx, page.rows))


def get_router(tx: Transaction, request: Request, router_id: str) -> Row[Any]:
    """The router, if the caller may see it; 404 otherwise."""
    row = tx.find(sa.select(routers).where(routers.c.id == router_id, standard.visible(request, routers)))
    if row is None:
        raise NotFound(f"Router {checks.shown(router_id)} could not be found", kind="RouterNotFound")
    return row


def show_router(request: Request) -> Json:
    with request.db.read() as tx:
        row = get_router(tx, request, request.params["router_id"])
        return {"router": standard.selected(request, router_views(tx, [row])[0])}


def update_router(request: Request) -> Json:
    body: RouterChange = request.body.router
    with request.db.transaction() as tx:
        row = get_router(tx, request, request.params["router_id"])
        about = target(row)
        standard.permit(request, "update_router", row, about)
        standard.enforce_attributes(request, "update_router", body, about)
        gateways.enforce(request, "update_router", body.external_gateway_info, about)
        values = {name: value for name in ("name", "description") if (value := getattr(body, name)) is not UNSET}
        if body.admin_state_up is not UNSET:
            values["admin_up"] = body.admin_state_up
        claim_router(tx, row, values)
        if not isinstance(body.external_gateway_info, UnsetType):
            gateways.set_gateway(tx, request, row, body.external_gateway_info)
        if not isinstance(body.routes, UnsetType):
            _set_routes(tx, get_router(tx, request, row.id), _routes(body.routes or []))
        document = _finish(tx, request, row.id)
        notices.updated(tx, request, "router", body, document)
    return {"router": document}


def delete_router(request: Request) -> None:
    with request.db.transaction() as tx:
        row = get_router(tx, request, request.params["router_id"])
        standard.permit(request, "delete_router", row)
        claim_router(tx, row, {})
        inside = sa.select(ports.c.id).where(ports.c.device_id == row.id, ports.c.device_owner == INTERFACE)
        if tx.find(inside):
            raise Conflict(f"Router {row.id} still has ports", kind="RouterInUse")
        if row.gateway_port_id:
            gateway = tx.find(PORTS.where(ports.c.id == row.gateway_port_id))
            if gateway is not None:
                gateways.clear_gateway(tx, request, row, gateway)
        bindings.end_router(tx, row.id)
        tx.write(sa.delete(routers).where(routers.c.id == row.id))
        notices.deleted(tx, request, "router", row.id)


def add_routes(request: Request) -> Json:
    """PUT …/add_extraroutes: routes beside those that there are."""
    with request.db.transaction() as tx:
        row = _for_routes(tx, request, "add_extraroutes")
        new = _routes(request.body.router.routes)
        _set_routes(tx, row, row.routes + [route for route in new if route not in row.routes])
        document = _finish(tx, request, row.id)
        notices.updated(tx, request, "router", request.body.router, document)
    return {"router": document}


def remove_routes(request: Request) -> Json:
    """PUT …/remove_extraroutes: routes that are not there are no error."""
    with request.db.transaction() as tx:
        row = _for_routes(tx, request, "remove_extraroutes")
        gone = _routes(request.body.router.routes)
        _set_routes(tx, row, [route for route in row.routes if route not in gone])
        document = _finish(tx, request, row.id)
        notices.updated(tx, request, "router", request.body.router, document)
    return {"router": document}


def _for_routes(tx: Transaction, request: Request, rule: str) -> Row[Any]:
    row = get_router(tx, request, request.params["router_id"])
    standard.permit(request, rule, row)
    claim_router(tx, row, {})
    return row


def claim_router(tx: Transaction, row: Row[Any], values: Json) -> None:
    """Of two that change a router at once, one goes first."""
    if not standard.change(tx, routers, row, values):
        raise Retry(f"router {row.id} was changed by somebody else")


def _finish(tx: Transaction, request: Request, router_id: str) -> Json:
    """Tell the agent; the router as it is now."""
    effects.bump_router(tx, router_id)
    return router_views(tx, [get_router(tx, request, router_id)])[0]


def _routes(given: Sequence[HostRoute]) -> list[dict[str, str]]:
    routes = [checks.route(route.destination, route.nexthop) for route in given]
    checks.distinct(routes, "routes")
    return routes


def _set_routes(tx: Transaction, row: Row[Any], routes: list[dict[str, str]]) -> None:
    """Routes whose next hop the router reaches and is not itself."""
    if len(routes) > MOST_ROUTES:
        raise BadRequest(
            f"Unable to complete operation for {row.id}. The number of routes exceeds the maximum {MOST_ROUTES}.",
            kind="RoutesExhausted",
        )
    connected = gateways.connected_subnets(tx, row.id)
    for route in routes:
        nexthop = ip_address(route["nexthop"])
        if not any(nexthop in ip_network(subnet.cidr) for subnet in connected):
            raise _invalid(routes, "the nexthop is not connected with router")
        if any(route["nexthop"] == subnet.ip for subnet in connected):
            raise _invalid(routes, "the nexthop is used by router")
    tx.write(sa.update(routers).where(routers.c.id == row.id).values(routes=routes))


def _invalid(routes: list[dict[str, str]], reason: str) -> BadRequest:
    return BadRequest(f"Invalid format for routes: {routes}, {reason}", kind="InvalidRoutes")


def router_views(tx: Transaction, rows: Sequence[Row[Any]]) -> list[Json]:
    outside = gateways.gateway_views(tx, [row.gateway_port_id for row in rows if row.gateway_port_id])
    run = sa.select(router_bindings.c.router_id, router_bindings.c.fault).where(router_bindings.c.wanted == "run")
    hosts = standard.related(tx, run, router_bindings.c.router_id, [row.id for row in rows])
    return [_view(row, outside.get(row.gateway_port_id or ""), hosts.get(row.id, ())) for row in rows]


def _view(row: Row[Any], outside: Json | None, hosts: Sequence[Row[Any]]) -> Json:
    """``status`` is ERROR where the router's own agent says that it cannot make it."""
    gateway = outside and {
        "network_id": outside["network_id"],
        "enable_snat": row.snat,
        "external_fixed_ips": outside["external_fixed_ips"],
    }
    return {
        **standard.standard_view(row),
        "admin_state_up": row.admin_up,
        "status": "ERROR" if any(host.fault for host in hosts) else "ACTIVE",
        "external_gateway_info": gateway,
        "routes": row.routes,
        "availability_zone_hints": row.zone_hints,
        "availability_zones": [ZONE] if hosts else [],
        "flavor_id": None,
    }


_FAULTY = routers.c.id.in_(
    sa.select(router_bindings.c.router_id).where(
        router_bindings.c.wanted == "run", router_bindings.c.fault.is_not(None)
    )
)


def _status(values: list[str]) -> sa.ColumnElement[bool]:
    wanted = {"ERROR": _FAULTY, "ACTIVE": sa.not_(_FAULTY)}
    return sa.or_(sa.false(), *(wanted[value] for value in values if value in wanted))


LISTING = Listing(
    routers.c.id,
    standard.columns(routers, admin_state_up=routers.c.admin_up),
    standard.conditions(routers, status=_status),
)
BASE = "/v2.0/routers"
ROUTES = [
    Route("GET", BASE, list_routers, "get_router"),
    Route("POST", BASE, create_routers, "create_router", 201, body=RoutersBody),
    Route("GET", BASE + "/{router_id}", show_router, "get_router"),
    Route("PUT", BASE + "/{router_id}", update_router, "update_router", body=RouterBody),
    Route("DELETE", BASE + "/{router_id}", delete_router, "delete_router", 204),
    Route("PUT", BASE + "/{router_id}/add_extraroutes", add_routes, "add_extraroutes", body=ExtraRoutesBody),
    Route(
        "PUT", BASE + "/{router_id}/remove_extraroutes", remove_routes, "remove_extraroutes", body=ExtraRoutesBody
    ),
]
