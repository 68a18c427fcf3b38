"""/v2/images: the images' metadata.  The data is ``image_data``'s."""

import uuid
from typing import Any
from urllib.parse import urlencode

from cumulet.core.errors import BadRequest, Forbidden, NotFound, UnsupportedMedia
from cumulet.core.http import Reply, Request, Route
from cumulet.glance import image_patch, policies, store
from cumulet.glance.image_fields import (
    OWN_NAMES,
    UUID,
    attributes_of,
    check_properties,
    check_property,
    check_writable,
    view,
)
from cumulet.glance.model import Record
from cumulet.glance.registry_client import RegistryClient
from cumulet.glance.wiring import import_methods, registry_of

_DEFAULTS: dict[str, Any] = {
    "name": None,
    "visibility": "shared",
    "protected": False,
    "os_hidden": False,
    "disk_format": None,
    "container_format": None,
    "min_disk": 0,
    "min_ram": 0,
    "tags": [],
}


def get_record(request: Request, rule: str, missing: str = "") -> Record:
    """The image that the URL names, if the caller may see it; Forbidden unless ``rule`` lets them do this to it.

    ``missing`` is the text of the NotFound where it differs from the usual one.
    """
    image_id = request.params["image_id"]
    try:
        record = registry_of(request).get_image(request.context, image_id)
    except NotFound:
        raise NotFound(missing or f"No image found with ID {image_id}") from None
    if not request.allows("get_image", policies.target(record)):
        raise NotFound(missing or f"No image found with ID {image_id}")
    request.enforce(rule, policies.target(record))
    return record


def create_image(request: Request) -> Reply:
    body = request.body
    if not isinstance(body, dict):
        raise BadRequest("Invalid input: an image is a JSON object")
    image_id = _given_id(body.pop("id", None))
    for name in body:
        check_writable(name)
    values = {**_DEFAULTS, "owner": request.context.project_id or None}
    values |= attributes_of({name: body[name] for name in body if name in OWN_NAMES})
    properties = {name: value for name, value in body.items() if name not in OWN_NAMES}
    for name, value in properties.items():
        check_property(name, value)
    values["properties"] = check_properties(properties)
    target = {**policies.own_target(request.context), "owner": values["owner"], "visibility": values["visibility"]}
    request.enforce("add_image", target)
    _enforce_visibility(request, values["visibility"], target)
    record = registry_of(request).create_image(request.context, {"id": image_id, **values})
    headers = {
        "Location": f"{request.app.endpoint}/v2/images/{record.id}",
        "OpenStack-image-store-ids": store.NAME,
        "OpenStack-image-import-methods": ",".join(import_methods(request.config)),
    }
    return Reply(view(record), headers=headers)


def list_images(request: Request) -> dict[str, Any]:
    page = registry_of(request).list_images(request.context, request.query)
    seen = [record for record in page.images if request.allows("get_image", policies.target(record))]
    query = [(name, value) for name, value in request.query if name != "marker"]
    document: dict[str, Any] = {
        "images": [view(record) for record in seen],
        "first": "/v2/images" + (f"?{urlencode(query)}" if query else ""),
        "schema": "/v2/schemas/images",
    }
    if page.next_marker:
        document["next"] = f"/v2/images?{urlencode([*query, ('marker', page.next_marker)])}"
    return document


def show_image(request: Request) -> dict[str, Any]:
    return view(get_record(request, "get_image"))


def update_image(request: Request) -> dict[str, Any]:
    content_type = request.headers.get("content-type", "").partition(";")[0].strip()
    allowed = f"{image_patch.OLD}, {image_patch.NEW}"
    if content_type not in (image_patch.OLD, image_patch.NEW):
        raise UnsupportedMedia(
            f"Image PATCH expects Content-Type one of: {allowed}", headers={"Accept-Patch": allowed}
        )
    steps = image_patch.parse(request.body, content_type)
    record = get_record(request, "modify_image")
    changes = image_patch.apply(record, steps)
    if changes.get("owner", record.owner) != record.owner and not request.context.admin:
        raise Forbidden("Owner can't be updated by non admin.")
    if changes.get("visibility", record.visibility) != record.visibility:
        _enforce_visibility(request, changes["visibility"], policies.target(record))
    if changes:
        record = registry_of(request).change_image(request.context, record, changes)
    return view(record)


def delete_image(request: Request) -> None:
    missing = f"Failed to find image {request.params['image_id']} to delete"
    record = get_record(request, "delete_image", missing)
    if record.protected:
        raise Forbidden(f"Image {record.id} is protected and cannot be deleted.")
    registry_of(request).delete_image(request.context, record)


def deactivate(request: Request) -> None:
    _set_deactivated(request, get_record(request, "deactivate"), True)


def reactivate(request: Request) -> None:
    _set_deactivated(request, get_record(request, "reactivate"), False)


def _set_deactivated(request: Request, record: Record, deactivated: bool) -> None:
    wanted = "deactivated" if deactivated else "active"
    if record.status == wanted:
        return
    if record.status not in ("active", "deactivated"):
        raise BadRequest(f"Image status transition from {record.status} to {wanted} is not allowed")
    registry: RegistryClient = registry_of(request)
    registry.change_image(request.context, record, {"deactivated": deactivated})


def _given_id(given: Any) -> str:
    if given is None:
        return str(uuid.uuid4())
    if not isinstance(given, str) or not UUID.fullmatch(given):
        raise BadRequest(f"Provided object does not match schema 'image': {given!r} does not match a UUID")
    return given.lower()


def _enforce_visibility(request: Request, visibility: str, target: dict[str, Any]) -> None:
    """To show an image to the whole cloud takes a right of its own."""
    if visibility == "public":
        request.enforce("publicize_image", target)
    if visibility == "community":
        request.enforce("communitize_image", target)


ROUTES = [
    Route("POST", "/v2/images", create_image, "add_image", 201, body=Any),
    Route("GET", "/v2/images", list_images, "get_images"),
    Route("GET", "/v2/images/{image_id}", show_image, "get_image"),
    Route("PATCH", "/v2/images/{image_id}", update_image, "modify_image", body=Any, also=(415,)),
    Route("DELETE", "/v2/images/{image_id}", delete_image, "delete_image", 204),
    Route("POST", "/v2/images/{image_id}/actions/deactivate", deactivate, "deactivate", 204),
    Route("POST", "/v2/images/{image_id}/actions/reactivate", reactivate, "reactivate", 204),
]
