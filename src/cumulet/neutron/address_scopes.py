"""/v2.0/address-scopes: which subnet pools' prefixes are told apart by being different."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import sqlalchemy as sa
from msgspec import UNSET, UnsetType
from sqlalchemy.engine import Row

from cumulet.core import listing
from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, Conflict, NotFound, Retry
from cumulet.core.http import Request, Route
from cumulet.core.listing import Listing
from cumulet.core.schema import Strict
from cumulet.neutron import checks, notices, sharing, standard
from cumulet.neutron.checks import IdText, NameText
from cumulet.neutron.sharing import ALL
from cumulet.neutron.standard import Json
from cumulet.neutron.tables import address_scopes, subnet_pools


class ScopeChange(Strict):
    name: NameText | UnsetType = UNSET
    shared: bool | UnsetType = UNSET


class NewScope(ScopeChange, kw_only=True):
    ip_version: Literal[4, 6]
    project_id: IdText | UnsetType = UNSET
    tenant_id: IdText | UnsetType = UNSET


class ScopesBody(Strict):
    address_scope: NewScope | UnsetType = UNSET
    address_scopes: list[NewScope] | UnsetType = UNSET


class ScopeBody(Strict):
    address_scope: ScopeChange


def create_scopes(request: Request) -> Json:
    bodies, bulk = standard.wanted(request.body, "address_scope", "address_scopes")
    with request.db.transaction() as tx:
        documents = [_create(tx, request, body) for body in bodies]
        notices.created(tx, request, "address_scope", bodies, documents)
    return standard.created(documents, "address_scope", "address_scopes", bulk)


def _create(tx: Transaction, request: Request, body: NewScope) -> Json:
    project_id = standard.project_of(request, body)
    about = {"project_id": project_id, "tenant_id": project_id}
    request.enforce("create_address_scope", about)
    standard.enforce_attributes(request, "create_address_scope", body, about, {"shared": False})
    row = standard.new_row(project_id) | {"name": body.name or "", "ip_version": body.ip_version}
    tx.write(address_scopes.insert(), row)
    sharing.share_with_all(tx, "address_scope", address_scopes, row["id"], body.shared is True)
    return _views(tx, request, [get_scope(tx, request, row["id"])])[0]


def list_scopes(request: Request) -> Json:
    with request.db.read() as tx:
        scoped = sa.select(address_scopes).where(sharing.visible(request, address_scopes))
        shared = sharing.open_to(address_scopes, standard.mine(request))
        listed = replace(LISTING, columns={**LISTING.columns, "shared": shared})
        page = listing.list_page(tx, scoped, request, listed)
        return standard.document(request, "address_scopes", page, _views(tx, request, page.rows))


def get_scope(tx: Transaction, request: Request, scope_id: str) -> Row[Any]:
    """The scope, if the caller may see it; 404 otherwise."""
    seen = sharing.visible(request, address_scopes)
    row = tx.find(sa.select(address_scopes).where(address_scopes.c.id == scope_id, seen))
    if row is None:
        raise NotFound(f"Address scope {checks.shown(scope_id)} could not be found", kind="AddressScopeNotFound")
    return row


def show_scope(request: Request) -> Json:
    with request.db.read() as tx:
        row = get_scope(tx, request, request.params["address_scope_id"])
        return {"address_scope": standard.selected(request, _views(tx, request, [row])[0])}


def update_scope(request: Request) -> Json:
    body: ScopeChange = request.body.address_scope
    with request.db.transaction() as tx:
        row = get_scope(tx, request, request.params["address_scope_id"])
        about = standard.target(row)
        standard.permit(request, "update_address_scope", row, about)
        standard.enforce_attributes(request, "update_address_scope", body, about)
        if body.shared is False and ALL in sharing.targets(tx, row.id):
            raise BadRequest(
                f"Unable to update address scope {row.id} : Shared address scope can't be unshared.",
                kind="AddressScopeUpdateError",
            )
        values = {} if body.name is UNSET else {"name": body.name}
        if not standard.change(tx, address_scopes, row, values):
            raise Retry(f"address scope {row.id} was changed by somebody else")
        if body.shared is True:
            sharing.share_with_all(tx, "address_scope", address_scopes, row.id, True)
        document = _views(tx, request, [get_scope(tx, request, row.id)])[0]
        notices.updated(tx, request, "address_scope", body, document)
    return {"address_scope": document}


def delete_scope(request: Request) -> None:
    with request.db.transaction() as tx:
        row = get_scope(tx, request, request.params["address_scope_id"])
        standard.permit(request, "delete_address_scope", row)
        if tx.find(sa.select(subnet_pools.c.id).where(subnet_pools.c.address_scope_id == row.id)):
            raise Conflict(
                f"Unable to complete operation on address scope {row.id}. There are one or more subnet pools in "
                "use on the address scope",
                kind="AddressScopeInUse",
            )
        tx.write(sa.delete(address_scopes).where(address_scopes.c.id == row.id))
        sharing.forget(tx, row.id)
        notices.deleted(tx, request, "address_scope", row.id)


def used_by_others(tx: Transaction, thing: Row[Any], action: str, left: set[str]) -> bool:
    """Whether pools of projects are in the scope that may not be when it is shared with ``left`` only."""
    if ALL in left:
        return False
    others = subnet_pools.c.project_id.not_in([thing.project_id, *left])
    inside = sa.select(subnet_pools.c.id).where(subnet_pools.c.address_scope_id == thing.id, others)
    return tx.find(inside) is not None


def _views(tx: Transaction, request: Request, rows: Sequence[Row[Any]]) -> list[Json]:
    shared = sharing.shared_ones(tx, request, [row.id for row in rows])
    return [
        {
            "id": row.id,
            "name": row.name,
            "project_id": row.project_id,
            "tenant_id": row.project_id,
            "ip_version": row.ip_version,
            "shared": row.id in shared,
        }
        for row in rows
    ]


LISTING = Listing(
    address_scopes.c.id,
    {
        "id": address_scopes.c.id,
        "name": address_scopes.c.name,
        "project_id": address_scopes.c.project_id,
        "tenant_id": address_scopes.c.project_id,
        "ip_version": address_scopes.c.ip_version,
    },
    default_sort=(("id", "asc"),),
)
BASE = "/v2.0/address-scopes"
ROUTES = [
    Route("GET", BASE, list_scopes, "get_address_scope"),
    Route("POST", BASE, create_scopes, "create_address_scope", 201, body=ScopesBody),
    Route("GET", BASE + "/{address_scope_id}", show_scope, "get_address_scope"),
    Route("PUT", BASE + "/{address_scope_id}", update_scope, "update_address_scope", body=ScopeBody),
    Route("DELETE", BASE + "/{address_scope_id}", delete_scope, "delete_address_scope", 204),
]
