"""glance-api: the image API, the loop that imports images and the one that keeps the store clean.

It has no table of its own: metadata is glance-registry's, data lies in files (``store``).
"""

import html
from typing import Any

from cumulet.core import certificates
from cumulet.core.controller import ControllerEnv
from cumulet.core.errors import ApiError
from cumulet.core.http import App, Reply, Route
from cumulet.core.policy import PUBLIC
from cumulet.core.reconcile import Reconciler
from cumulet.core.service import Service
from cumulet.glance import (
    image_data,
    image_import,
    images,
    info,
    members,
    metadef_items,
    metadef_schemas,
    metadefs,
    policies,
    schemas,
    tags,
    tasks,
    versions,
)
from cumulet.glance.copies import Copies
from cumulet.glance.imports import Imports
from cumulet.glance.leftovers import Leftovers
from cumulet.glance.peers import Peers
from cumulet.glance.registry import PORT as REGISTRY_PORT
from cumulet.glance.registry_client import HttpTransport, RegistryClient
from cumulet.glance.store import Store
from cumulet.glance.wiring import Wiring

PORT = 9292
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}

ROUTES = [
    Route("GET", "/healthcheck", lambda request: Reply(b"OK", content_type="text/plain"), PUBLIC),
    *versions.ROUTES,
    *schemas.ROUTES,
    *metadefs.ROUTES,
    *metadef_items.ROUTES,
    *metadef_schemas.ROUTES,
    *info.ROUTES,
    *images.ROUTES,
    *image_data.ROUTES,
    *image_import.ROUTES,
    *tasks.ROUTES,
    *tags.ROUTES,
    *members.ROUTES,
]


def build(env: ControllerEnv) -> Service:
    address = env.config.api.internal_bind
    trust = certificates.trust(env.config)
    registry = HttpTransport(_ANYWHERE.get(address, address), REGISTRY_PORT, trust)
    wiring = Wiring(
        RegistryClient(registry, env.secrets.registry_secret),
        Store(env.config.state / "images"),
        env.config.node.name,
        env.secrets.host_secret,
        peers=Peers(env.config.api.controllers, PORT, env.config.node.name, env.secrets.host_secret, trust),
    )
    wiring.store.prepare()
    return build_service(env, wiring)


def build_service(env: ControllerEnv, wiring: Wiring) -> Service:
    seconds = env.config.agents.resync_seconds
    loops: list[Reconciler[Any]] = [
        Leftovers(wiring.registry, wiring.store, wiring.node).reconciler(seconds),
        Imports(wiring, env.config).reconciler(seconds),
    ]
    if len(env.config.api.controllers) > 1:
        loops.append(Copies(wiring, env.config.images.largest_bytes).reconciler(seconds))
    return Service(
        app=build_app(env, wiring),
        loops=loops,
        stop=wiring.outbound.stopping.set,
    )


def build_app(env: ControllerEnv, wiring: Wiring) -> App:
    return App(
        "glance-api",
        ROUTES,
        db=env.db,
        config=env.config,
        policies=env.policies("glance", policies.DEFAULTS),
        caller=env.caller,
        render_error=render_error,
        endpoint=env.config.public_url(PORT),
        extras=wiring,
        own_target=policies.own_target,
        slash_ends=False,
    )


def render_error(error: ApiError) -> tuple[bytes, str]:
    """glance's errors are pages, as its old framework made them."""
    title = f"{error.status} {error.title}"
    page = (
        f"<html>\n <head>\n  <title>{title}</title>\n </head>\n <body>\n  <h1>{title}</h1>\n"
        f"  {html.escape(error.message)}<br /><br />\n\n\n\n </body>\n</html>"
    )
    return page.encode(), "text/html; charset=UTF-8"
