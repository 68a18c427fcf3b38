"""``createImage``: an image of a server's disk as it is at one moment.

The row of the image is glance's and is made here, in nova's transaction; the server's host copies the disk and
sends it to glance.  A server that runs goes on running; one that is locked is not changed by it.
"""

from typing import Any

from msgspec import UNSET, UnsetType
from sqlalchemy.engine import Row

from cumulet.core.db import Transaction
from cumulet.core.http import Reply, Request, Route
from cumulet.core.schema import Strict
from cumulet.glance import public as glance
from cumulet.glance.model import SnapshotWish
from cumulet.nova import images, snapshots
from cumulet.nova.checks import check_metadata, check_name
from cumulet.nova.server_actions import URL, check_placed, check_state
from cumulet.nova.server_create import check_metadata_quota
from cumulet.nova.servers import POLICY, Order, get_server, order

STATES = ("active", "stopped", "paused", "suspended")


class NewImage(Strict):
    name: str
    metadata: dict[str, str] | UnsetType = UNSET


class CreateImage(Strict):
    createImage: NewImage


def create_image(request: Request) -> Reply:
    wish: NewImage = request.body.createImage
    name = check_name(wish.name)
    metadata = {} if wish.metadata is UNSET else check_metadata(wish.metadata)
    with request.db.transaction() as tx:
        row = get_server(tx, request, POLICY + "create_image")
        check_placed(row)
        check_state(row, snapshots.ACTION, STATES)
        check_metadata_quota(tx, row.project_id, metadata)
        image_id = glance.create_snapshot(tx, request.context, _wish(tx, request, row, name, metadata))
        order(tx, request, row, Order(snapshots.ACTION, verb=True, params={"image_id": image_id}))
    if request.version >= (2, 45):
        return Reply({"image_id": image_id})
    return Reply(headers={"Location": images.image_url(request, image_id)})


def _wish(tx: Transaction, request: Request, row: Row[Any], name: str, metadata: dict[str, str]) -> SnapshotWish:
    """What the new image inherits of the server's own, and what it is."""
    base = glance.find_images(tx, [row.image_id]).get(row.image_id)
    properties = {
        **(base.properties if base else {}),
        **metadata,
        "image_type": "snapshot",
        "instance_uuid": row.id,
        "user_id": request.context.user_id,
        "base_image_ref": row.image_id or "",
    }
    return SnapshotWish(
        name=name,
        owner=row.project_id,
        min_disk=max(row.root_gb, base.min_disk if base else 0),
        min_ram=base.min_ram if base else 0,
        properties=properties,
    )


ROUTES = (
    Route("POST", URL, create_image, POLICY + "create_image", 202, body=CreateImage, action=snapshots.ACTION),
)
