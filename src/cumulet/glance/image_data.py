"""/v2/images/{image_id}/file and /stage: the images' data, in and out, in constant memory.

``async`` handlers: the bytes wait for nobody's thread, and each piece of about 1 MiB is hashed, looked at and
written in one.  An upload makes its file, claims the image, receives, and tells the registry; whatever goes wrong
on the way, the image is queued again and the file removed, by this handler or, if the process died, by the loop
in ``leftovers``.
"""

import asyncio
import logging
import re
import uuid
from collections.abc import AsyncIterator

from cumulet.core.context import Context
from cumulet.core.errors import (
    ApiError,
    BadRequest,
    Conflict,
    Forbidden,
    Gone,
    NotFound,
    RangeNotSatisfiable,
    TooLarge,
    Unauthorized,
    UnsupportedMedia,
)
from cumulet.core.http import Reply, Request, Route
from cumulet.core.policy import HOST
from cumulet.core.secrets import same
from cumulet.glance import store
from cumulet.glance.images import get_record
from cumulet.glance.inspection import PIECE, UnsafeImage
from cumulet.glance.model import Claim, Record, Sent
from cumulet.glance.peers import Data
from cumulet.glance.public import copy_ticket, image_ticket, upload_ticket
from cumulet.glance.registry_client import SERVICE
from cumulet.glance.store import Upload
from cumulet.glance.wiring import Wiring, wiring_of

LOG = logging.getLogger(__name__)
_RANGE = re.compile(r"bytes=(\d{1,18})?-(\d{1,18})?")


class RequestTimeout(ApiError):
    status, title = 408, "Request Timeout"


async def upload_image(request: Request) -> None:
    """PUT: the data of a queued image."""
    record = await request.run(_admit, request)
    await _take(request, request.context, record, record.disk_format or "raw")


async def stage_image(request: Request) -> None:
    """PUT: data that is to be imported later; it is looked at then."""
    await _take(request, request.context, await request.run(_admit_stage, request), "")


async def upload_from_host(request: Request) -> None:
    """PUT: the data of a server's disk, from a host that shows nova's ticket for it.

    Data that is there already was this host's, which has not heard the answer.  An image that is gone is not
    coming back: 410.
    """
    wiring, image_id = wiring_of(request), request.params["image_id"]
    ticket = upload_ticket(wiring.ticket_secret, image_id, request.params["host"])
    if not same(request.headers.get("x-image-ticket", ""), ticket):
        raise Unauthorized(f"this is not a ticket for the data of image {image_id} from {request.params['host']}")
    try:
        record = await request.run(wiring.registry.get_image, SERVICE, image_id)
    except NotFound:
        raise Gone(f"Image {image_id} was deleted before its data came.") from None
    if record.status not in ("active", "deactivated"):
        await _take(request, SERVICE, record, record.disk_format or "raw")


async def _take(request: Request, context: Context, record: Record, format_: str) -> None:
    """The body becomes the data of an image, or nothing of it is left.  Without ``format_`` it is only staged."""
    wiring, attempt = wiring_of(request), uuid.uuid4().hex
    upload = await request.run(wiring.store.begin, record.id, attempt, format_, request.config.images.largest_bytes)
    stored = False
    try:
        claim = Claim(attempt, wiring.node, format_, staging=not format_)
        await request.run(wiring.registry.claim, context, record.id, claim)
        await _receive(request, context, record.id, attempt, upload)
        await _keep(request, context, record.id, attempt, upload, bool(format_))
        stored = True
    except UnsafeImage as error:
        raise UnsupportedMedia(str(error)) from error
    finally:
        await request.run(_end, wiring, context, record.id, attempt, upload, stored)


async def download_image(request: Request) -> Reply:
    """GET: the data, or one range of it."""
    record: Record = await request.run(get_record, request, "download_image")
    if record.status == "deactivated" and not request.context.admin:
        raise Forbidden("The requested image has been deactivated. Image data download is forbidden.")
    return await _send(request, record)


async def download_to_host(request: Request) -> Reply:
    """GET: the data for a host that shows nova's ticket for it."""
    wiring, image_id = wiring_of(request), request.params["image_id"]
    ticket = image_ticket(wiring.ticket_secret, image_id, request.params["host"])
    if not same(request.headers.get("x-image-ticket", ""), ticket):
        raise Unauthorized(f"this is not a ticket for image {image_id} on {request.params['host']}")
    record = await request.run(wiring.registry.get_image, SERVICE, image_id)
    if record.status == "deactivated":
        raise Forbidden(f"image {image_id} is deactivated")
    if record.status != "active":
        raise NotFound(f"image {image_id} has no data")
    return await _send(request, record)


