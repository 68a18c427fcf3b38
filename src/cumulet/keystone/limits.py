"""Limits: what one project or domain has instead of a registered limit's default.  keystone enforces none."""

from typing import Annotated, Any

import sqlalchemy as sa
from msgspec import Meta
from sqlalchemy.engine import Row

from cumulet.core import clock, schema
from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, Conflict, Forbidden
from cumulet.core.http import Json, Request, Route
from cumulet.core.listing import Listing, list_page
from cumulet.core.schema import UNSET, Open, UnsetType
from cumulet.keystone import documents
from cumulet.keystone.documents import Description, IdText, Name
from cumulet.keystone.registered_limits import Number, check_place
from cumulet.keystone.tables import limits, projects, registered_limits

MODEL = {
    "name": "flat",
    "description": "Limit enforcement and validation does not take project hierarchy into consideration.",
}
_ROWS = sa.select(
    limits,
    registered_limits.c.service_id,
    registered_limits.c.region_id,
    registered_limits.c.resource_name,
    projects.c.is_domain,
    projects.c.domain_id.label("home_id"),
).select_from(
    limits.join(registered_limits, registered_limits.c.id == limits.c.registered_limit_id).join(
        projects, projects.c.id == limits.c.project_id
    )
)


class NewLimit(Open):
    """For a project, or for a domain."""

    service_id: IdText
    resource_name: Name
    resource_limit: Number
    project_id: IdText | None = None
    domain_id: IdText | None = None
    region_id: Name | None = None
    description: Description = None


class NewLimitsBody(Open):
    limits: Annotated[list[NewLimit], Meta(min_length=1)]


class ChangedLimit(Open):
    resource_limit: Number | UnsetType = UNSET
    description: Description | UnsetType = UNSET


class ChangedLimitBody(Open):
    limit: ChangedLimit


LISTING = Listing(
    limits.c.id,
    {
        "service_id": registered_limits.c.service_id,
        "region_id": registered_limits.c.region_id,
        "resource_name": registered_limits.c.resource_name,
    },
    {
        "project_id": lambda values: sa.and_(limits.c.project_id.in_(values), sa.not_(projects.c.is_domain)),
        "domain_id": lambda values: sa.and_(limits.c.project_id.in_(values), projects.c.is_domain),
    },
    default_sort=(("id", "asc"),),
)


def show_model(request: Request) -> Json:
    return {"model": MODEL}


def list_limits(request: Request) -> Json:
    """All for administrators and readers of the system, else those of the project or domain of the token."""
    statement, context = _ROWS, request.context
    if not request.allows("identity:get_limit", {}):
        mine = limits.c.project_id.in_([context.project_id or context.domain_id])
        statement = statement.where(sa.or_(mine, projects.c.domain_id == (context.domain_id or None)))
    with request.db.read() as tx:
        page = list_page(tx, statement, request, LISTING)
    return documents.collection(request, "limits", (view(request, row) for row in page.rows), page)


def show_limit(request: Request) -> Json:
    with request.db.read() as tx:
        return {"limit": view(request, get_limit(tx, request, "identity:get_limit"))}


def create_limits(request: Request) -> Json:
    """All of them or none."""
    made = []
    with request.db.transaction() as tx:
        for wanted in request.body.limits:
            row = {
                "id": documents.new_id(),
                "registered_limit_id": _registered(tx, wanted),
                "project_id": _owner(tx, wanted),
                "resource_limit": wanted.resource_limit,
                "description": wanted.description,
                "created_at": clock.now(),
            }
            try:
                tx.write(limits.insert(), row)
            except Conflict as error:
                raise Conflict("Conflict occurred attempting to store limit - Duplicate entry.") from error
            documents.notify(tx, request, "limit.created", row["id"])
            made.append(view(request, _row(tx, row["id"])))
    return documents.collection(request, "limits", made)


def update_limit(request: Request) -> Json:
    with request.db.transaction() as tx:
        row = get_limit(tx, request, "identity:update_limit")
        values = schema.given(request.body.limit)
        if values:
            tx.write(sa.update(limits).where(limits.c.id == row.id).values(values))
            documents.notify(tx, request, "limit.updated", row.id)
        return {"limit": view(request, _row(tx, row.id))}


def delete_limit(request: Request) -> None:
    with request.db.transaction() as tx:
        row = get_limit(tx, request, "identity:delete_limit")
        tx.write(sa.delete(limits).where(limits.c.id == row.id))
        documents.notify(tx, request, "limit.deleted", row.id)


def get_limit(tx: Transaction, request: Request, rule: str) -> Row[Any]:
    """The one in the URL; who may not see it is told the same as of one that does not exist."""
    key = request.params["limit_id"]
    row = tx.find(_ROWS.where(limits.c.id == key))
    request.enforce(rule, _target(row) if row else {"target.limit.project_id": None})
    if row is None:
        raise documents.missing("limit", key)
    return row


def view(request: Request, row: Row[Any]) -> Json:
    return {
        "id": row.id,
        "project_id": None if row.is_domain else row.project_id,
        "domain_id": row.project_id if row.is_domain else None,
        "service_id": row.service_id,
        "region_id": row.region_id or None,
        "resource_name": row.resource_name,
        "resource_limit": row.resource_limit,
        "description": row.description,
        "links": {"self": documents.link(request, f"limits/{row.id}")},
    }


def _target(row: Row[Any]) -> Json:
    if row.is_domain:
        return {"target.limit.domain.id": row.project_id, "target.limit.project_id": None}
    return {"target.limit.project_id": row.project_id, "target.limit.project.domain_id": row.home_id}


def _registered(tx: Transaction, wanted: NewLimit) -> str:
    check_place(tx, wanted.service_id, wanted.region_id)
    statement = sa.select(registered_limits.c.id).where(
        registered_limits.c.service_id == wanted.service_id,
        registered_limits.c.region_id == (wanted.region_id or ""),
        registered_limits.c.resource_name == wanted.resource_name,
    )
    found = tx.value(statement)
    if found is None:
        raise Forbidden("Unable to create a limit that has no corresponding registered limit.")
    return str(found)


def _owner(tx: Transaction, wanted: NewLimit) -> str:
    if (wanted.project_id is None) == (wanted.domain_id is None):
        raise BadRequest("Invalid input: a limit is for a project_id or for a domain_id")
    key = wanted.project_id or wanted.domain_id or ""
    row = documents.find_row(tx, projects, key)
    if row is None or row.is_domain is not (wanted.domain_id is not None):
        raise BadRequest(f"Could not find {'project' if wanted.project_id else 'domain'}: {key}.")
    return key


def _row(tx: Transaction, key: str) -> Row[Any]:
    return tx.all(_ROWS.where(limits.c.id == key))[0]


_ALL, _ONE = "/v3/limits", "/v3/limits/{limit_id}"
ROUTES = [
    Route("GET", "/v3/limits/model", show_model, "identity:get_limit_model"),
    Route("GET", _ALL, list_limits, "identity:list_limits"),
    Route("POST", _ALL, create_limits, "identity:create_limits", 201, body=NewLimitsBody),
    Route("GET", _ONE, show_limit, "identity:get_limit"),
    Route("PATCH", _ONE, update_limit, "identity:update_limit", body=ChangedLimitBody),
    Route("DELETE", _ONE, delete_limit, "identity:delete_limit", 204),
]
