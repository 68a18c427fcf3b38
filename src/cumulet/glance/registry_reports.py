"""glance-registry: what was downloaded, and what a project has."""

import sqlalchemy as sa

from cumulet.core.http import Request, Route
from cumulet.core.policy import AUTHENTICATED
from cumulet.glance import records
from cumulet.glance.model import Sent, Usage
from cumulet.glance.registry_notes import notify_sent
from cumulet.glance.tables import images


def report_sent(request: Request) -> None:
    with request.db.transaction() as tx:
        row = records.get_row(tx, request.context, request.params["image_id"])
        notify_sent(tx, request, row.owner, request.body)


def show_usage(request: Request) -> Usage:
    receiving = sa.and_(images.c.attempt.is_not(None), images.c.stored_at.is_(None))
    statement = sa.select(
        sa.func.coalesce(sa.func.sum(images.c.size), 0),
        sa.func.count(),
        sa.func.coalesce(sa.func.sum(sa.case((receiving, 1), else_=0)), 0),
        sa.func.coalesce(sa.func.sum(images.c.staged_bytes), 0),
    ).where(images.c.owner == request.context.project_id, images.c.deleted_at.is_(None))
    with request.db.read() as tx:
        return Usage(*(int(value) for value in tx.all(statement)[0]))


ROUTES = [
    Route("POST", "/images/{image_id}/sent", report_sent, AUTHENTICATED, 204, body=Sent),
    Route("GET", "/usage", show_usage, AUTHENTICATED),
]
