"""The services in the catalogue."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from cumulet.core import clock, schema
from cumulet.core.db import Transaction
from cumulet.core.http import Json, Request, Route
from cumulet.core.listing import Listing, list_page
from cumulet.core.schema import UNSET, Open, UnsetType
from cumulet.keystone import documents
from cumulet.keystone.documents import Description, Name
from cumulet.keystone.tables import services


class NewService(Open):
    type: Name
    name: str | None = None
    description: Description = None
    enabled: bool = True


class NewServiceBody(Open):
    service: NewService


class ChangedService(Open):
    type: Name | UnsetType = UNSET
    name: str | UnsetType | None = UNSET
    description: Description | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET


class ChangedServiceBody(Open):
    service: ChangedService


LISTING = Listing(
    services.c.id, {"name": services.c.name, "type": services.c.type}, default_sort=(("type", "asc"),)
)


def list_services(request: Request) -> Json:
    with request.db.read() as tx:
        page = list_page(tx, sa.select(services), request, LISTING)
    return documents.collection(request, "services", (view(request, row) for row in page.rows), page)


def show_service(request: Request) -> Json:
    with request.db.read() as tx:
        return {"service": view(request, get_service(tx, request.params["service_id"]))}


def create_service(request: Request) -> Json:
    wanted: NewService = request.body.service
    extra = documents.extras(request, "service", NewService)
    row: Json = {"id": documents.new_id(), **schema.given(wanted), "extra": extra, "created_at": clock.now()}
    with request.db.transaction() as tx:
        tx.write(services.insert(), row)
        documents.notify(tx, request, "service.created", row["id"])
        return {"service": view(request, get_service(tx, row["id"]))}


def update_service(request: Request) -> Json:
    with request.db.transaction() as tx:
        row = get_service(tx, request.params["service_id"], lock=True)
        extra = {**row.extra, **documents.extras(request, "service", ChangedService)}
        values = {**schema.given(request.body.service), "extra": extra}
        tx.write(sa.update(services).where(services.c.id == row.id).values(values))
        documents.notify(tx, request, "service.updated", row.id)
        return {"service": view(request, get_service(tx, row.id))}


def delete_service(request: Request) -> None:
    """Its endpoints go with it (foreign key)."""
    with request.db.transaction() as tx:
        row = get_service(tx, request.params["service_id"])
        tx.write(sa.delete(services).where(services.c.id == row.id))
        documents.notify(tx, request, "service.deleted", row.id)


def get_service(tx: Transaction, service_id: str, *, lock: bool = False) -> Row[Any]:
    row = documents.find_row(tx, services, service_id, lock=lock)
    if row is None:
        raise documents.missing("service", service_id)
    return row


def view(request: Request, row: Row[Any]) -> Json:
    named = {name: value for name in ("name", "description") if (value := getattr(row, name)) is not None}
    return {
        **row.extra,
        **named,
        "id": row.id,
        "type": row.type,
        "enabled": row.enabled,
        "links": {"self": documents.link(request, f"services/{row.id}")},
    }


ROUTES = [
    Route("GET", "/v3/services", list_services, "identity:list_services"),
    Route("POST", "/v3/services", create_service, "identity:create_service", 201, body=NewServiceBody),
    Route("GET", "/v3/services/{service_id}", show_service, "identity:get_service"),
    Route("PATCH", "/v3/services/{service_id}", update_service, "identity:update_service", body=ChangedServiceBody),
    Route("DELETE", "/v3/services/{service_id}", delete_service, "identity:delete_service", 204),
]
