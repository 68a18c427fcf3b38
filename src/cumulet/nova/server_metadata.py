"""``/servers/{id}/metadata``: key and value pairs of a server's owner, which its guest can read."""

from collections.abc import Callable

from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, Forbidden, NotFound
from cumulet.core.http import Json, Reply, Request, Route
from cumulet.core.schema import Strict
from cumulet.nova import quotas
from cumulet.nova.checks import check_metadata
from cumulet.nova.server_actions import check_state
from cumulet.nova.servers import change_server, check_unlocked, get_server

Items = dict[str, str]
STATES = ("active", "paused", "suspended", "stopped")


class Metadata(Strict):
    metadata: Items


class OneItem(Strict):
    meta: Items


def list_metadata(request: Request) -> Json:
    return {"metadata": _read(request, "index")}


def show_item(request: Request) -> Json:
    items, key = _read(request, "show"), request.params["key"]
    if key not in items:
        raise _missing()
    return {"meta": {key: items[key]}}


def _read(request: Request, verb: str) -> Items:
    with request.db.read() as tx:
        items: Items = get_server(tx, request, POLICY + verb).metadata
    return items


def add_items(request: Request) -> Json:
    new = check_metadata(request.body.metadata)
    return {"metadata": _change(request, "create", lambda items: {**items, **new})}


def replace_items(request: Request) -> Json:
    new = check_metadata(request.body.metadata)
    return {"metadata": _change(request, "update_all", lambda items: new)}


def set_item(request: Request) -> Json:
    new = check_metadata(request.body.meta)
    if set(new) != {request.params["key"]}:
        raise BadRequest("Request body and URI mismatch")
    _change(request, "update", lambda items: {**items, **new})
    return {"meta": new}


def delete_item(request: Request) -> Reply:
    key = request.params["key"]

    def without_key(items: Items) -> Items:
        if key not in items:
            raise _missing()
        return {name: value for name, value in items.items() if name != key}

    _change(request, "delete", without_key)
    return Reply()


def _missing() -> NotFound:
    return NotFound("Metadata item was not found")


def _change(request: Request, verb: str, change: Callable[[Items], Items]) -> Items:
    with request.db.transaction() as tx:
        row = get_server(tx, request, POLICY + verb)
        check_unlocked(request, row)
        check_state(row, "delete metadata" if verb == "delete" else "update metadata", STATES, busy=True)
        items = change(row.metadata)
        _check_quota(tx, row.project_id, items)
        change_server(tx, row, {"metadata": items})
    return items


def _check_quota(tx: Transaction, project_id: str, items: Items) -> None:
    limit = quotas.read_limits(tx, project_id)["metadata_items"]
    if 0 <= limit < len(items):
        raise Forbidden(f"Maximum number of metadata items exceeds {limit}", kind="MetadataLimitExceeded")


POLICY = "os_compute_api:server-metadata:"
URL = "/v2.1/servers/{id}/metadata"
ROUTES = (
    Route("GET", URL, list_metadata, POLICY + "index"),
    Route("POST", URL, add_items, POLICY + "create", body=Metadata),
    Route("PUT", URL, replace_items, POLICY + "update_all", body=Metadata),
    Route("GET", URL + "/{key}", show_item, POLICY + "show"),
    Route("PUT", URL + "/{key}", set_item, POLICY + "update", body=OneItem),
    Route("DELETE", URL + "/{key}", delete_item, POLICY + "delete", 204),
)
