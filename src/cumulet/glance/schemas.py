"""/v2/schemas: JSON schemas of glance's documents.  Clients read them before they write an image."""

from collections.abc import Callable
from typing import Any

from cumulet.core.http import Request, Route
from cumulet.core.policy import AUTHENTICATED
from cumulet.glance.image_fields import LONGEST_NAME, READ_ONLY
from cumulet.glance.model import CONTAINER_FORMATS, DISK_FORMATS, MEMBER_STATUSES, VISIBILITIES

_ID = "^([0-9a-fA-F]){8}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){12}$"
_STATUSES = ["queued", "saving", "active", "killed", "deleted", "uploading", "importing", "pending_delete"]


def _text(description: str, longest: int | None = None, null: bool = False, **more: Any) -> dict[str, Any]:
    kind: Any = ["null", "string"] if null else "string"
    length = {"maxLength": longest} if longest else {}
    return {"type": kind, "description": description, **length, **more}


def _number(description: str, null: bool = False) -> dict[str, Any]:
    return {"type": ["null", "integer"] if null else "integer", "description": description}


_PROPERTIES: dict[str, dict[str, Any]] = {
    "id": _text("The image's identifier", pattern=_ID),
    "name": _text("The image's name", LONGEST_NAME, null=True),
    "status": _text("What state the image is in", enum=[*_STATUSES, "deactivated"]),
    "visibility": _text("Who can see the image", enum=list(VISIBILITIES)),
    "protected": {"type": "boolean", "description": "Whether the image is safe from deletion"},
    "os_hidden": {"type": "boolean", "description": "Whether the image is left out of lists"},
    "checksum": _text("MD5 of the image's data", 32, null=True),
    "os_hash_algo": _text("The algorithm of os_hash_value", 64, null=True),
    "os_hash_value": _text("Hexadecimal hash of the image's data by os_hash_algo", 128, null=True),
    "owner": _text("The project that owns the image", LONGEST_NAME, null=True),
    "size": _number("Bytes of the image's data", null=True),
    "virtual_size": _number("Bytes of the disk that the image holds", null=True),
    "container_format": _text("What the data is wrapped in", null=True, enum=[None, *CONTAINER_FORMATS]),
    "disk_format": _text("The format of the disk in the data", null=True, enum=[None, *DISK_FORMATS]),
    "created_at": _text("When the image was registered"),
    "updated_at": _text("When the image was changed last"),
    "tags": {
        "type": "array",
        "description": "Words that belong to the image",
        "items": {"type": "string", "maxLength": LONGEST_NAME},
    },
    "min_ram": _number("MB of memory that a server needs to boot the image"),
    "min_disk": _number("GB of disk that a server needs to boot the image"),
    "self": _text("The image's URL"),
    "file": _text("The URL of the image's data"),
    "schema": _text("The URL of this schema"),
    "stores": _text("The stores that hold the data, separated by commas"),
}
for _name in READ_ONLY & _PROPERTIES.keys():
    _PROPERTIES[_name]["readOnly"] = True

IMAGE: dict[str, Any] = {
    "name": "image",
    "properties": _PROPERTIES,
    "additionalProperties": {"type": "string"},
    "links": [
        {"rel": "self", "href": "{self}"},
        {"rel": "enclosure", "href": "{file}"},
        {"rel": "describedby", "href": "{schema}"},
    ],
}
MEMBER: dict[str, Any] = {
    "name": "member",
    "properties": {
        "member_id": _text("The project that the image is shared with"),
        "image_id": _text("The image's identifier", pattern=_ID),
        "created_at": _text("When the image was offered"),
        "updated_at": _text("When the status was changed last"),
        "status": _text("What the project has said", enum=list(MEMBER_STATUSES)),
        "schema": {"type": "string", "readOnly": True},
    },
}
IMAGES: dict[str, Any] = {
    "name": "images",
    "properties": {
        "images": {"type": "array", "items": IMAGE},
        "first": {"type": "string"},
        "next": {"type": "string"},
        "schema": {"type": "string"},
    },
    "links": [
        {"rel": "first", "href": "{first}"},
        {"rel": "next", "href": "{next}"},
        {"rel": "describedby", "href": "{schema}"},
    ],
}
MEMBERS: dict[str, Any] = {
    "name": "members",
    "properties": {"members": {"type": "array", "items": MEMBER}, "schema": {"type": "string"}},
    "links": [{"rel": "describedby", "href": "{schema}"}],
}


TASK: dict[str, Any] = {
    "name": "task",
    "properties": {
        "id": _text("The task's identifier", pattern=_ID),
        "type": _text("What the task does", enum=["import", "api_image_import", "location_import"]),
        "status": _text("How far the task is", enum=["pending", "processing", "success", "failure"]),
        "input": {"type": ["null", "object"], "description": "What was asked for"},
        "result": {"type": ["null", "object"], "description": "What came of it"},
        "owner": _text("The project that asked"),
        "message": _text("Why the task failed"),
        "image_id": _text("The image"),
        "user_id": _text("The user who asked"),
        "request_id": _text("The request that asked"),
        "expires_at": _text("When the task is forgotten", null=True),
        "created_at": _text("When the task was asked for"),
        "updated_at": _text("When the task's status changed last"),
        "self": {"type": "string", "readOnly": True},
        "schema": {"type": "string", "readOnly": True},
    },
}
TASKS: dict[str, Any] = {
    "name": "tasks",
    "properties": {
        "tasks": {"type": "array", "items": TASK},
        "first": {"type": "string"},
        "next": {"type": "string"},
        "schema": {"type": "string"},
    },
    "links": [
        {"rel": "first", "href": "{first}"},
        {"rel": "next", "href": "{next}"},
        {"rel": "describedby", "href": "{schema}"},
    ],
}


def show(document: dict[str, Any]) -> Callable[[Request], dict[str, Any]]:
    return lambda request: document


ROUTES = [
    Route("GET", f"/v2/schemas/{document['name']}", show(document), AUTHENTICATED)
    for document in (IMAGE, IMAGES, MEMBER, MEMBERS, TASK, TASKS)
]
