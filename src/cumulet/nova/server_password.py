"""``/servers/{id}/os-server-password``: the password that a guest has told, encrypted with its owner's key.

The guest posts it once through the metadata service (``nova.metadata``); clearing it here lets it post again.
"""

import sqlalchemy as sa

from cumulet.core.http import Json, Reply, Request, Route
from cumulet.nova.servers import change_server, get_server
from cumulet.nova.tables import servers


def show_password(request: Request) -> Json:
    with request.db.read() as tx:
        server = get_server(tx, request, POLICY + "show")
        password = tx.value(sa.select(servers.c.encrypted_password).where(servers.c.id == server.id))
    return {"password": password or ""}


def clear_password(request: Request) -> Reply:
    with request.db.transaction() as tx:
        server = get_server(tx, request, POLICY + "clear")
        change_server(tx, server, {"encrypted_password": None})
    return Reply()


POLICY = "os_compute_api:os-server-password:"
URL = "/v2.1/servers/{id}/os-server-password"
ROUTES = (
    Route("GET", URL, show_password, POLICY + "show"),
    Route("DELETE", URL, clear_password, POLICY + "clear", 204),
)
