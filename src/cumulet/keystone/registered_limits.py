"""Registered limits: how much of a service's resource a project or domain has, unless a limit of its own says else.

keystone keeps these numbers and enforces none of them: services that count by unified limits read them.
"""

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
from cumulet.keystone.tables import limits, regions, registered_limits, services

Number = Annotated[int, Meta(ge=-1, le=0x7FFFFFFF)]
"""-1 is no limit."""


class NewRegisteredLimit(Open):
    service_id: IdText
    resource_name: Name
    default_limit: Number
    region_id: Name | None = None
    description: Description = None


class NewRegisteredLimitsBody(Open):
    registered_limits: Annotated[list[NewRegisteredLimit], Meta(min_length=1)]


class ChangedRegisteredLimit(Open):
    service_id: IdText | UnsetType = UNSET
    resource_name: Name | UnsetType = UNSET
    default_limit: Number | UnsetType = UNSET
    region_id: Name | UnsetType | None = UNSET
    description: Description | UnsetType = UNSET


class ChangedRegisteredLimitBody(Open):
    registered_limit: ChangedRegisteredLimit


LISTING = Listing(
    registered_limits.c.id,
    {name: registered_limits.c[name] for name in ("service_id", "region_id", "resource_name")},
    default_sort=(("id", "asc"),),
)


def list_registered_limits(request: Request) -> Json:
    with request.db.read() as tx:
        page = list_page(tx, sa.select(registered_limits), request, LISTING)
    return documents.collection(request, "registered_limits", (view(request, row) for row in page.rows), page)


def show_registered_limit(request: Request) -> Json:
    with request.db.read() as tx:
        return {"registered_limit": view(request, get_registered_limit(tx, request))}


def create_registered_limits(request: Request) -> Json:
    """All of them or none."""
    made = []
    with request.db.transaction() as tx:
        for wanted in request.body.registered_limits:
            check_place(tx, wanted.service_id, wanted.region_id)
            row = {"id": documents.new_id(), **schema.given(wanted), "created_at": clock.now()}
            _write(tx, registered_limits.insert(), {**row, "region_id": wanted.region_id or ""})
            documents.notify(tx, request, "registered_limit.created", row["id"])
            made.append(view(request, _row(tx, row["id"])))
    return documents.collection(request, "registered_limits", made)


def update_registered_limit(request: Request) -> Json:
    with request.db.transaction() as tx:
        row = get_registered_limit(tx, request, lock=True)
        values = schema.given(request.body.registered_limit)
        where = ("service_id", "region_id", "resource_name")
        if any(name in values and (values[name] or "") != getattr(row, name) for name in where):
            _check_free(tx, row)
        check_place(tx, values.get("service_id", row.service_id), values.get("region_id", row.region_id))
        if "region_id" in values:
            values["region_id"] = values["region_id"] or ""
        if values:
            _write(tx, sa.update(registered_limits).where(registered_limits.c.id == row.id), values)
            documents.notify(tx, request, "registered_limit.updated", row.id)
        return {"registered_limit": view(request, _row(tx, row.id))}


def delete_registered_limit(request: Request) -> None:
    with request.db.transaction() as tx:
        row = get_registered_limit(tx, request)
        _check_free(tx, row)
        tx.write(sa.delete(registered_limits).where(registered_limits.c.id == row.id))
        documents.notify(tx, request, "registered_limit.deleted", row.id)


def get_registered_limit(tx: Transaction, request: Request, *, lock: bool = False) -> Row[Any]:
    key = request.params["registered_limit_id"]
    row = documents.find_row(tx, registered_limits, key, lock=lock)
    if row is None:
        raise documents.missing("registered limit", key)
    return row


def check_place(tx: Transaction, service_id: str, region_id: str | None) -> None:
    """BadRequest, as upstream, where the service or the region does not exist."""
    if documents.find_row(tx, services, service_id) is None:
        raise BadRequest(f"Could not find service: {service_id}.")
    if region_id and documents.find_row(tx, regions, region_id) is None:
        raise BadRequest(f"Could not find region: {region_id}.")


def view(request: Request, row: Row[Any]) -> Json:
    return {
        "id": row.id,
        "service_id": row.service_id,
        "region_id": row.region_id or None,
        "resource_name": row.resource_name,
        "default_limit": row.default_limit,
        "description": row.description,
        "links": {"self": documents.link(request, f"registered_limits/{row.id}")},
    }


def _check_free(tx: Transaction, row: Row[Any]) -> None:
    mine = limits.c.registered_limit_id == row.id
    if tx.find(sa.select(limits.c.id).where(mine)):
        raise Forbidden(
            f"Unable to update or delete registered limit {row.id} because there are project limits associated "
            "with it."
        )


def _write(tx: Transaction, statement: Any, values: Json) -> None:
    try:
        tx.write(statement, values) if isinstance(statement, sa.Insert) else tx.write(statement.values(values))
    except Conflict as error:
        raise Conflict("Conflict occurred attempting to store registered_limit - Duplicate entry.") from error


def _row(tx: Transaction, key: str) -> Row[Any]:
    return tx.all(sa.select(registered_limits).where(registered_limits.c.id == key))[0]


_ALL, _ONE = "/v3/registered_limits", "/v3/registered_limits/{registered_limit_id}"
ROUTES = [
    Route("GET", _ALL, list_registered_limits, "identity:list_registered_limits"),
    Route("POST", _ALL, create_registered_limits, "identity:create_registered_limits", 201,
          body=NewRegisteredLimitsBody),
    Route("GET", _ONE, show_registered_limit, "identity:get_registered_limit"),
    Route("PATCH", _ONE, update_registered_limit, "identity:update_registered_limit",
          body=ChangedRegisteredLimitBody),
    Route("DELETE", _ONE, delete_registered_limit, "identity:delete_registered_limit", 204),
]  # fmt: skip
