"""What other projects may ask of glance, inside their own transaction."""

import uuid
from collections.abc import Iterable

import sqlalchemy as sa

from cumulet.core import clock
from cumulet.core.context import Context
from cumulet.core.db import Transaction
from cumulet.core.errors import Forbidden
from cumulet.core.secrets import sign
from cumulet.glance import records
from cumulet.glance.image_fields import OWN_NAMES, check_properties, check_writable
from cumulet.glance.model import Image, SnapshotWish
from cumulet.glance.registry_data import TOPIC
from cumulet.glance.registry_notes import describe
from cumulet.glance.tables import image_tags, images

__all__ = ["create_snapshot", "delete_snapshot", "find_images", "get_image", "image_ticket", "upload_ticket"]
PUBLISHER = "image"


def get_image(tx: Transaction, context: Context, image_id: str) -> Image:
    """The image, in whatever status; NotFound if there is none that the caller may see."""
    return records.image_of(records.get_row(tx, context, image_id))


def find_images(tx: Transaction, ids: Iterable[str]) -> dict[str, Image]:
    """Those of the images that exist, by id, without a look at who asks."""
    wanted = list(dict.fromkeys(ids))
    return {row.id: records.image_of(row) for row in records.find_rows(tx, wanted)} if wanted else {}


def image_ticket(secret: str, image_id: str, host: str) -> str:
    """Proof towards glance-api that ``host`` may fetch the image; ``secret`` is the cloud's ``host_secret``."""
    return sign(secret, f"image:{image_id}:{host}")


def upload_ticket(secret: str, image_id: str, host: str) -> str:
    """Proof towards glance-api that ``host`` may send the data of the image, once."""
    return sign(secret, f"upload:{image_id}:{host}")


def create_snapshot(tx: Transaction, context: Context, wish: SnapshotWish) -> str:
    """A queued image, whose data a host will send; its id.  Forbidden for a property with a name of glance's."""
    for name in check_properties(wish.properties):
        check_writable(name)
        if name in OWN_NAMES or name == "id":
            raise Forbidden(f"Attribute '{name}' is reserved.")
    image_id, now = str(uuid.uuid4()), clock.now()
    row = {
        "id": image_id,
        "owner": wish.owner,
        "name": wish.name,
        "visibility": "private",
        "disk_format": "qcow2",
        "container_format": "bare",
        "min_disk": wish.min_disk,
        "min_ram": wish.min_ram,
        "properties": wish.properties,
        "created_at": now,
        "updated_at": now,
    }
    tx.write(images.insert(), row)
    record = records.records_of(tx, records.find_rows(tx, [image_id]))[0]
    tx.notify(context, "image.create", PUBLISHER, describe(record))
    return image_id


def delete_snapshot(tx: Transaction, image_id: str) -> None:
    """The data of this image will not come.  An image that has its data stays; again is no harm."""
    found = records.records_of(tx, records.find_rows(tx, [image_id]))
    now = clock.now()
    waiting = sa.and_(images.c.id == image_id, images.c.stored_at.is_(None), images.c.deleted_at.is_(None))
    values = {"deleted_at": now, "updated_at": now, "revision": images.c.revision + 1}
    if tx.write(sa.update(images).where(waiting).values(values)):
        tx.write(sa.delete(image_tags).where(image_tags.c.image_id == image_id))
        tx.notify(Context(project_id=found[0].owner or ""), "image.delete", PUBLISHER, describe(found[0], now))
        tx.hint(TOPIC, image_id)
