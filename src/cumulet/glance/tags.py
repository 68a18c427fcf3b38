"""/v2/images/{image_id}/tags/{tag}: one tag of an image."""

from cumulet.core.errors import BadRequest, NotFound
from cumulet.core.http import Request, Route
from cumulet.glance.image_fields import LONGEST_NAME, check_tags
from cumulet.glance.images import get_record
from cumulet.glance.wiring import registry_of


def add_tag(request: Request) -> None:
    tag = request.params["tag"]
    if len(tag) > LONGEST_NAME:
        raise BadRequest(f"Invalid input: a tag has at most {LONGEST_NAME} characters")
    record = get_record(request, "modify_image", _missing(request))
    if tag not in record.tags:
        tags = check_tags([*record.tags, tag])
        registry_of(request).change_image(request.context, record, {"tags": tags})


def delete_tag(request: Request) -> None:
    tag = request.params["tag"]
    record = get_record(request, "modify_image", _missing(request))
    if tag not in record.tags:
        raise NotFound("The resource could not be found.")
    tags = [other for other in record.tags if other != tag]
    registry_of(request).change_image(request.context, record, {"tags": tags})


def _missing(request: Request) -> str:
    return f"Image {request.params['image_id']} not found."


ROUTES = [
    Route("PUT", "/v2/images/{image_id}/tags/{tag}", add_tag, "modify_image", 204),
    Route("DELETE", "/v2/images/{image_id}/tags/{tag}", delete_tag, "modify_image", 204),
]
