"""What neutron tells the world of each change, in upstream's event types and payloads.

``<kind>.<verb>.start`` carries what was asked for, ``<kind>.<verb>.end`` what came of it.  Both are written with
the change itself, so there is never a start without its end: what was refused is not told.  What the cloud makes
by the way (a floating IP's own port) has an end only.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from cumulet.core.db import Transaction
from cumulet.core.http import Request

PUBLISHER = "network.neutron-server"
Json = dict[str, Any]


def created(tx: Transaction, request: Request, kind: str, bodies: Sequence[Any], documents: Sequence[Json]) -> None:
    for body, document in zip(bodies, documents, strict=True):
        _tell(tx, request, f"{kind}.create", {kind: msgspec.to_builtins(body)}, {kind: document})


def updated(tx: Transaction, request: Request, kind: str, body: Any, document: Json) -> None:
    asked = {kind: msgspec.to_builtins(body), "id": document["id"]}
    _tell(tx, request, f"{kind}.update", asked, {kind: document})


def deleted(tx: Transaction, request: Request, kind: str, thing_id: str) -> None:
    _tell(tx, request, f"{kind}.delete", {f"{kind}_id": thing_id}, {f"{kind}_id": thing_id})


def tagged(tx: Transaction, request: Request, verb: str, collection: str, thing_id: str, tags: Any) -> None:
    """``tag.<verb>.start`` and ``.end``: tags of a thing were set or taken away."""
    payload = {"parent_resource": collection, "parent_resource_id": thing_id}
    if tags is not None:
        payload["tags"] = tags
    _tell(tx, request, f"tag.{verb}", payload, payload)


def scheduled(tx: Transaction, request: Request, event: str, agent_id: str, key: str, thing_id: str) -> None:
    """``l3_agent.router.add`` and its like, which have neither start nor end."""
    tx.notify(request.context, event, PUBLISHER, {"agent": {"id": agent_id, key: thing_id}})


def _tell(tx: Transaction, request: Request, event: str, asked: Json, done: Json) -> None:
    tx.notify(request.context, f"{event}.start", PUBLISHER, asked)
    tx.notify(request.context, f"{event}.end", PUBLISHER, done)
