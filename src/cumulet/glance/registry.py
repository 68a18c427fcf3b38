"""glance-registry: the service that owns the images' metadata.

The only one that reads and writes glance's tables; glance-api asks it for everything (``registry_client`` is the
other end).  A request is admitted by the envelope that glance-api seals, never by a user's token, and what it may
touch is decided here by visibility: an image that the caller may not see is not found.  Policies are glance-api's.
"""

from typing import Any

import msgspec
import sqlalchemy as sa
from msgspec import UNSET, UnsetType

from cumulet.core import clock
from cumulet.core.controller import ControllerEnv
from cumulet.core.db import Transaction
from cumulet.core.errors import ApiError, BadRequest, Conflict, Forbidden, Unauthorized
from cumulet.core.http import App, Caller, Reply, Request, Route
from cumulet.core.policy import AUTHENTICATED, PUBLIC, Policies
from cumulet.core.schema import Strict, encode, given
from cumulet.core.service import Service
from cumulet.glance import (
    records,
    registry_data,
    registry_imports,
    registry_members,
    registry_metadefs,
    registry_reports,
)
from cumulet.glance.model import Record, RecordPage
from cumulet.glance.registry_client import MOVED, Failure, unseal
from cumulet.glance.registry_filters import list_rows
from cumulet.glance.registry_notes import notify
from cumulet.glance.removal import remove_image
from cumulet.glance.tables import image_tags, images

PORT = 9191


class NewImage(Strict):
    id: str
    owner: str | None
    name: str | None
    visibility: str
    protected: bool
    os_hidden: bool
    disk_format: str | None
    container_format: str | None
    min_disk: int
    min_ram: int
    properties: dict[str, str]
    tags: list[str]


class Change(Strict):
    """What to change; ``revision`` is the image's as the caller of the API saw it."""

    revision: int
    owner: str | UnsetType | None = UNSET
    name: str | UnsetType | None = UNSET
    visibility: str | UnsetType = UNSET
    protected: bool | UnsetType = UNSET
    os_hidden: bool | UnsetType = UNSET
    disk_format: str | UnsetType | None = UNSET
    container_format: str | UnsetType | None = UNSET
    min_disk: int | UnsetType = UNSET
    min_ram: int | UnsetType = UNSET
    properties: dict[str, str] | UnsetType = UNSET
    tags: list[str] | UnsetType = UNSET
    deactivated: bool | UnsetType = UNSET


def create_image(request: Request) -> Record:
    values = given(request.body)
    tags = values.pop("tags")
    now = clock.now()
    with request.db.transaction() as tx:
        try:
            tx.write(images.insert(), {**values, "created_at": now, "updated_at": now, "revision": 1})
        except Conflict as error:
            raise Conflict(f"Image ID {values['id']} already exists!", kind="Duplicate") from error
        _write_tags(tx, values["id"], tags)
        record = _record(tx, request, values["id"])
        notify(tx, request, "image.create", record)
        return record


def list_images(request: Request) -> RecordPage:
    with request.db.read() as tx:
        page = list_rows(tx, request)
        return RecordPage(records.records_of(tx, page.rows), page.next_marker)


def get_image(request: Request) -> Record:
    with request.db.read() as tx:
        return _record(tx, request, request.params["image_id"])


def change_image(request: Request) -> Record:
    values = given(request.body)
    revision, tags = values.pop("revision"), values.pop("tags", None)
    with request.db.transaction() as tx:
        row = records.get_row(tx, request.context, request.params["image_id"])
        values |= {"updated_at": clock.now(), "revision": revision + 1}
        statement = sa.update(images).where(
            images.c.id == row.id, images.c.revision == revision, images.c.deleted_at.is_(None)
        )
        if not tx.write(statement.values(values)):
            raise _moved(row.id)
        if tags is not None:
            tx.write(sa.delete(image_tags).where(image_tags.c.image_id == row.id))
            _write_tags(tx, row.id, tags)
        record = records.records_of(tx, records.find_rows(tx, [row.id]))[0]
        notify(tx, request, "image.update", record)
        return record


def delete_image(request: Request) -> None:
    revision = request.one("revision") or ""
    if not revision.isdigit():
        raise BadRequest("a deletion names the revision that it is meant for")
    with request.db.transaction() as tx:
        record = _record(tx, request, request.params["image_id"])
        if record.protected:
            raise Forbidden(f"Image {record.id} is protected and cannot be deleted.")
        now = remove_image(tx, record.id, images.c.revision == int(revision))
        if now is None:
            raise _moved(record.id)
        notify(tx, request, "image.delete", record, deleted_at=now)


def _record(tx: Transaction, request: Request, image_id: str) -> Record:
    row = records.get_row(tx, request.context, image_id)
    record = records.records_of(tx, [row])[0]
    member = records.find_membership(tx, request.context, row)
    return msgspec.structs.replace(record, member=member) if member else record


def _write_tags(tx: Transaction, image_id: str, tags: list[str]) -> None:
    if tags:
        tx.write(image_tags.insert(), [{"image_id": image_id, "tag": tag} for tag in dict.fromkeys(tags)])


def _moved(image_id: str) -> Conflict:
    return Conflict(f"image {image_id} was changed by somebody else", kind=MOVED)


ROUTES = [
    Route("GET", "/healthcheck", lambda request: Reply(b"OK", content_type="text/plain"), PUBLIC),
    Route("POST", "/images", create_image, AUTHENTICATED, 201, body=NewImage),
    Route("GET", "/images", list_images, AUTHENTICATED),
    Route("GET", "/images/{image_id}", get_image, AUTHENTICATED),
    Route("PATCH", "/images/{image_id}", change_image, AUTHENTICATED, body=Change),
    Route("DELETE", "/images/{image_id}", delete_image, AUTHENTICATED, 204),
    *registry_data.ROUTES,
    *registry_imports.ROUTES,
    *registry_reports.ROUTES,
    *registry_members.ROUTES,
    *registry_metadefs.ROUTES,
]


def build(env: ControllerEnv) -> Service:
    return Service(app=build_app(env))


def build_app(env: ControllerEnv) -> App:
    def refuse(host: str, token: str) -> Any:
        raise Unauthorized("glance-registry serves glance-api only")

    return App(
        "glance-registry",
        ROUTES,
        db=env.db,
        config=env.config,
        policies=Policies({}),
        caller=Caller(lambda envelope: unseal(env.secrets.registry_secret, envelope), refuse),
        render_error=_render_error,
    )


def _render_error(error: ApiError) -> tuple[bytes, str]:
    return encode(Failure(error.message, error.kind)), "application/json"
