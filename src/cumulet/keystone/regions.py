"""Regions, one inside another."""

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
from cumulet.keystone.documents import Description
from cumulet.keystone.tables import endpoints, regions

RegionId = Annotated[str, Meta(min_length=1, max_length=255)]


class NewRegion(Open):
    id: Annotated[str, Meta(max_length=255)] | UnsetType | None = UNSET
    parent_region_id: RegionId | None = None
    description: Description = ""


class NewRegionBody(Open):
    region: NewRegion


class ChangedRegion(Open):
    parent_region_id: RegionId | UnsetType | None = UNSET
    description: Description | UnsetType = UNSET


class ChangedRegionBody(Open):
    region: ChangedRegion


LISTING = Listing(
    regions.c.id,
    {"id": regions.c.id, "parent_region_id": regions.c.parent_region_id},
    default_sort=(("id", "asc"),),
)


def list_regions(request: Request) -> Json:
    with request.db.read() as tx:
        page = list_page(tx, sa.select(regions), request, LISTING)
    return documents.collection(request, "regions", (view(request, row) for row in page.rows), page)


def show_region(request: Request) -> Json:
    with request.db.read() as tx:
        return {"region": view(request, get_region(tx, request.params["region_id"]))}


def create_region(request: Request) -> Json:
    return _create(request, request.body.region.id or documents.new_id())


def create_named_region(request: Request) -> Json:
    """With the id in the URL, which is then the body's, too."""
    if request.body.region.id not in (UNSET, None, request.params["region_id"]):
        raise BadRequest("Conflicting region IDs specified.")
    return _create(request, request.params["region_id"])


def _create(request: Request, region_id: str) -> Json:
    wanted: NewRegion = request.body.region
    if len(region_id) > 255:
        raise BadRequest("Invalid input for field 'id': it is longer than 255 characters")
    row: Json = {
        "id": region_id,
        "parent_region_id": wanted.parent_region_id,
        "description": wanted.description or "",
        "extra": documents.extras(request, "region", NewRegion),
        "created_at": clock.now(),
    }
    with request.db.transaction() as tx:
        if wanted.parent_region_id:
            get_region(tx, wanted.parent_region_id)
        try:
            tx.write(regions.insert(), row)
        except Conflict as error:
            text = f"Duplicate ID, {row['id']}"
            raise Conflict(f"Conflict occurred attempting to store region - {text}.") from error
        documents.notify(tx, request, "region.created", row["id"])
        return {"region": view(request, get_region(tx, row["id"]))}


def update_region(request: Request) -> Json:
    wanted: ChangedRegion = request.body.region
    with request.db.transaction() as tx:
        row = get_region(tx, request.params["region_id"], lock=True)
        values = schema.given(wanted)
        parent: str | None = values.get("parent_region_id")
        while parent:
            if parent == row.id:
                raise BadRequest(
                    f"The specified parent region {values['parent_region_id']} would create a circular region "
                    "hierarchy."
                )
            parent = get_region(tx, parent).parent_region_id
        if "description" in values:
            values["description"] = values["description"] or ""
        values["extra"] = {**row.extra, **documents.extras(request, "region", ChangedRegion)}
        tx.write(sa.update(regions).where(regions.c.id == row.id).values(values))
        documents.notify(tx, request, "region.updated", row.id)
        return {"region": view(request, get_region(tx, row.id))}


def delete_region(request: Request) -> None:
    """With the regions inside it; refused while any of them has an endpoint."""
    with request.db.transaction() as tx:
        row = get_region(tx, request.params["region_id"])
        levels = [[row.id]]
        while inner := tx.all(sa.select(regions.c.id).where(regions.c.parent_region_id.in_(levels[-1]))):
            levels.append([each.id for each in inner])
        ids = [region_id for level in levels for region_id in level]
        if tx.find(sa.select(endpoints.c.id).where(endpoints.c.region_id.in_(ids))):
            raise Forbidden(
                f"Unable to delete region {row.id} because it or its child regions have associated endpoints."
            )
        for level in reversed(levels):
            tx.write(sa.delete(regions).where(regions.c.id.in_(level)))
        documents.notify(tx, request, "region.deleted", row.id)


def get_region(tx: Transaction, region_id: str, *, lock: bool = False) -> Row[Any]:
    row = documents.find_row(tx, regions, region_id, lock=lock)
    if row is None:
        raise documents.missing("region", region_id)
    return row


def view(request: Request, row: Row[Any]) -> Json:
    return {
        **row.extra,
        "id": row.id,
        "description": row.description,
        "parent_region_id": row.parent_region_id,
        "links": {"self": documents.link(request, f"regions/{row.id}")},
    }


ROUTES = [
    Route("GET", "/v3/regions", list_regions, "identity:list_regions"),
    Route("POST", "/v3/regions", create_region, "identity:create_region", 201, body=NewRegionBody),
    Route("GET", "/v3/regions/{region_id}", show_region, "identity:get_region"),
    Route("PUT", "/v3/regions/{region_id}", create_named_region, "identity:create_region", 201, body=NewRegionBody),
    Route("PATCH", "/v3/regions/{region_id}", update_region, "identity:update_region", body=ChangedRegionBody),
    Route("DELETE", "/v3/regions/{region_id}", delete_region, "identity:delete_region", 204),
]
