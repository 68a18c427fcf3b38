"""How an image goes, whoever says so: its row is a tombstone from then on."""

import sqlalchemy as sa

from cumulet.core import clock
from cumulet.core.db import Transaction
from cumulet.glance import registry_data, registry_imports
from cumulet.glance.tables import image_members, image_tags, images


def remove_image(tx: Transaction, image_id: str, still: sa.ColumnElement[bool]) -> str | None:
    """The image is gone for everybody at once; glance-api's loop removes the data.

    The time of it; None, and nothing has happened, if the image is not ``still`` as the caller saw it.
    """
    now = clock.now()
    here = sa.and_(images.c.id == image_id, images.c.deleted_at.is_(None), still)
    values = {"deleted_at": now, "updated_at": now, "revision": images.c.revision + 1}
    if not tx.write(sa.update(images).where(here).values(values)):
        return None
    tx.write(sa.delete(image_tags).where(image_tags.c.image_id == image_id))
    tx.write(sa.delete(image_members).where(image_members.c.image_id == image_id))
    registry_imports.finish(tx, image_id, "the image was deleted")
    tx.hint(registry_data.TOPIC, image_id)
    return now
