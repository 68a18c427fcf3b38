"""What other projects may ask of glance, inside their own transaction."""

from collections.abc import Iterable

from cumulet.core.context import Context
from cumulet.core.db import Transaction
from cumulet.core.secrets import sign
from cumulet.glance import records
from cumulet.glance.model import Image

__all__ = ["find_images", "get_image", "image_ticket"]


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
