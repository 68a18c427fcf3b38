"""neutron-server: the network API, the agents' intent and reports, and the loop that gives bindings."""

from cumulet.core import schema, tracing
from cumulet.core.controller import ControllerEnv
from cumulet.core.errors import ApiError
from cumulet.core.heartbeat import route as heartbeat
from cumulet.core.http import App, Reply, Request, Route
from cumulet.core.policy import PUBLIC
from cumulet.core.service import Service
from cumulet.neutron import (
    address_scopes,
    agent_schedulers,
    agents,
    default_security_group_rules,
    extensions,
    floatingips,
    hosts,
    ip_availability,
    networks,
    ports,
    quotas,
    rbac_policies,
    router_interfaces,
    routers,
    security_group_rules,
    security_groups,
    standard,
    subnet_pools,
    subnets,
    tags,
)
from cumulet.neutron.bindings import DHCP_AGENT, L2_AGENT, L3_AGENT, METADATA_AGENT
from cumulet.neutron.failover import Failover
from cumulet.neutron.policies import DEFAULTS

PORT = 9696
AGENTS = frozenset({L2_AGENT, DHCP_AGENT, L3_AGENT, METADATA_AGENT})
RESOURCES = (
    networks,
    subnets,
    ports,
    routers,
    router_interfaces,
    floatingips,
    security_groups,
    security_group_rules,
    default_security_group_rules,
    subnet_pools,
    address_scopes,
    rbac_policies,
    quotas,
    agents,
    agent_schedulers,
    ip_availability,
    extensions,
    tags,
)
KINDS = {
    "BadRequest": "HTTPBadRequest",
    "ValidationError": "HTTPBadRequest",
    "Forbidden": "HTTPForbidden",
    "NotFound": "HTTPNotFound",
    "MethodNotAllowed": "HTTPMethodNotAllowed",
    "Conflict": "HTTPConflict",
    "Unavailable": "HTTPServiceUnavailable",
    "TooLarge": "HTTPRequestEntityTooLarge",
    "ApiError": "HTTPInternalServerError",
    "MarkerNotFound": "HTTPBadRequest",
}


def render_error(error: ApiError) -> tuple[bytes, str]:
    """neutron's form of an error; a 401 has keystone's, as its middleware answers it upstream."""
    if error.status == 401:
        body = {"error": {"code": 401, "title": "Unauthorized", "message": error.message}}
    else:
        kind = KINDS.get(error.kind, error.kind)
        body = {"NeutronError": {"type": kind, "message": error.message, "detail": ""}}
    return schema.encode(body), "application/json"


def show_health(request: Request) -> Reply:
    return Reply(b"OK", content_type="text/plain")


def list_versions(request: Request) -> object:
    link = {"href": f"{request.app.endpoint}/v2.0/", "rel": "self"}
    return {"versions": [{"id": "v2.0", "status": "CURRENT", "links": [link]}]}


def list_resources(request: Request) -> object:
    """GET /v2.0/: the collections that there are."""
    names = sorted(
        route.path.removeprefix("/v2.0/")
        for route in request.app.routes
        if route.method == "GET"
        and route.path.startswith("/v2.0/")
        and "/" not in route.path[6:]
        and route.path[6:]
    )
    return {
        "resources": [
            {
                "name": name.removesuffix("s").removesuffix("ie") + ("y" if name.endswith("ies") else ""),
                "collection": name.replace("-", "_"),
                "links": [{"rel": "self", "href": f"{request.app.endpoint}/v2.0/{name}"}],
            }
            for name in names
        ]
    }


ROUTES = [
    Route("GET", "/", list_versions, PUBLIC),
    Route("GET", "/healthcheck", show_health, PUBLIC),
    Route("GET", "/v2.0", list_resources, PUBLIC),
    heartbeat(AGENTS, agents.check_details),
    tracing.ROUTE,
    *hosts.ROUTES,
    *(route for resource in RESOURCES for route in resource.ROUTES),
]


def build_app(env: ControllerEnv) -> App:
    return App(
        "neutron-server",
        ROUTES,
        db=env.db,
        config=env.config,
        policies=env.policies("neutron", DEFAULTS),
        caller=env.caller,
        render_error=render_error,
        endpoint=env.config.public_url(PORT),
        own_target=standard.own_target,
    )


def build(env: ControllerEnv) -> Service:
    return Service(build_app(env), loops=[Failover(env.db, env.config).reconciler()])
