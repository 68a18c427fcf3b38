"""``POST /os-server-external-events``: other services say that something happened to what a server uses.

Nobody depends on being told: the intent of a server's host is read from the database.  An event only makes the host
look again at once, and says of each server whether there is one that can.
"""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from cumulet.core.http import Json, Reply, Request, Route
from cumulet.core.schema import Strict, given
from cumulet.nova import status, versions
from cumulet.nova.tables import servers

DONE, MIXED = 200, 207
UNKNOWN_SERVER, NO_HOST, NO_TAG = 404, 422, 400
TAGGED = frozenset({"volume-extended"})
"""Events that say nothing without what they happened to."""


class Event(Strict):
    name: str
    server_uuid: Annotated[str, Meta(pattern="^[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}$")]
    status: Literal["failed", "completed", "in-progress"] = "completed"
    tag: Annotated[str, Meta(max_length=255)] | UnsetType = UNSET


class Events(Strict):
    events: Annotated[list[Event], Meta(min_length=1, max_length=1000)]


def create_events(request: Request) -> Reply:
    events: list[Event] = request.body.events
    for event in events:
        versions.check_value("event", event.name, request.version)
    ids = list({event.server_uuid for event in events})
    found: list[Json] = []
    with request.db.transaction() as tx:
        hosts = {row.id: row.host for row in tx.all(_HOSTS.where(servers.c.id.in_(ids)))}
        for event in events:
            code = _code(event, hosts)
            if code == DONE:
                tx.hint(f"nova.hosts.{hosts[event.server_uuid]}", event.server_uuid)
            found.append({**given(event), "status": event.status if code == DONE else "failed", "code": code})
    return Reply({"events": found}, status=DONE if all(one["code"] == DONE for one in found) else MIXED)


def _code(event: Event, hosts: dict[str, str | None]) -> int:
    if event.server_uuid not in hosts:
        return UNKNOWN_SERVER
    if not hosts[event.server_uuid]:
        return NO_HOST
    return NO_TAG if event.name in TAGGED and event.tag is UNSET else DONE


_HOSTS = status.BRIEF.where(servers.c.gone_at.is_(None))

ROUTES = (
    Route(
        "POST", "/v2.1/os-server-external-events", create_events, "os_compute_api:os-server-external-events:create",
        body=Events,
    ),
)  # fmt: skip
