"""From glance's rows to its types, and who may see which row.

Shared by glance-registry and ``glance.public``.  Statements are built once.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row
from sqlalchemy.sql.elements import ColumnElement

from cumulet.core.among import among
from cumulet.core.context import Context
from cumulet.core.db import Transaction
from cumulet.core.errors import NotFound
from cumulet.glance.model import Image, Record
from cumulet.glance.tables import image_members, image_tags, image_tasks, images

STATUS: sa.Label[str] = sa.case(
    (images.c.deleted_at.is_not(None), "deleted"),
    (sa.and_(images.c.stored_at.is_not(None), images.c.deactivated), "deactivated"),
    (images.c.stored_at.is_not(None), "active"),
    (images.c.importing.is_not(None), "importing"),
    (images.c.staging, "uploading"),
    (images.c.attempt.is_not(None), "saving"),
    else_="queued",
).label("status")

IMPORT_FAILED: sa.Label[bool] = sa.and_(
    images.c.stored_at.is_(None),
    images.c.importing.is_(None),
    sa.exists().where(image_tasks.c.image_id == images.c.id, image_tasks.c.failure.is_not(None)),
).label("import_failed")

HIDDEN = ("gone_at", "attempt_node", "attempt_seen_at", "staging", "staged_at", "staged_bytes", "importing")
SELECT = sa.select(*(column for column in images.c if column.name not in HIDDEN), STATUS, IMPORT_FAILED).where(
    images.c.deleted_at.is_(None)
)
_ONE = SELECT.where(images.c.id == sa.bindparam("image_id"))
_MANY = SELECT.where(among(images.c.id, "ids"))
_TAGS = sa.select(image_tags).where(among(image_tags.c.image_id, "ids")).order_by(image_tags.c.tag)
_MEMBER = sa.select(image_members.c.member_id).where(
    image_members.c.image_id == sa.bindparam("image_id"), image_members.c.member_id == sa.bindparam("member_id")
)


def get_row(tx: Transaction, context: Context, image_id: str) -> Row[Any]:
    """The image's row, if the caller may know of it: it is public, community, their own, or shared with them."""
    row = tx.find(_ONE, {"image_id": image_id})
    if row is None or not (_open_to(context, row) or find_membership(tx, context, row)):
        raise NotFound(f"No image found with ID {image_id}")
    return row


def find_rows(tx: Transaction, ids: Iterable[str]) -> Sequence[Row[Any]]:
    """The rows of those images that exist, whoever may see them."""
    return tx.all(_MANY, {"ids": list(ids)})


def find_membership(tx: Transaction, context: Context, row: Row[Any]) -> str | None:
    """The caller's project, if the image is shared with it."""
    if row.visibility != "shared" or not context.project_id or row.owner == context.project_id:
        return None
    found: str | None = tx.value(_MEMBER, {"image_id": row.id, "member_id": context.project_id})
    return found


def listed(project_id: str, admin: bool, visibility: str | None, member_status: str) -> ColumnElement[bool]:
    """Which images a list shows to a project.  Others' community images only if they are asked for."""
    mine = images.c.owner == project_id if project_id else sa.false()
    asked: ColumnElement[bool] = sa.true()
    if visibility is None:
        asked = sa.or_(mine, images.c.visibility != "community")
    elif visibility != "all":
        asked = images.c.visibility == visibility
    if admin:
        return asked
    visible = sa.or_(
        images.c.visibility.in_(("public", "community")), mine, _shared_with(project_id, member_status)
    )
    return sa.and_(asked, visible)


def image_of(row: Row[Any]) -> Image:
    return Image(**_fields(row))


def records_of(tx: Transaction, rows: Sequence[Row[Any]]) -> list[Record]:
    """The rows with their tags, in one more query."""
    tags: dict[str, list[str]] = {row.id: [] for row in rows}
    if rows:
        for row in tx.all(_TAGS, {"ids": list(tags)}):
            tags[row.image_id].append(row.tag)
    return [_record(row, tags[row.id]) for row in rows]


def _record(row: Row[Any], tags: list[str]) -> Record:
    return Record(
        **_fields(row),
        protected=row.protected,
        os_hidden=row.os_hidden,
        tags=tags,
        revision=row.revision,
        attempt=row.attempt,
        import_failed=bool(row.import_failed),
    )


def _fields(row: Row[Any]) -> dict[str, Any]:
    values = row._mapping
    return {name: values[name] for name in Image.__struct_fields__}


def _open_to(context: Context, row: Row[Any]) -> bool:
    mine = bool(context.project_id) and row.owner == context.project_id
    return context.admin or mine or row.visibility in ("public", "community")


def _shared_with(project_id: str, member_status: str) -> ColumnElement[bool]:
    if not project_id:
        return sa.false()
    members = sa.select(image_members.c.image_id).where(image_members.c.member_id == project_id)
    if member_status != "all":
        members = members.where(image_members.c.status == member_status)
    return sa.and_(images.c.visibility == "shared", images.c.id.in_(members))
