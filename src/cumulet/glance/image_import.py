"""POST /v2/images/{image_id}/import: the order to make staged data, or what is at a URL, an image's data.

Only the order is given here; the loop in ``imports`` carries it out.
"""

import uuid

from cumulet.core import outbound
from cumulet.core.errors import BadRequest, Conflict
from cumulet.core.http import Reply, Request, Route
from cumulet.core.schema import UNSET, Open, UnsetType
from cumulet.glance import images, store
from cumulet.glance.model import DIRECT, WEB, NewImport, Record
from cumulet.glance.wiring import import_methods, registry_of

_NEEDED = {DIRECT: "uploading", WEB: "queued"}


class Method(Open):
    name: str
    uri: str | None = None


class ImportBody(Open):
    method: Method
    stores: list[str] | UnsetType = UNSET
    all_stores: bool | UnsetType = UNSET
    all_stores_must_succeed: bool | UnsetType = UNSET


def import_image(request: Request) -> Reply:
    body: ImportBody = request.body
    if body.method.name not in import_methods(request.config):
        raise BadRequest(f"Unknown import method name '{body.method.name}'.")
    for name in body.stores or ():
        if name != store.NAME:
            raise BadRequest(f"Store '{name}' does not exist.")
    uri = _checked_uri(body.method)
    record = images.get_record(request, "modify_image")
    _check_ready(record, body.method.name)
    wanted = NewImport(task=str(uuid.uuid4()), method=body.method.name, uri=uri)
    registry_of(request).create_import(request.context, record.id, wanted)
    return Reply(None, 202)


def _checked_uri(method: Method) -> str | None:
    """What is wrong with the text of a URL is said at once; where it leads is the loop's to see."""
    if method.name != WEB:
        return None
    if not method.uri:
        raise BadRequest("URI is required if method is 'web-download'.")
    try:
        outbound.check_url(method.uri)
    except outbound.Refused as error:
        raise BadRequest(f"URI for web-download does not pass filtering: {error}") from None
    return method.uri


def _check_ready(record: Record, method: str) -> None:
    for name in ("container_format", "disk_format"):
        if not getattr(record, name):
            raise BadRequest(f"'{name}' needs to be set before import")
    if record.status != _NEEDED[method]:
        raise Conflict(f"Only images with status '{_NEEDED[method]}' can be imported")


ROUTES = [
    Route("POST", "/v2/images/{image_id}/import", import_image, "modify_image", 202, body=ImportBody),
]
