"""``/servers/{id}/os-server-password``: the password that a guest has told, encrypted with its owner's key.

The guest posts it once through the metadata service (``nova.metadata``); clearing it here lets it post again.

``changePassword`` would have an agent in the guest set another one.  Hosts speak to no such agent, and it is
refused as upstream refuses it for a guest that has none.
"""

from typing import Annotated

import sqlalchemy as sa
from msgspec import Meta

from cumulet.core.errors import Conflict
from cumulet.core.http import Json, Reply, Request, Route
from cumulet.core.schema import Strict
from cumulet.nova.server_actions import URL as ACTIONS
from cumulet.nova.server_actions import check_state, movable
from cumulet.nova.servers import change_server, get_server
from cumulet.nova.tables import servers


class NewPassword(Strict):
    adminPass: Annotated[str, Meta(max_length=255)]


class ChangePassword(Strict):
    changePassword: NewPassword


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


def change_password(request: Request) -> None:
    with request.db.read() as tx:
        check_state(movable(tx, request, CHANGE), "changePassword", ("active",))
    raise Conflict("QEMU guest agent is not enabled", kind="QemuGuestAgentNotEnabled")


CHANGE = "os_compute_api:os-admin-password"
POLICY = "os_compute_api:os-server-password:"
URL = "/v2.1/servers/{id}/os-server-password"
ROUTES = (
    Route("GET", URL, show_password, POLICY + "show"),
    Route("DELETE", URL, clear_password, POLICY + "clear", 204),
    Route("POST", ACTIONS, change_password, CHANGE, 202, body=ChangePassword, action="changePassword"),
)
