"""glance-registry's part in the life of image data: claims by uploads, and what the loop of glance-api asks.

An upload claims its image (queued → saving), and ends in ``finish`` (active) or ``release`` (queued).  Each is a
compare-and-set on the attempt's id, so whoever comes too late changes nothing.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from cumulet.core import clock
from cumulet.core.db import Transaction
from cumulet.core.errors import Conflict
from cumulet.core.http import Request, Route
from cumulet.core.policy import AUTHENTICATED
from cumulet.glance import records, registry_imports
from cumulet.glance.model import Claim, DataState, Staged, Stored, StoredImage
from cumulet.glance.registry_notes import notify
from cumulet.glance.tables import images

TOPIC = "glance.images"
STORED = "glance.stored"
"""The topic of images that have got their data."""
SILENT_SECONDS = 900
"""An upload on another node that has not been renewed for so long is dead; glance-api renews every minute."""
TOMBSTONE_DAYS = 30
_MOST_IDS = 500

_RECEIVING = sa.and_(
    images.c.attempt.is_not(None),
    images.c.stored_at.is_(None),
    images.c.staged_at.is_(None),
    images.c.deleted_at.is_(None),
)
_KEPT = sa.and_(
    images.c.attempt.is_not(None),
    sa.or_(images.c.stored_at.is_not(None), images.c.staged_at.is_not(None)),
    images.c.deleted_at.is_(None),
)

_STATES = sa.select(
    images.c.id,
    images.c.attempt,
    images.c.attempt_node,
    images.c.attempt_seen_at,
    images.c.gone_at,
    records.STATUS,
    _RECEIVING.label("receiving"),
    _KEPT.label("kept"),
)


def claim(request: Request) -> None:
    """Begin an upload; again is no harm."""
    wanted: Claim = request.body
    with request.db.transaction() as tx:
        row = records.get_row(tx, request.context, request.params["image_id"])
        if row.status in ("saving", "uploading", "importing") and row.attempt == wanted.attempt:
            return
        statement = sa.update(images).where(
            images.c.id == row.id,
            images.c.attempt.is_(None),
            images.c.deleted_at.is_(None),
            images.c.importing == wanted.task if wanted.task else images.c.importing.is_(None),
            sa.true() if wanted.staging else images.c.disk_format == wanted.disk_format,
        )
        values = {
            "staging": wanted.staging,
            "attempt": wanted.attempt,
            "attempt_node": wanted.node,
            "attempt_seen_at": clock.now(),
            "revision": images.c.revision + 1,
        }
        if not tx.write(statement.values(values)):
            status = "uploading" if wanted.staging else "saving"
            raise Conflict(f"Image status transition from {row.status} to {status} is not allowed")
        registry_imports.start(tx, wanted.task)
        _tell(tx, request, row.id, "image.prepare")


def renew(request: Request) -> None:
    with request.db.transaction() as tx:
        if not tx.write(_uploading(request).values(attempt_seen_at=clock.now())):
            raise _no_longer(request)


def stage(request: Request) -> None:
    """The data is complete, and waits for its import; again is no harm."""
    waiting = sa.and_(images.c.staging, images.c.staged_at.is_(None))
    with request.db.transaction() as tx:
        change = _uploading(request).where(waiting).values(staged_at=clock.now(), staged_bytes=request.body.size)
        if not tx.write(change) and not _is_kept(tx, request):
            raise _no_longer(request)


def finish(request: Request) -> None:
    """The data is complete, and with it the import if there is one; again is no harm."""
    stored: Stored = request.body
    now = clock.now()
    values = {
        "size": stored.size,
        "virtual_size": stored.virtual_size,
        "checksum": stored.checksum,
        "sha512": stored.sha512,
        "stored_at": now,
        "staging": False,
        "staged_bytes": None,
        "importing": None,
        "updated_at": now,
        "revision": images.c.revision + 1,
    }
    with request.db.transaction() as tx:
        if tx.write(_uploading(request).values(values)):
            registry_imports.finish(tx, request.params["image_id"])
            tx.hint(STORED, request.params["image_id"])
            _tell(tx, request, request.params["image_id"], "image.upload", "image.activate")
            return
        if not _is_kept(tx, request):
            raise _no_longer(request)


def release(request: Request) -> None:
    """End an upload without data; Conflict if its data is the image's, or staged.  Again is no harm.

    Only after this may the upload's file be removed.  An import that it was part of is begun anew.
    """
    values = {
        "staging": False,
        "attempt": None,
        "attempt_node": None,
        "attempt_seen_at": None,
        "updated_at": clock.now(),
        "revision": images.c.revision + 1,
    }
    with request.db.transaction() as tx:
        unfinished = _uploading(request).where(images.c.staged_at.is_(None))
        if not tx.write(unfinished.values(values)) and _is_kept(tx, request):
            raise Conflict(f"image {request.params['image_id']} has the data of this attempt")
        tx.hint(registry_imports.TOPIC, request.params["image_id"])


def list_data(request: Request) -> list[DataState]:
    """The state of the images asked for, and of all that are saving or deleted with their data not yet gone."""
    work = sa.or_(
        _RECEIVING,
        sa.and_(images.c.deleted_at.is_not(None), images.c.gone_at.is_(None)),
    )
    states = {image_id: DataState(id=image_id, status="deleted", gone=True) for image_id in request.body}
    quiet_since = clock.later(-SILENT_SECONDS)
    with request.db.read() as tx:
        for number in range(0, len(request.body), _MOST_IDS):
            asked = images.c.id.in_(request.body[number : number + _MOST_IDS])
            states |= _states(tx.all(_STATES.where(asked)), quiet_since)
        states |= _states(tx.all(_STATES.where(work)), quiet_since)
    return list(states.values())


def list_stored(request: Request) -> list[StoredImage]:
    """All images that have their data."""
    here = sa.and_(images.c.stored_at.is_not(None), images.c.deleted_at.is_(None))
    columns = (images.c.id, images.c.attempt, images.c.disk_format, images.c.sha512)
    with request.db.read() as tx:
        found = tx.all(sa.select(*columns).where(here).order_by(images.c.stored_at, images.c.id))
    return [
        StoredImage(id=row.id, attempt=row.attempt, disk_format=row.disk_format, sha512=row.sha512) for row in found
    ]


def report_gone(request: Request) -> None:
    """No file is left of a deleted image.  Old tombstones go on this occasion."""
    with request.db.transaction() as tx:
        tx.write(
            sa.update(images)
            .where(
                images.c.id == request.params["image_id"],
                images.c.deleted_at.is_not(None),
                images.c.gone_at.is_(None),
            )
            .values(gone_at=clock.now())
        )
        tx.write(sa.delete(images).where(images.c.gone_at < clock.later(-TOMBSTONE_DAYS * 86400)))


def _states(rows: Sequence[Row[Any]], quiet_since: str) -> dict[str, DataState]:
    return {
        row.id: DataState(
            id=row.id,
            status=row.status,
            attempt=row.attempt,
            node=row.attempt_node,
            silent=bool(row.receiving) and row.attempt_seen_at < quiet_since,
            gone=row.gone_at is not None,
            receiving=bool(row.receiving),
            kept=bool(row.kept),
        )
        for row in rows
    }


def _uploading(request: Request) -> sa.Update:
    """A change to the image while this attempt is the one that uploads it."""
    return sa.update(images).where(
        images.c.id == request.params["image_id"],
        images.c.attempt == request.params["attempt"],
        images.c.stored_at.is_(None),
        images.c.deleted_at.is_(None),
    )


def _is_kept(tx: Transaction, request: Request) -> bool:
    """Whether what this attempt uploaded is the image's data, or staged to become it."""
    statement = sa.select(images.c.id).where(
        images.c.id == request.params["image_id"], images.c.attempt == request.params["attempt"], _KEPT
    )
    return tx.find(statement) is not None


def _tell(tx: Transaction, request: Request, image_id: str, *events: str) -> None:
    record = records.records_of(tx, records.find_rows(tx, [image_id]))[0]
    for event in events:
        notify(tx, request, event, record)


def _no_longer(request: Request) -> Conflict:
    return Conflict(f"image {request.params['image_id']} is no longer uploaded by this attempt")


ROUTES = [
    Route("POST", "/images/{image_id}/uploads", claim, AUTHENTICATED, 204, body=Claim),
    Route("POST", "/images/{image_id}/uploads/{attempt}/renew", renew, AUTHENTICATED, 204),
    Route("POST", "/images/{image_id}/uploads/{attempt}/finish", finish, AUTHENTICATED, 204, body=Stored),
    Route("POST", "/images/{image_id}/uploads/{attempt}/staged", stage, AUTHENTICATED, 204, body=Staged),
    Route("DELETE", "/images/{image_id}/uploads/{attempt}", release, AUTHENTICATED, 204),
    Route("POST", "/data", list_data, AUTHENTICATED, body=list[str]),
    Route("GET", "/data/stored", list_stored, AUTHENTICATED),
    Route("POST", "/data/{image_id}/gone", report_gone, AUTHENTICATED, 204),
]
