"""Images for compute's own old API, inside nova's transaction (part of ``glance.public``).

glance's policies hold here as they hold in glance-api; who calls brings them (``load_policies``).
"""

from collections.abc import Callable, Mapping

import sqlalchemy as sa

from cumulet.core import clock
from cumulet.core.context import Context
from cumulet.core.controller import ControllerEnv
from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, Forbidden, NotFound, Retry
from cumulet.core.http import Request
from cumulet.core.listing import PAGING, Condition, Listing, Page, list_page
from cumulet.core.policy import Policies
from cumulet.glance import policies as glance_policies
from cumulet.glance import records
from cumulet.glance.image_fields import OWN_NAMES, check_properties, check_property, check_writable
from cumulet.glance.model import Image, Record
from cumulet.glance.registry_filters import has_property
from cumulet.glance.registry_notes import PUBLISHER, describe
from cumulet.glance.removal import remove_image
from cumulet.glance.tables import images

_SAVING = ("queued", "saving", "uploading", "importing")
_STATUSES: Mapping[str, tuple[str, ...]] = {"active": ("active",), "saving": _SAVING, "unknown": ("deactivated",)}
_PROPERTY = "property-"


def load_policies(env: ControllerEnv) -> Policies:
    return env.policies("glance", glance_policies.DEFAULTS)


def list_images(tx: Transaction, rules: Policies, request: Request) -> tuple[list[Image], Page]:
    """The page of images that the query asks for, in compute's words."""
    rules.enforce("get_images", request.context, glance_policies.own_target(request.context))
    statement = records.SELECT.where(
        records.listed(request.context.project_id, request.context.admin, None, "accepted"),
        images.c.os_hidden.is_(sa.false()),
    )
    names = [name for name, _ in request.query if name.startswith(_PROPERTY) and name not in PAGING]
    conditions = {**_CONDITIONS, **{name: _property(name.removeprefix(_PROPERTY)) for name in names}}
    page = list_page(tx, statement, request, Listing(images.c.id, _COLUMNS, conditions, _NEWEST, default_page=1000))
    found = records.records_of(tx, page.rows)
    context = request.context
    return [image for image in found if _allows(rules, "get_image", context, image)], page


def show_image(tx: Transaction, rules: Policies, context: Context, image_id: str) -> Record:
    """NotFound for what the caller may not see."""
    row = records.get_row(tx, context, image_id)
    record = records.records_of(tx, [row])[0]
    if not _allows(rules, "get_image", context, record, records.find_membership(tx, context, row)):
        raise NotFound(f"No image found with ID {image_id}")
    return record


def change_properties(
    tx: Transaction,
    rules: Policies,
    context: Context,
    image_id: str,
    change: Callable[[dict[str, str]], dict[str, str]],
) -> dict[str, str]:
    """The properties after ``change``; Retry if somebody else has changed the image meanwhile."""
    record = show_image(tx, rules, context, image_id)
    rules.enforce("modify_image", context, glance_policies.target(record))
    properties = check_custom(change(dict(record.properties)))
    values = {"properties": properties, "updated_at": clock.now(), "revision": record.revision + 1}
    same = sa.and_(images.c.id == record.id, images.c.revision == record.revision, images.c.deleted_at.is_(None))
    if not tx.write(sa.update(images).where(same).values(values)):
        raise Retry(f"image {record.id} has changed meanwhile")
    changed = records.records_of(tx, records.find_rows(tx, [record.id]))[0]
    tx.notify(context, "image.update", PUBLISHER, describe(changed))
    return properties


def delete_image(tx: Transaction, rules: Policies, context: Context, image_id: str) -> None:
    record = show_image(tx, rules, context, image_id)
    rules.enforce("delete_image", context, glance_policies.target(record))
    if record.protected:
        raise Forbidden(f"Image {record.id} is protected and cannot be deleted.")
    now = remove_image(tx, record.id, images.c.revision == record.revision)
    if now is None:
        raise Retry(f"image {record.id} has changed meanwhile")
    tx.notify(context, "image.delete", PUBLISHER, describe(record, now))


def check_custom(properties: dict[str, str]) -> dict[str, str]:
    """Properties that an image may have beside its own attributes; Forbidden for a name that is glance's."""
    for name, value in check_properties(properties).items():
        check_writable(name)
        check_property(name, value)
        if name in OWN_NAMES or name == "id":
            raise Forbidden(f"Attribute '{name}' is reserved.")
    return properties


def _allows(rules: Policies, rule: str, context: Context, record: Record, member: str | None = None) -> bool:
    target = {**glance_policies.target(record), "member_id": member or record.member}
    return rules.allows(rule, context, target)


def _status(values: list[str]) -> sa.ColumnElement[bool]:
    wanted = [status for value in values for status in _STATUSES.get(value.lower(), ())]
    return records.STATUS.in_(wanted)


def _server(values: list[str]) -> sa.ColumnElement[bool]:
    """By a server's id, or any URL of it."""
    return has_property("instance_uuid", values[-1].rstrip("/").rpartition("/")[2])


def _changed_since(values: list[str]) -> sa.ColumnElement[bool]:
    try:
        moment = clock.parse(values[-1])
    except ValueError as error:
        raise BadRequest(f"Invalid changes-since format: {values[-1][:300]}") from error
    return images.c.updated_at >= clock.text(moment)


def _property(name: str) -> Condition:
    return lambda values: has_property(name, values[-1])


_COLUMNS = {
    "name": images.c.name,
    "minRam": images.c.min_ram,
    "minDisk": images.c.min_disk,
    "created_at": images.c.created_at,
    "updated_at": images.c.updated_at,
}
_CONDITIONS: dict[str, Condition] = {
    "status": _status,
    "server": _server,
    "type": _property("image_type"),
    "changes-since": _changed_since,
}
_NEWEST = (("created_at", "desc"), ("id", "desc"))
