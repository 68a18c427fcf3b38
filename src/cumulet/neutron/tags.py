"""/v2.0/{collection}/{id}/tags: words that users put on their things.

The thing itself is looked up first, as its owner would see it, and each verb has the rule of that collection: a
tag has no owner of its own (OSSA-2024-005, OSSA-2026-016).
"""

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from cumulet.core.db import Transaction
from cumulet.core.errors import NotFound, Retry
from cumulet.core.http import Request, Route
from cumulet.core.policy import AUTHENTICATED
from cumulet.core.schema import Strict
from cumulet.neutron import checks, notices, standard
from cumulet.neutron.checks import Tag
from cumulet.neutron.floatingips import get_floatingip
from cumulet.neutron.networks import get_network
from cumulet.neutron.ports import get_port, port_target
from cumulet.neutron.routers import get_router
from cumulet.neutron.security_group_rules import get_rule
from cumulet.neutron.security_groups import get_group
from cumulet.neutron.standard import Json
from cumulet.neutron.subnet_pools import get_pool
from cumulet.neutron.subnets import get_subnet, subnet_target
from cumulet.neutron.tables import (
    floatingips,
    networks,
    ports,
    routers,
    security_group_rules,
    security_groups,
    subnet_pools,
    subnets,
)

TAGGED: dict[str, tuple[Any, sa.Table]] = {
    "networks": (get_network, networks),
    "subnets": (get_subnet, subnets),
    "subnetpools": (get_pool, subnet_pools),
    "ports": (get_port, ports),
    "routers": (get_router, routers),
    "floatingips": (get_floatingip, floatingips),
    "security-groups": (get_group, security_groups),
    "security-group-rules": (get_rule, security_group_rules),
}


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
    return {"tags": _write(request, "update", "update", request.body.tags, lambda before: request.body.tags)}


def create_tags(request: Request) -> Json:
    new = request.body.tags
    return {"tags": _write(request, "create", "create", new, lambda before: [*before, *new])}


def put_tag(request: Request) -> None:
    new = [request.params["tag"]]
    _write(request, "update", "create", new, lambda before: [*before, *new])


def delete_tags(request: Request) -> None:
    _write(request, "delete", "delete_all", None, lambda before: [])


def delete_tag(request: Request) -> None:
    def without(before: list[str]) -> list[str]:
        if request.params["tag"] not in before:
            raise _no_tag(request)
        return [tag for tag in before if tag != request.params["tag"]]

    _write(request, "delete", "delete", [request.params["tag"]], without)


def _write(
    request: Request, verb: str, event: str, named: list[str] | None, change: Callable[[list[str]], list[str]]
) -> list[str]:
    """Give the thing the tags that ``change`` makes of those it has; ``named``: the tags that are told of."""
    with request.db.transaction() as tx:
        row, table = _thing(tx, request, verb)
        tags = checks.tags(change(row.tags))
        if not standard.change(tx, table, row, {"tags": tags}):
            raise Retry(f"{row.id} was changed by somebody else")
        notices.tagged(tx, request, event, request.params["collection"].replace("_", "-"), row.id, named)
        return tags


def _thing(tx: Transaction, request: Request, verb: str) -> tuple[Row[Any], sa.Table]:
    """What the URL names, if the caller may see it and use its tags so; 404 for what has no tags."""
    collection = request.params["collection"].replace("_", "-")
    if collection not in TAGGED:
        raise NotFound("The resource could not be found.", kind="HTTPNotFound")
    get, table = TAGGED[collection]
    row = get(tx, request, request.params["id"])
    about = standard.target(row, row if table is networks else None)
    if table is subnets:
        about = subnet_target(row)
    elif table is ports:
        about = port_target(tx, request, row)
    rule = f"{verb}_{collection.replace('-', '_').removesuffix('s')}:tags"
    if verb == "get":
        request.enforce(rule, about)
    else:
        standard.permit(request, rule, row, about)
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
