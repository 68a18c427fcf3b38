"""``forceDelete`` and ``restore``: os-deferred-delete, where deletion is not deferred.

A deleted server goes at once, so to force it is to delete it, and there is never one that could be restored.
"""

from typing import Any

from cumulet.core.http import Reply, Request, Route
from cumulet.core.schema import Strict
from cumulet.nova.server_actions import URL, check_state
from cumulet.nova.servers import get_server, order_away

POLICY = "os_compute_api:os-deferred-delete:"


class ForceDelete(Strict):
    forceDelete: Any


class Restore(Strict):
    restore: Any


def force_delete(request: Request) -> Reply:
    return order_away(request, POLICY + "force")


def restore_server(request: Request) -> None:
    with request.db.read() as tx:
        check_state(get_server(tx, request, POLICY + "restore"), "restore", ("soft-delete",), busy=True)


ROUTES = (
    Route("POST", URL, force_delete, POLICY + "force", 202, body=ForceDelete, action="forceDelete"),
    Route("POST", URL, restore_server, POLICY + "restore", 202, body=Restore, action="restore"),
)
