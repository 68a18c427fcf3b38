"""glance-registry's part in sharing: the projects that an image is offered to, and what they said."""

import sqlalchemy as sa

from cumulet.core import clock
from cumulet.core.errors import Conflict, NotFound, TooLarge
from cumulet.core.http import Request, Route
from cumulet.core.policy import AUTHENTICATED
from cumulet.core.schema import Strict
from cumulet.glance import records
from cumulet.glance.model import Member
from cumulet.glance.registry_notes import notify_member
from cumulet.glance.tables import image_members

MOST_MEMBERS = 128


class NewMember(Strict):
    member_id: str


class MemberStatus(Strict):
    member_id: str
    status: str


def list_members(request: Request) -> list[Member]:
    """All of them for the owner; a member sees itself only."""
    context = request.context
    with request.db.read() as tx:
        row = records.get_row(tx, context, request.params["image_id"])
        statement = sa.select(image_members).where(image_members.c.image_id == row.id)
        if not context.admin and row.owner != context.project_id:
            statement = statement.where(image_members.c.member_id == context.project_id)
        rows = tx.all(statement.order_by(image_members.c.created_at, image_members.c.member_id))
        return [Member(**row._mapping) for row in rows]


def create_member(request: Request) -> Member:
    image_id, member_id = request.params["image_id"], request.body.member_id
    now = clock.now()
    member = Member(image_id=image_id, member_id=member_id, status="pending", created_at=now, updated_at=now)
    count = sa.select(sa.func.count()).select_from(image_members).where(image_members.c.image_id == image_id)
    with request.db.transaction() as tx:
        records.get_row(tx, request.context, image_id)
        if tx.value(count) >= MOST_MEMBERS:
            raise TooLarge(f"Image member limit exceeded for image {image_id}: the maximum is {MOST_MEMBERS}")
        try:
            tx.write(image_members.insert(), {name: getattr(member, name) for name in Member.__struct_fields__})
        except Conflict as error:
            raise Conflict(f"Member {member_id} is duplicated for image {image_id}") from error
        notify_member(tx, request, "image.member.create", member)
    return member


def set_status(request: Request) -> Member:
    image_id, member_id = request.params["image_id"], request.body.member_id
    one = sa.and_(image_members.c.image_id == image_id, image_members.c.member_id == member_id)
    with request.db.transaction() as tx:
        records.get_row(tx, request.context, image_id)
        values = {"status": request.body.status, "updated_at": clock.now()}
        if not tx.write(sa.update(image_members).where(one).values(values)):
            raise _missing(image_id, member_id)
        row = tx.find(sa.select(image_members).where(one))
        if row is None:
            raise _missing(image_id, member_id)
        member = Member(**row._mapping)
        notify_member(tx, request, "image.member.update", member)
        return member


def delete_member(request: Request) -> None:
    image_id, member_id = request.params["image_id"], request.one("member_id") or ""
    with request.db.transaction() as tx:
        records.get_row(tx, request.context, image_id)
        one = sa.and_(image_members.c.image_id == image_id, image_members.c.member_id == member_id)
        row = tx.find(sa.select(image_members).where(one))
        if row is None or not tx.write(sa.delete(image_members).where(one)):
            raise _missing(image_id, member_id)
        notify_member(tx, request, "image.member.delete", Member(**row._mapping), deleted_at=clock.now())


def _missing(image_id: str, member_id: str) -> NotFound:
    return NotFound(f"{member_id} not found in the member list of the image {image_id}.")


ROUTES = [
    Route("GET", "/images/{image_id}/members", list_members, AUTHENTICATED),
    Route("POST", "/images/{image_id}/members", create_member, AUTHENTICATED, 201, body=NewMember),
    Route("PUT", "/images/{image_id}/members", set_status, AUTHENTICATED, body=MemberStatus),
    Route("DELETE", "/images/{image_id}/members", delete_member, AUTHENTICATED, 204),
]