async def download_to_controller(request: Request) -> Reply:
    """GET: the data for a controller that has none of it yet and shows its ticket; 404 if it is not here either."""
    wiring, image_id = wiring_of(request), request.params["image_id"]
    ticket = copy_ticket(wiring.ticket_secret, image_id, request.params["host"])
    if not same(request.headers.get("x-image-ticket", ""), ticket):
        raise Unauthorized(f"this is not a ticket for a copy of image {image_id} on {request.params['host']}")
    return await _send(request, await request.run(wiring.registry.get_image, SERVICE, image_id), copy=True)


def _admit(request: Request) -> Record:
    """The image that is to get data; every reason against it that is known before the first byte."""
    record = _admit_data(request, "upload_image", "saving")
    missing = [name for name in ("disk_format", "container_format") if not getattr(record, name)]
    if missing:
        noun = "Property" if len(missing) == 1 else "Properties"
        raise BadRequest(f"{noun} {', '.join(missing)} must be set prior to saving data.")
    return record


def _admit_stage(request: Request) -> Record:
    return _admit_data(request, "modify_image", "uploading")


def _admit_data(request: Request, rule: str, status: str) -> Record:
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/octet-stream":
        raise UnsupportedMedia(f"Invalid content type {content_type}; it must be application/octet-stream")
    wanted_store = request.headers.get("x-image-meta-store", store.NAME)
    if wanted_store != store.NAME:
        raise BadRequest(f"Store '{wanted_store}' does not exist.")
    size = _declared_size(request, "content-length") or _declared_size(request, "x-openstack-image-size")
    if size and size > request.config.images.largest_bytes:
        raise TooLarge(f"The incoming image is too large: more than {request.config.images.largest_bytes} bytes")
    record = get_record(request, rule)
    if record.status != "queued":
        raise Conflict(f"Image status transition from {record.status} to {status} is not allowed")
    return record


async def _receive(request: Request, context: Context, image_id: str, attempt: str, upload: Upload) -> None:
    """Everything that the client sends, through ``upload``."""
    wiring = wiring_of(request)
    clock = asyncio.get_running_loop()
    renew_at = clock.time() + wiring.renew_seconds
    async for piece in _pieces(request, wiring.idle_seconds):
        await request.run(upload.write, piece)
        if clock.time() >= renew_at:
            await _renew(request, context, image_id, attempt)
            renew_at = clock.time() + wiring.renew_seconds
    declared = _declared_size(request, "x-openstack-image-size")
    if declared is not None and declared != upload.size:
        raise BadRequest(f"{declared} bytes were announced for image {image_id}, {upload.size} came")


async def _pieces(request: Request, idle_seconds: float) -> AsyncIterator[bytes]:
    """The body in pieces of ``PIECE`` bytes and a rest; RequestTimeout if nothing comes for too long."""
    held: list[bytes] = []
    room = PIECE
    stream = aiter(request.stream())
    while True:
        try:
            async with asyncio.timeout(idle_seconds):
                chunk = await anext(stream, None)
        except TimeoutError:
            raise RequestTimeout(f"nothing came for {idle_seconds:.0f} seconds") from None
        if chunk is None:
            break
        while len(chunk) >= room:
            held.append(chunk[:room])
            chunk, room = chunk[room:], PIECE
            piece, held = b"".join(held), []
            yield piece
        if chunk:
            held.append(chunk)
            room -= len(chunk)
    if held:
        yield b"".join(held)


async def _renew(request: Request, context: Context, image_id: str, attempt: str) -> None:
    """Say that the upload goes on.  A registry that is away for the moment is no reason to end it."""
    try:
        await request.run(wiring_of(request).registry.renew, context, image_id, attempt)
    except (Conflict, NotFound):
        raise _deleted(image_id) from None
    except ApiError as error:
        LOG.warning("the upload of image %s cannot be renewed: %s", image_id, error.message)


async def _keep(
    request: Request, context: Context, image_id: str, attempt: str, upload: Upload, checked: bool
) -> None:
    """The file under its final name, then the registry's word."""
    registry = wiring_of(request).registry
    try:
        if checked:
            data = await request.run(upload.finish)
            await request.run(registry.activate, context, image_id, attempt, data)
        else:
            await request.run(upload.keep)
            await request.run(registry.stage, context, image_id, attempt, upload.size)
    except (Conflict, NotFound):
        raise _deleted(image_id) from None


