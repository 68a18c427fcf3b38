"""An image as the API has it: its attributes, what may be given for them, and its document.

Beside its own attributes an image has custom properties: text, on the same level of the document.
"""

import re
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType

from cumulet.core import clock
from cumulet.core.errors import BadRequest, Forbidden, TooLarge
from cumulet.core.schema import Strict, convert, given
from cumulet.glance import store
from cumulet.glance.model import Record

LONGEST_NAME = 255
LONGEST_PROPERTY = 65535
MOST_PROPERTIES = 128
MOST_TAGS = 128
UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

READ_ONLY = frozenset(
    {
        "checksum", "created_at", "direct_url", "file", "os_hash_algo", "os_hash_value", "schema", "self", "size",
        "status", "stores", "updated_at", "virtual_size",
    }
)  # fmt: skip
RESERVED = frozenset({"location", "deleted", "deleted_at"})
RESERVED_PREFIX = "os_glance_"

Text = Annotated[str, Meta(max_length=LONGEST_NAME)]
Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Visibility = Literal["community", "public", "private", "shared"]
DiskFormat = Literal["ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "iso"]
ContainerFormat = Literal["ami", "ari", "aki", "bare"]


class Attributes(Strict):
    """What a caller may give.  The formats cannot change once there is data."""

    name: Text | UnsetType | None = UNSET
    visibility: Visibility | UnsetType = UNSET
    protected: bool | UnsetType = UNSET
    os_hidden: bool | UnsetType = UNSET
    owner: Text | UnsetType | None = UNSET
    disk_format: DiskFormat | UnsetType | None = UNSET
    container_format: ContainerFormat | UnsetType | None = UNSET
    min_disk: Count | UnsetType = UNSET
    min_ram: Count | UnsetType = UNSET
    tags: list[Text] | UnsetType = UNSET


OWN_NAMES = frozenset(Attributes.__struct_fields__)


def check_writable(name: str) -> None:
    """Forbidden for what the cloud alone writes, and for the locations of data: nobody may name a file."""
    if name in READ_ONLY:
        raise Forbidden(f"Attribute '{name}' is read-only.")
    if name in RESERVED or name.startswith(RESERVED_PREFIX):
        raise Forbidden(f"Attribute '{name}' is reserved.")
    if name == "locations":
        raise Forbidden("It's not allowed to add locations if locations are invisible.")


def attributes_of(values: dict[str, Any]) -> dict[str, Any]:
    """The given attributes of an image, checked."""
    checked = given(convert(values, Attributes))
    if "tags" in checked:
        checked["tags"] = check_tags(checked["tags"])
    return checked


def check_property(name: str, value: Any) -> None:
    if not name or len(name) > LONGEST_NAME:
        raise BadRequest("Custom property should not be greater than 255 characters.")
    if '"' in name or "\\" in name:
        raise BadRequest(f"Invalid input: the name of property {name!r} has a quote or a backslash in it")
    if not isinstance(value, str):
        raise BadRequest(f"Provided object does not match schema 'image': {value!r} is not of type 'string'")
    if len(value) > LONGEST_PROPERTY:
        raise BadRequest(f"Invalid input: property {name!r} is longer than {LONGEST_PROPERTY} characters")


def check_properties(properties: dict[str, str]) -> dict[str, str]:
    if len(properties) > MOST_PROPERTIES:
        raise TooLarge(
            "The limit has been exceeded on the number of allowed image properties. "
            f"Attempted: {len(properties)}, Maximum: {MOST_PROPERTIES}"
        )
    return properties


def check_tags(tags: list[str]) -> list[str]:
    found = sorted(set(tags))
    if "" in found:
        raise BadRequest("Invalid input: a tag cannot be empty")
    if len(found) > MOST_TAGS:
        raise TooLarge(
            "The limit has been exceeded on the number of allowed image tags. "
            f"Attempted: {len(found)}, Maximum: {MOST_TAGS}"
        )
    return found


def view(record: Record) -> dict[str, Any]:
    """The image's document."""
    href = f"/v2/images/{record.id}"
    document: dict[str, Any] = {
        **record.properties,
        "name": record.name,
        "disk_format": record.disk_format,
        "container_format": record.container_format,
        "visibility": record.visibility,
        "size": record.size,
        "virtual_size": record.virtual_size,
        "status": record.status,
        "checksum": record.checksum,
        "protected": record.protected,
        "min_ram": record.min_ram,
        "min_disk": record.min_disk,
        "owner": record.owner,
        "os_hidden": record.os_hidden,
        "os_hash_algo": "sha512" if record.sha512 else None,
        "os_hash_value": record.sha512,
        "id": record.id,
        "created_at": clock.short(record.created_at),
        "updated_at": clock.short(record.updated_at),
        "tags": record.tags,
        "self": href,
        "file": f"{href}/file",
        "schema": "/v2/schemas/image",
    }
    if record.size is not None:
        document["stores"] = store.NAME
    if record.import_failed:
        document["os_glance_failed_import"] = store.NAME
    return document
