"""Notifications about images, in upstream's form."""

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from cumulet.core import clock
from cumulet.core.context import Context
from cumulet.core.db import Transaction
from cumulet.core.http import Request
from cumulet.glance.model import Member, Record, Sent

PUBLISHER = "image"
"""Who tells what another project did with an image."""


def caller(request: Request) -> Context:
    """Who asked glance-api, under the request id that they were given there."""
    context = request.context
    return replace(context, request_id=context.global_request_id or context.request_id)


def notify(
    tx: Transaction, request: Request, event_type: str, record: Record, deleted_at: str | None = None
) -> None:
    payload = describe(record, deleted_at)
    tx.notify(caller(request), event_type, f"image.{request.config.node.name}", payload)


def describe(record: Record, deleted_at: str | None = None) -> dict[str, Any]:
    """What every notification says of its image."""
    return {
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


def notify_member(
    tx: Transaction, request: Request, event_type: str, member: Member, deleted_at: str | None = None
) -> None:
    payload = {
        "image_id": member.image_id,
        "member_id": member.member_id,
        "status": member.status,
        "created_at": clock.short(member.created_at),
        "updated_at": clock.short(member.updated_at),
        "deleted": deleted_at is not None,
        "deleted_at": clock.short(deleted_at) if deleted_at else None,
    }
    tx.notify(caller(request), event_type, f"image.{request.config.node.name}", payload)


def notify_task(
    tx: Transaction, request: Request, event_type: str, task_id: str, owner: str | None, created_at: str
) -> None:
    """An import that was ordered; without its input, which may hold secrets."""
    payload = {
        "id": task_id,
        "type": "api_image_import",
        "status": "pending",
        "result": None,
        "owner": owner,
        "message": None,
        "expires_at": None,
        "created_at": clock.short(created_at),
        "updated_at": clock.short(created_at),
        "deleted": False,
        "deleted_at": None,
    }
    tx.notify(caller(request), event_type, f"image.{request.config.node.name}", payload)


def notify_metadef(tx: Transaction, request: Request, event_type: str, payload: Mapping[str, Any]) -> None:
    """About a metadata definition: ``metadef_namespace.create`` and the like."""
    tx.notify(caller(request), event_type, f"image.{request.config.node.name}", payload)


def notify_sent(tx: Transaction, request: Request, owner: str | None, sent: Sent) -> None:
    """Who got how much of whose image: what downloads are charged by."""
    context = caller(request)
    payload = {
        "bytes_sent": sent.size,
        "image_id": request.params["image_id"],
        "receiver_tenant_id": context.project_id or None,
        "receiver_user_id": context.user_id or None,
        "destination_ip": sent.address,
        "owner_id": owner,
    }
    tx.notify(context, "image.send", f"image.{request.config.node.name}", payload)
