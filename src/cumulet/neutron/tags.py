"""/v2.0/{collection}/{id}/tags: words that users put on their things.

The thing itself is looked up first, as its owner would see it, and each verb has the rule of that collection: a
tag has no owner of its own (OSSA-2024-005, OSSA-2026-016).
"""

from typing import Annotated, Any

import sqlalchemy as sa
from msgspec import Meta
from sqlalchemy.engine import Row

from cumulet.core.db import Transaction
from cumulet.core.errors import NotFound, Retry
from cumulet.core.http import Request, Route
from cumulet.core.policy import AUTHENTICATED
from cumulet.core.schema import Strict
from cumulet.neutron import checks, standard
from cumulet.neutron.floatingips import get_floatingip
from cumulet.neutron.networks import get_network
from cumulet.neutron.ports import get_port
from cumulet.neutron.routers import get_router
from cumulet.neutron.security_group_rules import get_rule
from cumulet.neutron.security_groups import get_group
from cumulet.neutron.standard import Json
from cumulet.neutron.subnets import get_subnet
from cumulet.neutron.tables import (
    floatingips,
    networks,
    ports,
    routers,
    security_group_rules,
    security_groups,
    subnets,
)

TAGGED: dict[str, tuple[Any, sa.Table]] = {
    "networks": (get_network, networks),
    "subnets": (get_subnet, subnets),
    "ports": (get_port, ports),
    "routers": (get_router, routers),
    "floatingips": (get_floatingip, floatingips),
    "security-groups": (get_group, security_groups),
    "security-group-rules": (get_rule, security_group_rules),
}
Tag = Annotated[str, Meta(min_length=1, max_length=255)]
MOST_TAGS = 50


class Tags(Strict):
    tags: list[Tag]


def list_tags(request: Request) -> Json:
    with request.db.read() as tx:
        return {"tags": _thing(tx, request, "get")[0].tags}


def show_tag(request: Request) -> None:
    with request.db.read() as tx:
        row, _ = _thing(tx, request, "get")
    if request.params["tag"] not in row.tags:
        raise _no_tag(request)


def replace_tags(request: Request) -> Json:
    return {"tags": _write(request, "update", lambda before: list(request.body.tags))}


def create_tags(request: Request) -> Json:
    return {"tags": _write(request, "create", lambda before: [*before, *request.body.tags])}


def put_tag(request: Request) -> None:
    _write(request, "update", lambda before: [*before, request.params["tag"]])


def delete_tags(request: Request) -> None:
    _write(request, "delete", lambda before: [])


def delete_tag(request: Request) -> None:
    def without(before: list[str]) -> list[str]:
        if request.params["tag"] not in before:
            raise _no_tag(request)
        return [tag for tag in before if tag != request.params["tag"]]

    _write(request, "delete", without)


def _write(request: Request, verb: str, change: Any) -> list[str]:
    with request.db.transaction() as tx:
        row, table = _thing(tx, request, verb)
        tags = sorted(set(change(row.tags)))
        if len(tags) > MOST_TAGS:
            raise checks.bad(f"The number of tags exceed the maximum number of tags allowed: {MOST_TAGS}")
        if any("," in tag or not tag or len(tag) > 255 for tag in tags):
            raise checks.bad("A tag has 1 to 255 characters and no comma")
        if not standard.change(tx, table, row, {"tags": tags}):
            raise Retry(f"{row.id} was changed by somebody else")
        return tags


def _thing(tx: Transaction, request: Request, verb: str) -> tuple[Row[Any], sa.Table]:
    """What the URL names, if the caller may see it and use its tags so; 404 for what has no tags."""
    collection = request.params["collection"].replace("_", "-")
    if collection not in TAGGED:
        raise NotFound("The resource could not be found.", kind="HTTPNotFound")
    get, table = TAGGED[collection]
    row = get(tx, request, request.params["id"])
    about = standard.target(row)
    if table is networks:
        about = standard.target(row, row)
    request.enforce(f"{verb}_{collection.replace('-', '_')}_tags", about)
    return row, table


def _no_tag(request: Request) -> NotFound:
    return NotFound(f"Tag {checks.shown(request.params['tag'])} could not be found.", kind="TagNotFound")


BASE = "/v2.0/{collection}/{id}/tags"
ROUTES = [
    Route("GET", BASE, list_tags, AUTHENTICATED),
    Route("PUT", BASE, replace_tags, AUTHENTICATED, body=Tags),
    Route("POST", BASE, create_tags, AUTHENTICATED, 201, body=Tags),
    Route("DELETE", BASE, delete_tags, AUTHENTICATED, 204),
    Route("GET", BASE + "/{tag}", show_tag, AUTHENTICATED, 204),
    Route("PUT", BASE + "/{tag}", put_tag, AUTHENTICATED, 201),
    Route("DELETE", BASE + "/{tag}", delete_tag, AUTHENTICATED, 204),
]
