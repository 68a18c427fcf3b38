"""``/servers/{id}/tags``: words that users put on their servers, and find them by."""

from collections.abc import Callable
from urllib.parse import quote

from cumulet.core.errors import NotFound
from cumulet.core.http import Json, Reply, Request, Route
from cumulet.core.schema import Strict
from cumulet.nova.server_actions import check_state
from cumulet.nova.servers import change_server, get_server
from cumulet.nova.tag_rows import check_tags, find_tags, write_tags

_VERBS = {"update": "update tag", "update_all": "update tags", "delete": "delete tag", "delete_all": "delete tags"}
_TAGGABLE = ("active", "paused", "suspended", "stopped")


class Tags(Strict):
    tags: list[str]


def list_tags(request: Request) -> Json:
    return {"tags": _read(request, "index")}


def show_tag(request: Request) -> None:
    if request.params["tag"] not in _read(request, "show"):
        raise _missing(request)


def replace_tags(request: Request) -> Json:
    wanted = check_tags(request.body.tags)
    return {"tags": _change(request, "update_all", lambda before: wanted)[1]}


def put_tag(request: Request) -> Reply:
    tag = request.params["tag"]
    before, _ = _change(request, "update", lambda before: check_tags([*before, tag]))
    if tag in before:
        return Reply(status=204)
    url = f"{request.app.endpoint}/v2.1/servers/{request.params['id']}/tags/{quote(tag)}"
    return Reply(headers={"Location": url})


def delete_tag(request: Request) -> None:
    tag = request.params["tag"]

    def without(before: list[str]) -> list[str]:
        if tag not in before:
            raise _missing(request)
        return [other for other in before if other != tag]

    _change(request, "delete", without)


def delete_tags(request: Request) -> None:
    _change(request, "delete_all", lambda before: [])


def _read(request: Request, verb: str) -> list[str]:
    with request.db.read() as tx:
        row = get_server(tx, request, POLICY + verb)
        return find_tags(tx, [row.id]).get(row.id, [])


def _change(request: Request, verb: str, change: Callable[[list[str]], list[str]]) -> tuple[list[str], list[str]]:
    """The tags before and after."""
    with request.db.transaction() as tx:
        row = get_server(tx, request, POLICY + verb)
        check_state(row, _VERBS[verb], _TAGGABLE, busy=True)
        before = find_tags(tx, [row.id]).get(row.id, [])
        after = change(before)
        if after != before:
            change_server(tx, row, {})
            write_tags(tx, row.id, after)
        return before, after


def _missing(request: Request) -> NotFound:
    return NotFound(f"Server {request.params['id']} has no tag '{request.params['tag'][:300]}'")


POLICY = "os_compute_api:os-server-tags:"
URL = "/v2.1/servers/{id}/tags"
ROUTES = (
    Route("GET", URL, list_tags, POLICY + "index", since=(2, 26)),
    Route("PUT", URL, replace_tags, POLICY + "update_all", body=Tags, since=(2, 26)),
    Route("DELETE", URL, delete_tags, POLICY + "delete_all", 204, since=(2, 26)),
    Route("GET", URL + "/{tag}", show_tag, POLICY + "show", 204, since=(2, 26)),
    Route("PUT", URL + "/{tag}", put_tag, POLICY + "update", 201, since=(2, 26)),
    Route("DELETE", URL + "/{tag}", delete_tag, POLICY + "delete", 204, since=(2, 26)),
)
