"""/v3/policies: texts that operators keep for other programs.  The cloud's own rules are files, not these."""

from typing import Annotated, Any

import sqlalchemy as sa
from msgspec import Meta
from sqlalchemy.engine import Row

from cumulet.core import clock, schema
from cumulet.core.db import Transaction
from cumulet.core.http import Json, Request, Route
from cumulet.core.listing import Listing, list_page
from cumulet.core.schema import UNSET, Open, UnsetType
from cumulet.keystone import documents
from cumulet.keystone.tables import stored_policies

Blob = dict[str, Any] | Annotated[str, Meta(max_length=65535)]
Kind = Annotated[str, Meta(max_length=255)]


class NewPolicy(Open):
    blob: Blob
    type: Kind


class NewPolicyBody(Open):
    policy: NewPolicy


class ChangedPolicy(Open):
    blob: Blob | UnsetType = UNSET
    type: Kind | UnsetType = UNSET


class ChangedPolicyBody(Open):
    policy: ChangedPolicy


LISTING = Listing(stored_policies.c.id, {"type": stored_policies.c.type}, default_sort=(("id", "asc"),))


def list_policies(request: Request) -> Json:
    with request.db.read() as tx:
        page = list_page(tx, sa.select(stored_policies), request, LISTING)
    return documents.collection(request, "policies", (view(request, row) for row in page.rows), page)


def show_policy(request: Request) -> Json:
    with request.db.read() as tx:
        return {"policy": view(request, get_policy(tx, request))}


def create_policy(request: Request) -> Json:
    wanted: NewPolicy = request.body.policy
    row: Json = {
        "id": documents.new_id(),
        "type": wanted.type,
        "blob": wanted.blob,
        "extra": documents.extras(request, "policy", NewPolicy),
        "created_at": clock.now(),
    }
    with request.db.transaction() as tx:
        tx.write(stored_policies.insert(), row)
        documents.notify(tx, request, "policy.created", row["id"])
        return {"policy": view(request, _row(tx, row["id"]))}


def update_policy(request: Request) -> Json:
    with request.db.transaction() as tx:
        row = get_policy(tx, request, lock=True)
        values = schema.given(request.body.policy)
        values["extra"] = {**row.extra, **documents.extras(request, "policy", ChangedPolicy)}
        tx.write(sa.update(stored_policies).where(stored_policies.c.id == row.id).values(values))
        documents.notify(tx, request, "policy.updated", row.id)
        return {"policy": view(request, _row(tx, row.id))}


def delete_policy(request: Request) -> None:
    with request.db.transaction() as tx:
        row = get_policy(tx, request)
        tx.write(sa.delete(stored_policies).where(stored_policies.c.id == row.id))
        documents.notify(tx, request, "policy.deleted", row.id)


def get_policy(tx: Transaction, request: Request, *, lock: bool = False) -> Row[Any]:
    key = request.params["policy_id"]
    row = documents.find_row(tx, stored_policies, key, lock=lock)
    if row is None:
        raise documents.missing("policy", key)
    return row


def view(request: Request, row: Row[Any]) -> Json:
    return {
        **row.extra,
        "id": row.id,
        "type": row.type,
        "blob": row.blob,
        "links": {"self": documents.link(request, f"policies/{row.id}")},
    }


def _row(tx: Transaction, key: str) -> Row[Any]:
    return tx.all(sa.select(stored_policies).where(stored_policies.c.id == key))[0]


_ONE = "/v3/policies/{policy_id}"
ROUTES = [
    Route("GET", "/v3/policies", list_policies, "identity:list_policies"),
    Route("POST", "/v3/policies", create_policy, "identity:create_policy", 201, body=NewPolicyBody),
    Route("GET", _ONE, show_policy, "identity:get_policy"),
    Route("PATCH", _ONE, update_policy, "identity:update_policy", body=ChangedPolicyBody),
    Route("DELETE", _ONE, delete_policy, "identity:delete_policy", 204),
]
