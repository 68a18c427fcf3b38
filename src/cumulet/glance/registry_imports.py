"""glance-registry's part in imports: the orders, and what became of them.

An order marks its image (``importing``), so nothing else can bring data until it is finished or has failed.  The
end of an import and the image's data are one commit (``registry_data.finish``).
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from cumulet.core import clock
from cumulet.core.db import Transaction
from cumulet.core.errors import Conflict, TooLarge
from cumulet.core.http import Request, Route
from cumulet.core.policy import AUTHENTICATED
from cumulet.core.schema import Strict
from cumulet.glance import records
from cumulet.glance.model import DIRECT, ImportWork, NewImport, Task
from cumulet.glance.registry_notes import caller, notify_task
from cumulet.glance.tables import image_tasks, images

TOPIC = "glance.imports"
MOST_UNFINISHED = 10
"""Imports of one project that may wait at a time."""
KEPT_SECONDS = 48 * 3600
LONGEST_REASON = 1000

_WORK = (
    sa.select(
        image_tasks,
        images.c.disk_format,
        images.c.attempt,
        images.c.attempt_node,
        images.c.staged_at,
    )
    .select_from(image_tasks.join(images, images.c.importing == image_tasks.c.id))
    .where(image_tasks.c.finished_at.is_(None), images.c.deleted_at.is_(None))
    .order_by(image_tasks.c.created_at, image_tasks.c.id)
)


class Failure(Strict):
    reason: str


def create_import(request: Request) -> None:
    wanted: NewImport = request.body
    context, now = caller(request), clock.now()
    with request.db.transaction() as tx:
        row = records.get_row(tx, request.context, request.params["image_id"])
        owner = row.owner or context.project_id
        _check_room(tx, owner)
        staged = images.c.staged_at.is_not(None) if wanted.method == DIRECT else images.c.attempt.is_(None)
        statement = sa.update(images).where(
            images.c.id == row.id,
            images.c.importing.is_(None),
            images.c.stored_at.is_(None),
            images.c.deleted_at.is_(None),
            images.c.disk_format.is_not(None),
            images.c.container_format.is_not(None),
            staged,
        )
        values = {"importing": wanted.task, "updated_at": now, "revision": images.c.revision + 1}
        if not tx.write(statement.values(values)):
            needed = "uploading" if wanted.method == DIRECT else "queued"
            raise Conflict(f"Only images with status '{needed}' and their data at hand can be imported")
        task = {
            "id": wanted.task,
            "image_id": row.id,
            "owner": owner,
            "user_id": context.user_id,
            "request_id": context.request_id,
            "method": wanted.method,
            "uri": wanted.uri,
            "created_at": now,
        }
        tx.write(image_tasks.insert(), task)
        notify_task(tx, request, "task.create", wanted.task, owner, now)
        tx.hint(TOPIC, wanted.task)


def list_imports(request: Request) -> list[ImportWork]:
    with request.db.read() as tx:
        return [_work(row) for row in tx.all(_WORK)]


def fail_import(request: Request) -> None:
    """The image is queued again, unless its data has come after all.  Again is no harm."""
    task_id, reason = request.params["task_id"], request.body.reason[:LONGEST_REASON]
    now = clock.now()
    values = {
        "importing": None,
        "attempt": None,
        "attempt_node": None,
        "attempt_seen_at": None,
        "staging": False,
        "staged_at": None,
        "staged_bytes": None,
        "updated_at": now,
        "revision": images.c.revision + 1,
    }
    with request.db.transaction() as tx:
        row = tx.find(sa.select(images.c.id).where(images.c.importing == task_id, images.c.stored_at.is_(None)))
        if row is not None:
            tx.write(sa.update(images).where(images.c.id == row.id).values(values))
            finish(tx, row.id, reason)


def list_tasks(request: Request) -> list[Task]:
    """Those of the caller's project; all of them for administrators."""
    statement = sa.select(image_tasks).where(image_tasks.c.created_at.is_not(None))
    for name, column in (("image_id", image_tasks.c.image_id), ("task_id", image_tasks.c.id)):
        if value := request.one(name):
            statement = statement.where(column == value)
    with request.db.read() as tx:
        if image_id := request.one("image_id"):
            records.get_row(tx, request.context, image_id)
        elif not request.context.admin:
            statement = statement.where(image_tasks.c.owner == request.context.project_id)
        rows = tx.all(statement.order_by(image_tasks.c.created_at.desc(), image_tasks.c.id).limit(1000))
    return [_task(row) for row in rows]


def start(tx: Transaction, task_id: str) -> None:
    if task_id:
        tx.write(sa.update(image_tasks).where(image_tasks.c.id == task_id).values(started_at=clock.now()))


def finish(tx: Transaction, image_id: str, failure: str | None = None) -> None:
    """End the import of an image, if there is one.  Old tasks are forgotten on this occasion."""
    unfinished = sa.and_(image_tasks.c.image_id == image_id, image_tasks.c.finished_at.is_(None))
    if tx.write(sa.update(image_tasks).where(unfinished).values(finished_at=clock.now(), failure=failure)):
        tx.write(sa.delete(image_tasks).where(image_tasks.c.finished_at < clock.later(-KEPT_SECONDS)))


def _check_room(tx: Transaction, owner: str) -> None:
    waiting = sa.and_(image_tasks.c.owner == owner, image_tasks.c.finished_at.is_(None))
    if tx.value(sa.select(sa.func.count()).select_from(image_tasks).where(waiting)) >= MOST_UNFINISHED:
        raise TooLarge(f"There are {MOST_UNFINISHED} imports of this project under way; wait for one to end")


def _work(row: Row[Any]) -> ImportWork:
    return ImportWork(
        id=row.id,
        image_id=row.image_id,
        method=row.method,
        uri=row.uri,
        owner=row.owner,
        user_id=row.user_id,
        request_id=row.request_id,
        disk_format=row.disk_format or "",
        attempt=row.attempt,
        node=row.attempt_node,
        staged=row.staged_at is not None,
    )


def _task(row: Row[Any]) -> Task:
    status = "processing" if row.started_at else "pending"
    if row.finished_at:
        status = "success" if row.failure is None else "failure"
    return Task(
        id=row.id,
        image_id=row.image_id,
        owner=row.owner,
        user_id=row.user_id,
        request_id=row.request_id,
        method=row.method,
        uri=row.uri,
        status=status,
        message=row.failure or "",
        created_at=row.created_at,
        updated_at=row.finished_at or row.started_at or row.created_at,
        expires_at=clock.later(KEPT_SECONDS, row.finished_at) if row.finished_at else None,
    )


ROUTES = [
    Route("POST", "/images/{image_id}/imports", create_import, AUTHENTICATED, 204, body=NewImport),
    Route("GET", "/imports", list_imports, AUTHENTICATED),
    Route("POST", "/imports/{task_id}/failure", fail_import, AUTHENTICATED, 204, body=Failure),
    Route("GET", "/tasks", list_tasks, AUTHENTICATED),
]
