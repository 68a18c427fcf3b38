"""``/servers/{id}/shares``: file systems that a server shares with others.  There are none: no service has any."""

import re
from typing import Annotated

from msgspec import UNSET, Meta, UnsetType
from sqlalchemy.engine import Row

from cumulet.core.errors import BadRequest, NotFound
from cumulet.core.http import Json, Request, Route
from cumulet.core.schema import Strict
from cumulet.nova.server_actions import check_state
from cumulet.nova.server_wishes import UUID
from cumulet.nova.servers import check_unlocked, get_server

RULE = "os_compute_api:os-server-shares:"
_TAG = re.compile(r"[^,/]{1,64}")


class NewShare(Strict):
    share_id: str
    tag: Annotated[str, Meta(max_length=64)] | UnsetType = UNSET


class AddShare(Strict):
    share: NewShare


def list_shares(request: Request) -> Json:
    _server(request, "index")
    return {"shares": []}


def show_share(request: Request) -> Json:
    _server(request, "show")
    raise _missing(request.params["share_id"])


def add_share(request: Request) -> Json:
    share: NewShare = request.body.share
    if not UUID.fullmatch(share.share_id):
        raise BadRequest(f"Invalid input for field/attribute share_id. Value: {share.share_id[:300]}. It is no id")
    if isinstance(share.tag, str) and not _TAG.fullmatch(share.tag):
        raise BadRequest(f"Invalid input for field/attribute tag. Value: {share.tag!r}")
    row = _server(request, "create")
    check_unlocked(request, row)
    check_state(row, "attach_share", ("stopped",))
    raise _missing(share.share_id)


def remove_share(request: Request) -> None:
    row = _server(request, "delete")
    check_unlocked(request, row)
    raise _missing(request.params["share_id"])


def _server(request: Request, verb: str) -> Row[object]:
    with request.db.read() as tx:
        return get_server(tx, request, RULE + verb)


def _missing(share_id: str) -> NotFound:
    return NotFound(f"Share {share_id[:300]} could not be found.", kind="ShareNotFound")


URL = "/v2.1/servers/{id}/shares"
SINCE = (2, 97)
ROUTES = (
    Route("GET", URL, list_shares, RULE + "index", since=SINCE),
    Route("POST", URL, add_share, RULE + "create", 201, body=AddShare, since=SINCE),
    Route("GET", URL + "/{share_id}", show_share, RULE + "show", since=SINCE),
    Route("DELETE", URL + "/{share_id}", remove_share, RULE + "delete", 200, since=SINCE),
)
