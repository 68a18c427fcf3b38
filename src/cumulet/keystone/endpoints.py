"""The endpoints in the catalogue.  A URL may hold ``%(project_id)s`` and ``%(user_id)s``, and no other value."""

import re
from typing import Annotated, Any, Literal

import sqlalchemy as sa
from msgspec import Meta
from sqlalchemy.engine import Row

from cumulet.core import clock, schema
from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest
from cumulet.core.http import Json, Request, Route
from cumulet.core.listing import Listing, list_page
from cumulet.core.schema import UNSET, Open, UnsetType
from cumulet.keystone import documents
from cumulet.keystone.services import get_service
from cumulet.keystone.tables import endpoints, regions

Interface = Literal["public", "internal", "admin"]
Url = Annotated[str, Meta(max_length=2048, pattern=r"^[a-zA-Z0-9+.-]+:.+")]
RegionId = Annotated[str, Meta(min_length=1, max_length=255)] | None
_MARK = re.compile(r"[%$]\((\w*)\)(s?)")
MARKS = frozenset({"project_id", "tenant_id", "user_id"})


class NewEndpoint(Open):
    service_id: str
    interface: Interface
    url: Url
    region_id: RegionId | UnsetType = UNSET
    region: RegionId | UnsetType = UNSET  # the older name
    enabled: bool = True


class NewEndpointBody(Open):
    endpoint: NewEndpoint


class ChangedEndpoint(Open):
    service_id: str | UnsetType = UNSET
    interface: Interface | UnsetType = UNSET
    url: Url | UnsetType = UNSET
    region_id: RegionId | UnsetType = UNSET
    region: RegionId | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET


class ChangedEndpointBody(Open):
    endpoint: ChangedEndpoint


LISTING = Listing(
    endpoints.c.id,
    {
        "service_id": endpoints.c.service_id,
        "interface": endpoints.c.interface,
        "region_id": endpoints.c.region_id,
        "region": endpoints.c.region_id,
        "created_at": endpoints.c.created_at,
    },
)


def list_endpoints(request: Request) -> Json:
    with request.db.read() as tx:
        page = list_page(tx, sa.select(endpoints), request, LISTING)
    return documents.collection(request, "endpoints", (view(request, row) for row in page.rows), page)


def show_endpoint(request: Request) -> Json:
    with request.db.read() as tx:
        return {"endpoint": view(request, get_endpoint(tx, request.params["endpoint_id"]))}


def create_endpoint(request: Request) -> Json:
    extra = documents.extras(request, "endpoint", NewEndpoint)
    with request.db.transaction() as tx:
        row = {"id": documents.new_id(), **_values(tx, request.body.endpoint)}
        tx.write(endpoints.insert(), {**row, "extra": extra, "created_at": clock.now()})
        documents.notify(tx, request, "endpoint.created", row["id"])
        return {"endpoint": view(request, get_endpoint(tx, row["id"]))}


def update_endpoint(request: Request) -> Json:
    with request.db.transaction() as tx:
        row = get_endpoint(tx, request.params["endpoint_id"], lock=True)
        extra = {**row.extra, **documents.extras(request, "endpoint", ChangedEndpoint)}
        values = {**_values(tx, request.body.endpoint), "extra": extra}
        tx.write(sa.update(endpoints).where(endpoints.c.id == row.id).values(values))
        documents.notify(tx, request, "endpoint.updated", row.id)
        return {"endpoint": view(request, get_endpoint(tx, row.id))}


def delete_endpoint(request: Request) -> None:
    with request.db.transaction() as tx:
        row = get_endpoint(tx, request.params["endpoint_id"])
        tx.write(sa.delete(endpoints).where(endpoints.c.id == row.id))
        documents.notify(tx, request, "endpoint.deleted", row.id)


def get_endpoint(tx: Transaction, endpoint_id: str, *, lock: bool = False) -> Row[Any]:
    row = documents.find_row(tx, endpoints, endpoint_id, lock=lock)
    if row is None:
        raise documents.missing("endpoint", endpoint_id)
    return row


def view(request: Request, row: Row[Any]) -> Json:
    return {
        **row.extra,
        "id": row.id,
        "service_id": row.service_id,
        "interface": row.interface,
        "url": row.url,
        "region": row.region_id,
        "region_id": row.region_id,
        "enabled": row.enabled,
        "links": {"self": documents.link(request, f"endpoints/{row.id}")},
    }


def _values(tx: Transaction, wanted: NewEndpoint | ChangedEndpoint) -> Json:
    """The columns that are given; what they name exists.  The older ``region`` makes a region that is new."""
    values = schema.given(wanted)
    older = values.pop("region", None)
    if isinstance(wanted.region_id, UnsetType) and older is not None:
        values["region_id"] = older
        if documents.find_row(tx, regions, older) is None:
            tx.write(regions.insert(), {"id": older, "created_at": clock.now()})
    region_id = values.get("region_id")
    if region_id is not None and documents.find_row(tx, regions, region_id) is None:
        raise documents.missing("region", region_id)
    if "service_id" in values:
        get_service(tx, values["service_id"])
    if "url" in values:
        _check_url(values["url"])
    return values


def _check_url(url: str) -> None:
    left = _MARK.sub(lambda mark: "" if mark[1] in MARKS and mark[2] else mark[0], url)
    if "%(" in left or "$(" in left:
        raise BadRequest(f"Cannot create an endpoint with an invalid URL: {url}.")


ROUTES = [
    Route("GET", "/v3/endpoints", list_endpoints, "identity:list_endpoints"),
    Route("POST", "/v3/endpoints", create_endpoint, "identity:create_endpoint", 201, body=NewEndpointBody),
    Route("GET", "/v3/endpoints/{endpoint_id}", show_endpoint, "identity:get_endpoint"),
    Route(
        "PATCH",
        "/v3/endpoints/{endpoint_id}",
        update_endpoint,
        "identity:update_endpoint",
        body=ChangedEndpointBody,
    ),
    Route("DELETE", "/v3/endpoints/{endpoint_id}", delete_endpoint, "identity:delete_endpoint", 204),
]
