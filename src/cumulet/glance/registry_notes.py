"""Notifications about images, in upstream's form."""

from msgspec.structs import replace

from cumulet.core import clock
from cumulet.core.context import Context
from cumulet.core.db import Transaction
from cumulet.core.http import Request
from cumulet.glance.model import Record


def caller(request: Request) -> Context:
    """Who asked glance-api, under the request id that they were given there."""
    context = request.context
    return replace(context, request_id=context.global_request_id or context.request_id)


def notify(
    tx: Transaction, request: Request, event_type: str, record: Record, deleted_at: str | None = None
) -> None:
    payload = {
        "id": record.id,
        "name": record.name,
        "status": record.status,
        "created_at": clock.short(record.created_at),
        "updated_at": clock.short(record.updated_at),
        "min_disk": record.min_disk,
        "min_ram": record.min_ram,
        "protected": record.protected,
        "checksum": record.checksum,
        "owner": record.owner,
        "disk_format": record.disk_format,
        "container_format": record.container_format,
        "size": record.size,
        "virtual_size": record.virtual_size,
        "is_public": record.visibility == "public",
        "visibility": record.visibility,
        "properties": record.properties,
        "tags": record.tags,
        "deleted": deleted_at is not None,
        "deleted_at": clock.short(deleted_at) if deleted_at else None,
    }
    tx.notify(caller(request), event_type, f"image.{request.config.node.name}", payload)