def _end(wiring: Wiring, context: Context, image_id: str, attempt: str, upload: Upload, stored: bool) -> None:
    """The file goes only when the registry has confirmed that it is nobody's data; else the loop finds it."""
    try:
        if not stored:
            wiring.registry.release(context, image_id, attempt)
            upload.discard()
    except ApiError as error:
        LOG.warning("the upload of image %s is left to the loop: %s", image_id, error.message)
    finally:
        upload.close()


async def _send(request: Request, record: Record, copy: bool = False) -> Reply:
    """``copy``: for a controller that may have been asked for it by this one, and for nobody to note."""
    if record.size is None or record.attempt is None:
        return Reply(None, 204)
    headers = {"Content-MD5": record.checksum or "", "Accept-Ranges": "bytes"}
    first, last, status = 0, record.size - 1, 200
    if "range" in request.headers:
        first, last = _range(request.headers["range"], record.size)
        headers["Content-Range"] = f"bytes {first}-{last}/{record.size}"
        status = 206
    headers["Content-Length"] = str(last - first + 1)
    data = await request.run(_open, wiring_of(request), record.id, record.attempt, first, copy)
    if request.method == "HEAD":
        data.close()
        return Reply(None, status, headers)
    stream = _read(request, record, data, last - first + 1, copy)
    return Reply(None, status, headers, "application/octet-stream", stream)


def _open(wiring: Wiring, image_id: str, attempt: str, first: int, only_here: bool) -> Data:
    """The data from this byte on, of this controller or of one that has it."""
    try:
        file = wiring.store.open(image_id, attempt)
    except FileNotFoundError:
        found = None if only_here else wiring.peers.open(image_id, first)
        if found is None:
            raise NotFound(f"The data of image {image_id} cannot be found") from None
        return found
    file.seek(first)
    return file


async def _read(request: Request, record: Record, data: Data, length: int, copy: bool) -> AsyncIterator[bytes]:
    size = length
    try:
        while length > 0:
            piece = await request.run(data.read, min(PIECE, length))
            if not piece:
                raise OSError(f"the data of image {record.id} ends too early")
            length -= len(piece)
            yield piece
    finally:
        data.close()
    if not copy:
        await request.run(_report, request, record.id, Sent(size, request.client))


def _report(request: Request, image_id: str, sent: Sent) -> None:
    """The client has everything by now; that nobody notes it is no reason to break off."""
    context = SERVICE if request.context.host else request.context
    try:
        wiring_of(request).registry.report_sent(context, image_id, sent)
    except ApiError as error:
        LOG.warning("nobody notes that image %s was sent: %s", image_id, error.message)


def _range(text: str, size: int) -> tuple[int, int]:
    """The first and last byte that a Range header asks for."""
    if "," in text:
        raise BadRequest(
            "Requests with multiple ranges are not supported in Glance. "
            "You may make multiple single-range requests instead."
        )
    found = _RANGE.fullmatch(text.strip())
    if not found or found.group() == "bytes=-":
        raise _unsatisfiable("Invalid Range header.", size)
    if found[1] is None:
        first, last = max(0, size - int(found[2])), size - 1
    else:
        first, last = int(found[1]), min(int(found[2] or size - 1), size - 1)
    if first >= size:
        reason = f"Start position MUST be in the inclusive range [0, {size - 1}]."
        raise _unsatisfiable(f"Invalid start position in Range header. {reason}", size)
    if last < first:
        raise _unsatisfiable("Invalid Range header.", size)
    return first, last


def _declared_size(request: Request, header: str) -> int | None:
    text = request.headers.get(header)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise BadRequest("Invalid or missing image size in request headers.")
    return int(text)


def _unsatisfiable(message: str, size: int) -> RangeNotSatisfiable:
    return RangeNotSatisfiable(message, headers={"Content-Range": f"bytes */{size}"})


def _deleted(image_id: str) -> Gone:
    return Gone(
        f"Image {image_id} could not be found after upload. The image may have been deleted during the upload, "
        "cleaning up the chunks uploaded."
    )


_FILE = "/v2/images/{image_id}/file"
ROUTES = [
    Route("PUT", _FILE, upload_image, "upload_image", 204, streams=True, also=(415,)),
    Route("PUT", "/v2/images/{image_id}/stage", stage_image, "modify_image", 204, streams=True, also=(415,)),
    Route("GET", _FILE, download_image, "download_image", streams=True, also=(204, 206, 416)),
    Route("GET", "/hosts/{host}/images/{image_id}/file", download_to_host, HOST, streams=True),
    Route("GET", "/hosts/{host}/copies/{image_id}", download_to_controller, HOST, streams=True),
    Route("PUT", "/hosts/{host}/images/{image_id}/file", upload_from_host, HOST, 204, streams=True),
]
