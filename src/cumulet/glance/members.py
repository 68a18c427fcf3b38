"""/v2/images/{image_id}/members: the projects that a shared image is offered to.

The owner offers, the member accepts or rejects; an image that is not accepted is not in the member's list, but
can be used by its id.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta

from cumulet.core import clock
from cumulet.core.errors import Forbidden, NotFound
from cumulet.core.http import Request, Route
from cumulet.core.schema import Open
from cumulet.glance import policies
from cumulet.glance.images import get_record
from cumulet.glance.model import Member, Record
from cumulet.glance.wiring import registry_of


class NewMember(Open):
    member: Annotated[str, Meta(min_length=1, max_length=255)]


class MemberStatus(Open):
    status: Literal["pending", "accepted", "rejected"]


def list_members(request: Request) -> dict[str, Any]:
    record = _shared(request, "get_members")
    members = registry_of(request).list_members(request.context, record.id)
    return {"members": [_view(member) for member in members], "schema": "/v2/schemas/members"}


def show_member(request: Request) -> dict[str, Any]:
    """Like all lookups: what the caller may not see is not there."""
    try:
        record = _shared(request, "get_member")
    except Forbidden as error:
        raise NotFound(error.message) from None
    wanted = request.params["member_id"]
    for member in registry_of(request).list_members(request.context, record.id):
        if member.member_id == wanted:
            return _view(member)
    raise NotFound(f"{wanted} not found in the member list of the image {record.id}.")


def create_member(request: Request) -> dict[str, Any]:
    record = _shared(request, "add_member")
    return _view(registry_of(request).create_member(request.context, record.id, request.body.member))


def update_member(request: Request) -> dict[str, Any]:
    """The member's own word: the owner of an image cannot make others accept it."""
    record = _shared(request, "modify_member")
    wanted = request.params["member_id"]
    target = {**policies.target(record), "member_id": wanted}
    request.enforce("modify_member", target)
    registry = registry_of(request)
    return _view(registry.set_member_status(request.context, record.id, wanted, request.body.status))


def delete_member(request: Request) -> None:
    record = _shared(request, "delete_member")
    registry_of(request).delete_member(request.context, record.id, request.params["member_id"])


def _shared(request: Request, rule: str) -> Record:
    record = get_record(request, rule, f"Image {request.params['image_id']} not found.")
    if record.visibility != "shared":
        raise Forbidden("Only shared images have members.")
    return record


def _view(member: Member) -> dict[str, Any]:
    return {
        "member_id": member.member_id,
        "image_id": member.image_id,
        "status": member.status,
        "created_at": clock.short(member.created_at),
        "updated_at": clock.short(member.updated_at),
        "schema": "/v2/schemas/member",
    }


_ONE = "/v2/images/{image_id}/members/{member_id}"
ROUTES = [
    Route("GET", "/v2/images/{image_id}/members", list_members, "get_members"),
    Route("POST", "/v2/images/{image_id}/members", create_member, "add_member", body=NewMember),
    Route("GET", _ONE, show_member, "get_member"),
    Route("PUT", _ONE, update_member, "modify_member", body=MemberStatus),
    Route("DELETE", _ONE, delete_member, "delete_member", 204),
]
