"""What other projects may ask of glance, inside their own transaction."""

import uuid
from collections.abc import Iterable

import sqlalchemy as sa

from cumulet.core import clock
from cumulet.core.context import Context
from cumulet.core.db import Transaction
from cumulet.core.secrets import sign
from cumulet.glance import records
from cumulet.glance.compute_images import (
    change_properties,
    check_custom,
    delete_image,
    list_images,
    load_policies,
    show_image,
)
from cumulet.glance.model import Image, SnapshotWish
from cumulet.glance.registry_filters import has_property
from cumulet.glance.registry_notes import PUBLISHER, describe
from cumulet.glance.removal import remove_image
from cumulet.glance.tables import images

__all__ = [
    "change_properties",
    "copy_ticket",
    "create_snapshot",
    "delete_image",
    "delete_snapshot",
    "find_images",
    "get_image",
    "image_ticket",
    "list_images",
    "load_policies",
    "rotate_backups",
    "show_image",
    "upload_ticket",
]


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


def copy_ticket(secret: str, image_id: str, node: str) -> str:
    """Proof towards glance-api of another controller that this one may have a copy of the data."""
    return sign(secret, f"copy:{image_id}:{node}")


def create_snapshot(tx: Transaction, context: Context, wish: SnapshotWish) -> str:
    """A queued image, whose data a host will send; its id.  Forbidden for a property with a name of glance's."""
    check_custom(wish.properties)
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
    now = remove_image(tx, image_id, images.c.stored_at.is_(None))
    if now:
        tx.notify(Context(project_id=found[0].owner or ""), "image.delete", PUBLISHER, describe(found[0], now))


def rotate_backups(tx: Transaction, owner: str, server_id: str, kind: str, keep: int) -> None:
    """Of a server's backups of this kind the newest ``keep`` stay, and those that are protected."""
    made_for = {"image_type": "backup", "backup_type": kind, "instance_uuid": server_id}
    mine = sa.and_(
        images.c.owner == owner,
        images.c.stored_at.is_not(None),
        *(has_property(name, value) for name, value in made_for.items()),
    )
    found = tx.all(records.SELECT.where(mine).order_by(images.c.created_at.desc(), images.c.id.desc()))
    for record in records.records_of(tx, found[keep:]):
        now = remove_image(tx, record.id, images.c.protected.is_(sa.false()))
        if now:
            tx.notify(Context(project_id=owner), "image.delete", PUBLISHER, describe(record, now))
