"""``/images`` and ``/images/{id}/metadata``: glance's images in compute's own old form, until 2.35 and 2.38.

glance decides who may do what; here is only another shape of it.
"""

from collections.abc import Callable

from cumulet.core import clock
from cumulet.core.errors import BadRequest, Forbidden, NotFound
from cumulet.core.http import Json, Reply, Request, Route
from cumulet.core.policy import AUTHENTICATED
from cumulet.core.schema import Strict
from cumulet.glance import public as glance
from cumulet.glance.model import Image
from cumulet.nova import quotas
from cumulet.nova.checks import check_metadata
from cumulet.nova.paging import boolean, next_links
from cumulet.nova.server_views import server_links

GLANCE_PORT = 9292
Items = dict[str, str]
_STATUSES = {
    "active": "ACTIVE",
    "queued": "SAVING",
    "saving": "SAVING",
    "uploading": "SAVING",
    "importing": "SAVING",
}
_PROGRESS = {"active": 100, "saving": 50, "queued": 25}


class Metadata(Strict):
    metadata: Items


class OneItem(Strict):
    meta: Items


# ── images ───────────────────────────────────────────────────────────────────────────────────────────────────


def list_images(request: Request) -> Json:
    return _list(request, _brief)


def list_images_detail(request: Request) -> Json:
    return _list(request, _detail)


def _list(request: Request, view: Callable[[Request, Image], Json]) -> Json:
    with request.db.read() as tx:
        images, page = glance.list_images(tx, request.app.extras.image_policies, request)
    return {"images": [view(request, image) for image in images], **next_links(request, "images", page)}


def show_image(request: Request) -> Json:
    return {"image": _detail(request, _get(request))}


def delete_image(request: Request) -> Reply:
    try:
        with request.db.transaction() as tx:
            glance.delete_image(tx, request.app.extras.image_policies, request.context, request.params["image_id"])
    except NotFound as error:
        raise _missing() from error
    except Forbidden as error:
        raise Forbidden("You are not allowed to delete the image.", kind=error.kind) from error
    return Reply()


def image_url(request: Request, image_id: str) -> str:
    """Where glance has it."""
    return f"{request.config.public_url(GLANCE_PORT)}/images/{image_id}"


def _get(request: Request) -> Image:
    try:
        with request.db.read() as tx:
            policies = request.app.extras.image_policies
            return glance.show_image(tx, policies, request.context, request.params["image_id"])
    except NotFound as error:
        raise _missing() from error


def _missing() -> NotFound:
    return NotFound("Image not found.", kind="ImageNotFound")


def _brief(request: Request, image: Image) -> Json:
    base = request.app.endpoint
    links = [
        {"rel": "self", "href": f"{base}/v2.1/images/{image.id}"},
        {"rel": "bookmark", "href": f"{base}/images/{image.id}"},
        {"rel": "alternate", "type": "application/vnd.openstack.image", "href": image_url(request, image.id)},
    ]
    return {"id": image.id, "name": image.name, "links": links}


def _detail(request: Request, image: Image) -> Json:
    document = _brief(request, image) | {
        "minRam": image.min_ram,
        "minDisk": image.min_disk,
        "metadata": image.properties,
        "created": clock.short(image.created_at),
        "updated": clock.short(image.updated_at),
        "status": _STATUSES.get(image.status, "UNKNOWN"),
        "progress": _PROGRESS.get(image.status, 0),
        "OS-EXT-IMG-SIZE:size": image.size,
    }
    server = image.properties.get("instance_uuid")
    if server is not None:
        document["server"] = {"id": server, "links": server_links(request.app.endpoint, server)}
    if "auto_disk_config" in image.properties:
        document["OS-DCF:diskConfig"] = "AUTO" if _is_on(image.properties["auto_disk_config"]) else "MANUAL"
    return document


def _is_on(text: str) -> bool:
    try:
        return boolean(text, "auto_disk_config")
    except BadRequest:  # an image's owner may write anything there
        return False


# ── metadata ─────────────────────────────────────────────────────────────────────────────────────────────────


def list_metadata(request: Request) -> Json:
    return {"metadata": _get(request).properties}


def show_item(request: Request) -> Json:
    items, key = _get(request).properties, request.params["key"]
    if key not in items:
        raise _no_item()
    return {"meta": {key: items[key]}}


def add_items(request: Request) -> Json:
    new = check_metadata(request.body.metadata)
    return {"metadata": _change(request, lambda items: {**items, **new})}


def replace_items(request: Request) -> Json:
    new = check_metadata(request.body.metadata)
    return {"metadata": _change(request, lambda items: new)}


def set_item(request: Request) -> Json:
    new = check_metadata(request.body.meta)
    if set(new) != {request.params["key"]}:
        raise BadRequest("Request body and URI mismatch")
    _change(request, lambda items: {**items, **new})
    return {"meta": new}


def delete_item(request: Request) -> Reply:
    key = request.params["key"]

    def without_key(items: Items) -> Items:
        if key not in items:
            raise _no_item()
        return {name: value for name, value in items.items() if name != key}

    _change(request, without_key)
    return Reply()


def _change(request: Request, change: Callable[[Items], Items]) -> Items:
    image_id, policies = request.params["image_id"], request.app.extras.image_policies
    with request.db.transaction() as tx:
        most = quotas.read_limits(tx, request.context.project_id)["metadata_items"]

        def within(items: Items) -> Items:
            changed = change(items)
            if 0 <= most < len(changed) and len(changed) > len(items):
                raise Forbidden("Image metadata limit exceeded", kind="MetadataLimitExceeded")
            return changed

        try:
            return glance.change_properties(tx, policies, request.context, image_id, within)
        except NotFound as error:
            raise error if error.kind == NO_ITEM else _missing() from error


def _no_item() -> NotFound:
    return NotFound("Metadata item was not found", kind=NO_ITEM)


NO_ITEM = "MetadataItemNotFound"
URL, LAST = "/v2.1/images", (2, 35)
METADATA, LAST_METADATA = URL + "/{image_id}/metadata", (2, 38)
ROUTES = (
    Route("GET", URL, list_images, AUTHENTICATED, until=LAST),
    Route("GET", URL + "/detail", list_images_detail, AUTHENTICATED, until=LAST),
    Route("GET", URL + "/{image_id}", show_image, AUTHENTICATED, until=LAST),
    Route("DELETE", URL + "/{image_id}", delete_image, AUTHENTICATED, 204, until=LAST),
    Route("GET", METADATA, list_metadata, AUTHENTICATED, until=LAST_METADATA),
    Route("POST", METADATA, add_items, AUTHENTICATED, body=Metadata, until=LAST_METADATA),
    Route("PUT", METADATA, replace_items, AUTHENTICATED, body=Metadata, until=LAST_METADATA),
    Route("GET", METADATA + "/{key}", show_item, AUTHENTICATED, until=LAST_METADATA),
    Route("PUT", METADATA + "/{key}", set_item, AUTHENTICATED, body=OneItem, until=LAST_METADATA),
    Route("DELETE", METADATA + "/{key}", delete_item, AUTHENTICATED, 204, until=LAST_METADATA),
)
