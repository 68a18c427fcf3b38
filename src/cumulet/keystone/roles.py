"""Roles, of the whole cloud or of one domain, and what each implies.

A role of a domain is not shown in tokens; it counts by the roles that it implies.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from cumulet.core import clock, schema
from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest
from cumulet.core.http import Json, Request, Route
from cumulet.core.listing import Listing, list_page
from cumulet.core.schema import UNSET, Open, UnsetType
from cumulet.keystone import documents
from cumulet.keystone.documents import Description, IdText, Name, Options
from cumulet.keystone.tables import projects, roles


class NewRole(Open):
    name: Name
    domain_id: IdText | None = None
    description: Description = None
    options: Options | UnsetType = UNSET


class NewRoleBody(Open):
    role: NewRole


class ChangedRole(Open):
    name: Name | UnsetType = UNSET
    domain_id: str | UnsetType | None = UNSET
    description: Description | UnsetType = UNSET
    options: Options | UnsetType = UNSET


class ChangedRoleBody(Open):
    role: ChangedRole


LISTING = Listing(
    roles.c.id,
    {"name": roles.c.name, "domain_id": roles.c.domain_id},
    documents.name_filters(roles.c.name),
    default_sort=(("name", "asc"),),
)


def list_roles(request: Request) -> Json:
    """The roles of the whole cloud, or with ``domain_id`` those of that domain."""
    statement = sa.select(roles)
    if request.one("domain_id") is None:
        statement = statement.where(roles.c.domain_id == "")
    else:
        request.enforce("identity:list_domain_roles")
    with request.db.read() as tx:
        page = list_page(tx, statement, request, LISTING)
    return documents.collection(request, "roles", (view(request, row) for row in page.rows), page)


def show_role(request: Request) -> Json:
    with request.db.read() as tx:
        return {"role": view(request, get_role(tx, request, "get"))}


def create_role(request: Request) -> Json:
    wanted: NewRole = request.body.role
    request.enforce("identity:create_domain_role" if wanted.domain_id else "identity:create_role")
    row: Json = {
        "id": documents.new_id(),
        "domain_id": wanted.domain_id or "",
        "name": wanted.name.strip(),
        "description": wanted.description,
        "options": documents.changed_options({}, wanted.options),
        "extra": documents.extras(request, "role", NewRole),
        "created_at": clock.now(),
    }
    with request.db.transaction() as tx:
        domain = sa.select(projects.c.id).where(projects.c.id == wanted.domain_id, projects.c.is_domain)
        if wanted.domain_id and not tx.find(domain):
            raise documents.missing("domain", wanted.domain_id)
        with documents.unique("role", row["name"], row["domain_id"]):
            tx.write(roles.insert(), row)
        documents.notify(tx, request, "role.created", row["id"])
        return {"role": view(request, _row(tx, row["id"]))}


def update_role(request: Request) -> Json:
    wanted: ChangedRole = request.body.role
    with request.db.transaction() as tx:
        row = get_role(tx, request, "update", lock=True)
        if wanted.domain_id is not UNSET and (wanted.domain_id or "") != row.domain_id:
            raise BadRequest("Cannot change Domain ID")
        given = schema.given(wanted)
        options = documents.changed_options(row.options, wanted.options)
        documents.check_mutable("role", row, "update", options)
        values: Json = {name: given[name] for name in ("name", "description") if name in given}
        values["options"] = options
        values["extra"] = {**row.extra, **documents.extras(request, "role", ChangedRole)}
        with documents.unique("role", given.get("name", row.name), row.domain_id):
            tx.write(sa.update(roles).where(roles.c.id == row.id).values(values))
        documents.notify(tx, request, "role.updated", row.id)
        return {"role": view(request, _row(tx, row.id))}


def delete_role(request: Request) -> None:
    """Its assignments and what it implies go with it (foreign keys)."""
    with request.db.transaction() as tx:
        row = get_role(tx, request, "delete")
        documents.check_mutable("role", row, "delete")
        tx.write(sa.delete(roles).where(roles.c.id == row.id))
        documents.notify(tx, request, "role.deleted", row.id)


def get_role(tx: Transaction, request: Request, verb: str, *, lock: bool = False) -> Row[Any]:
    """The role in the URL, if the caller may ``verb`` it."""
    role_id = request.params["role_id"]
    row = documents.find_row(tx, roles, role_id, lock=lock)
    noun = "domain_role" if row and row.domain_id else "role"
    request.enforce(f"identity:{verb}_{noun}", role_target(row))
    if row is None:
        raise documents.missing("role", role_id)
    return row


def role_target(row: Row[Any] | None) -> Json:
    if row is None:
        return {"target.role.domain_id": ""}
    return {"target.role.name": row.name, "target.role.domain_id": row.domain_id or None}


def view(request: Request, row: Row[Any]) -> Json:
    return {
        **row.extra,
        "id": row.id,
        "name": row.name,
        "domain_id": row.domain_id or None,
        "description": row.description,
        "options": row.options,
        "links": {"self": documents.link(request, f"roles/{row.id}")},
    }


def _row(tx: Transaction, role_id: str) -> Row[Any]:
    return tx.all(sa.select(roles).where(roles.c.id == role_id))[0]


ROUTES = [
    Route("GET", "/v3/roles", list_roles, "identity:list_roles"),
    Route("POST", "/v3/roles", create_role, "identity:create_role", 201, body=NewRoleBody),
    Route("GET", "/v3/roles/{role_id}", show_role, "identity:get_role"),
    Route("PATCH", "/v3/roles/{role_id}", update_role, "identity:update_role", body=ChangedRoleBody),
    Route("DELETE", "/v3/roles/{role_id}", delete_role, "identity:delete_role", 204),
]
