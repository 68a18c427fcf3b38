"""nova-api: the compute API, the sum of its resources' routes."""

from cumulet.core import schema
from cumulet.core.controller import ControllerEnv
from cumulet.core.errors import ApiError
from cumulet.core.http import App, Reply, Request, Route
from cumulet.core.policy import PUBLIC
from cumulet.core.service import Service
from cumulet.glance import public as glance
from cumulet.neutron import public as neutron
from cumulet.nova import (
    aggregates,
    availability_zones,
    extensions,
    fixed_ips,
    flavor_specs,
    flavors,
    gone,
    hypervisors,
    images,
    instance_actions,
    interfaces,
    keypairs,
    limits,
    migrations,
    old_floating_ips,
    old_hosts,
    old_networks,
    old_security_groups,
    quota_classes,
    quotas,
    remote_consoles,
    server_actions,
    server_create,
    server_deletion,
    server_diagnostics,
    server_external_events,
    server_groups,
    server_images,
    server_live_migration,
    server_metadata,
    server_migrations,
    server_moves,
    server_password,
    server_rebuild,
    server_security_groups,
    server_shares,
    server_state,
    server_tags,
    servers,
    services,
    usage,
    usage_audits,
    versions,
)
from cumulet.nova.console_tokens import API, CONSOLE_PORT, ConsoleTokens, reach
from cumulet.nova.policies import DEFAULTS

PORT = 8774
_RESOURCES = (
    versions,
    servers,
    server_create,
    server_actions,
    server_rebuild,
    server_moves,
    server_live_migration,
    server_images,
    gone,
    server_state,
    server_metadata,
    server_tags,
    server_shares,
    server_password,
    server_security_groups,
    server_diagnostics,
    server_external_events,
    server_groups,
    instance_actions,
    server_deletion,
    interfaces,
    fixed_ips,
    images,
    flavors,
    flavor_specs,
    keypairs,
    aggregates,
    availability_zones,
    services,
    hypervisors,
    old_hosts,
    old_networks,
    old_floating_ips,
    old_security_groups,
    limits,
    quotas,
    quota_classes,
    remote_consoles,
    extensions,
    migrations,
    server_migrations,
    usage,
    usage_audits,
)
_KINDS = {
    400: "badRequest",
    403: "forbidden",
    404: "itemNotFound",
    405: "badMethod",
    409: "conflictingRequest",
    413: "overLimit",
    415: "badMediaType",
    429: "overLimit",
    501: "notImplemented",
    503: "serviceUnavailable",
}


def render_error(error: ApiError) -> tuple[bytes, str]:
    """nova's form, ``{"itemNotFound": {"code": 404, ...}}``; a 401 has keystone's, as its middleware answers it."""
    if error.status == 401:
        body = {"error": {"code": 401, "title": "Unauthorized", "message": error.message}}
        return schema.encode(body), "application/json"
    kind = _KINDS.get(error.status, "computeFault")
    return schema.encode({kind: {"code": error.status, "message": error.message}}), "application/json"


def show_health(request: Request) -> Reply:
    return Reply(b"OK", content_type="text/plain")


def build_app(
    env: ControllerEnv, console_port: int = CONSOLE_PORT, console_tokens: ConsoleTokens | None = None
) -> App:
    """``console_port`` and ``console_tokens`` (nova-consoleauth): seams for tests."""
    routes = [route for resource in _RESOURCES for route in resource.ROUTES]
    return App(
        "nova-api",
        [*routes, Route("GET", "/healthcheck", show_health, PUBLIC)],
        db=env.db,
        config=env.config,
        policies=env.policies("nova", DEFAULTS),
        caller=env.caller,
        render_error=render_error,
        versions=versions.VERSIONS,
        legacy_roots={"v2": "v2.1"},
        slash_ends=False,
        endpoint=env.config.public_url(PORT),
        extras=server_actions.Extras(
            env.secrets.host_secret,
            glance.load_policies(env),
            neutron.open_api(env),
            console_tokens or reach(env.config, env.secrets.host_secret, API),
            console_port,
        ),
        request_id_header="X-Compute-Request-Id",
    )


def build(env: ControllerEnv) -> Service:
    return Service(app=build_app(env))
