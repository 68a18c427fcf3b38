"""``createImage`` and ``createBackup``: an image of a server's disk as it is at one moment.

The row of the image is glance's and is made here, in nova's transaction; the server's host copies the disk and
sends it to glance.  A server that runs goes on running; one that is locked is not changed by it.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import UNSET, Meta, UnsetType
from sqlalchemy.engine import Row

from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest
from cumulet.core.http import Reply, Request, Route
from cumulet.core.schema import Strict
from cumulet.glance import public as glance
from cumulet.glance.model import SnapshotWish
from cumulet.nova import images, snapshots
from cumulet.nova.checks import check_metadata, check_name
from cumulet.nova.server_actions import URL, check_placed, check_state
from cumulet.nova.server_create import check_metadata_quota
from cumulet.nova.servers import POLICY, Order, get_server, order

BACKUP_POLICY = "os_compute_api:os-create-backup"
STATES = ("active", "stopped", "paused", "suspended")


class NewImage(Strict):
    name: str
    metadata: dict[str, str] | UnsetType = UNSET


class CreateImage(Strict):
    createImage: NewImage


class NewBackup(Strict):
    name: str
    backup_type: Annotated[str, Meta(min_length=1, max_length=255)]
    rotation: int | str
    metadata: dict[str, str] | UnsetType = UNSET


class CreateBackup(Strict):
    createBackup: NewBackup


def create_image(request: Request) -> Reply:
    wish: NewImage = request.body.createImage
    return _told(request, _create(request, POLICY + "create_image", wish, snapshots.SNAPSHOT, {}))


def create_backup(request: Request) -> Reply:
    """An image, and then the oldest of the server's backups of this type go until ``rotation`` are left."""
    wish: NewBackup = request.body.createBackup
    if not re.fullmatch("[0-9]{1,9}", str(wish.rotation), re.ASCII):
        raise BadRequest(f"Invalid input for field/attribute rotation. Value: {str(wish.rotation)[:300]}")
    params = {"backup_type": wish.backup_type, "rotation": int(wish.rotation)}
    image_id = _create(request, BACKUP_POLICY, wish, snapshots.BACKUP, params)
    return _told(request, image_id) if params["rotation"] else Reply()


def _create(request: Request, rule: str, wish: NewImage | NewBackup, action: str, params: Mapping[str, Any]) -> str:
    """The new image's id."""
    name = check_name(wish.name)
    metadata = {} if wish.metadata is UNSET else check_metadata(wish.metadata)
    if isinstance(wish, NewBackup):
        metadata |= {"image_type": "backup", "backup_type": wish.backup_type}
    with request.db.transaction() as tx:
        row = get_server(tx, request, rule)
        check_placed(row)
        check_state(row, action, STATES)
        check_metadata_quota(tx, row.project_id, metadata)
        image_id = glance.create_snapshot(tx, request.context, _wish(tx, request, row, name, metadata))
        made = {**params, "image_id": image_id, "owner": row.project_id}
        order(tx, request, row, Order(action, verb=True, params=made))
    return image_id


def _told(request: Request, image_id: str) -> Reply:
    if request.version >= (2, 45):
        return Reply({"image_id": image_id})
    return Reply(headers={"Location": images.image_url(request, image_id)})


def _wish(tx: Transaction, request: Request, row: Row[Any], name: str, metadata: dict[str, str]) -> SnapshotWish:
    """What the new image inherits of the server's own, and what it is."""
    base = glance.find_images(tx, [row.image_id]).get(row.image_id)
    properties = {
        **(base.properties if base else {}),
        "base_image_ref": row.image_id or "",
        "image_type": "snapshot",
        "instance_uuid": row.id,
        "user_id": request.context.user_id,
        **metadata,
    }
    return SnapshotWish(
        name=name,
        owner=row.project_id,
        min_disk=max(row.root_gb, base.min_disk if base else 0),
        min_ram=base.min_ram if base else 0,
        properties=properties,
    )


ROUTES = (
    Route("POST", URL, create_image, POLICY + "create_image", 202, body=CreateImage, action=snapshots.SNAPSHOT),
    Route("POST", URL, create_backup, BACKUP_POLICY, 202, body=CreateBackup, action=snapshots.BACKUP),
)
