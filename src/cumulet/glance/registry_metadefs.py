"""glance-registry's part in the catalogue of metadata definitions: namespaces, and what each of them defines.

A namespace has objects, properties, tags and associations with types of resources: four kinds of items, each with
a name that is unique among its kind and a document that only its readers understand.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from cumulet.core import clock
from cumulet.core.context import Context
from cumulet.core.db import Transaction
from cumulet.core.errors import Conflict, Forbidden, NotFound
from cumulet.core.http import Request, Route
from cumulet.core.listing import Listing, list_page
from cumulet.core.policy import AUTHENTICATED
from cumulet.core.schema import given
from cumulet.glance.metadef_model import Item, ItemChange, Namespace, NamespaceChange, NamespacePage, NewNamespace
from cumulet.glance.registry_notes import notify_metadef
from cumulet.glance.tables import metadef_items, metadef_namespaces

ASSOCIATION = "resource_type"
LISTING = Listing(
    metadef_namespaces.c.namespace,
    {
        name: metadef_namespaces.c[name]
        for name in ("namespace", "visibility", "owner", "display_name", "created_at", "updated_at")
    },
    {"resource_types": lambda values: metadef_namespaces.c.id.in_(_associated(",".join(values).split(",")))},
    default_sort=(("created_at", "desc"),),
)


def list_namespaces(request: Request) -> NamespacePage:
    """With the types of resources that each is for, and nothing else of what they define."""
    with request.db.read() as tx:
        page = list_page(tx, _visible(request.context), request, LISTING)
        items = _items(tx, [row.id for row in page.rows], ASSOCIATION)
        return NamespacePage([_namespace(row, items.get(row.id, [])) for row in page.rows], page.next_marker)


def list_types(request: Request) -> list[str]:
    """The types of resources that any namespace is for."""
    statement = sa.select(metadef_items.c.name).where(metadef_items.c.kind == ASSOCIATION).distinct()
    with request.db.read() as tx:
        return sorted(row.name for row in tx.all(statement))


def show_namespace(request: Request) -> Namespace:
    with request.db.read() as tx:
        row = _get(tx, request)
        return _namespace(row, _items(tx, [row.id]).get(row.id, []))


def create_namespace(request: Request) -> Namespace:
    wanted: NewNamespace = request.body
    now = clock.now()
    row = {name: getattr(wanted, name) for name in NewNamespace.__struct_fields__ if name != "items"}
    with request.db.transaction() as tx:
        try:
            tx.write(metadef_namespaces.insert(), {**row, "created_at": now, "updated_at": now})
            for item in wanted.items:
                _insert(tx, wanted.id, item, now)
        except Conflict as error:
            what = f"The metadata definition namespace={wanted.namespace}"
            text = f"{what} already exists, or has two items of one name."
            raise Conflict(text) from error
        notify_metadef(tx, request, "metadef_namespace.create", row)
        return _shown(tx, wanted.id)


def change_namespace(request: Request) -> Namespace:
    values = given(request.body) | {"updated_at": clock.now()}
    with request.db.transaction() as tx:
        row = _get(tx, request)
        try:
            tx.write(sa.update(metadef_namespaces).where(metadef_namespaces.c.id == row.id).values(values))
        except Conflict as error:
            raise Conflict(f"The metadata definition namespace={values['namespace']} already exists.") from error
        shown = _shown(tx, row.id)
        told = {name: getattr(shown, name) for name in Namespace.__struct_fields__ if name != "items"}
        notify_metadef(tx, request, "metadef_namespace.update", {**told, "namespace_old": row.namespace})
        return shown


def delete_namespace(request: Request) -> None:
    """With everything that it defines."""
    with request.db.transaction() as tx:
        row = _get(tx, request)
        if row.protected:
            raise Forbidden(f"Metadata definition namespace {row.namespace} is protected and cannot be deleted.")
        tx.write(sa.delete(metadef_namespaces).where(metadef_namespaces.c.id == row.id))
        notify_metadef(tx, request, "metadef_namespace.delete", {"namespace": row.namespace, "owner": row.owner})


def put_items(request: Request) -> list[Item]:
    """New items: instead of all that were there of this kind, or beside them; or one under another name."""
    change: ItemChange = request.body
    now = clock.now()
    with request.db.transaction() as tx:
        row = _get(tx, request)
        mine = sa.and_(metadef_items.c.namespace_id == row.id, metadef_items.c.kind == change.kind)
        if change.instead_of is not None:
            old = sa.and_(mine, metadef_items.c.name == change.instead_of) if change.instead_of else mine
            gone = tx.write(sa.delete(metadef_items).where(old))
            if change.instead_of and not gone:
                raise _missing(change.kind, change.instead_of, row.namespace)
            if gone and not change.instead_of:
                notify_metadef(tx, request, f"metadef_{change.kind}.delete", {"namespace": row.namespace})
        for item in change.items:
            try:
                _insert(tx, row.id, item, change.created_at or now)
            except Conflict as error:
                raise Conflict(
                    f"A metadata definition {change.kind} with name={item.name} already exists in "
                    f"namespace={row.namespace}."
                ) from error
            verb = "update" if change.instead_of else "create"
            told = {"namespace": row.namespace, "name": item.name, "name_old": change.instead_of or item.name}
            notify_metadef(tx, request, f"metadef_{change.kind}.{verb}", {**told, **item.document})
        return _items(tx, [row.id], change.kind).get(row.id, [])


def delete_items(request: Request) -> None:
    """The one with the ``name`` in the query, or all of this kind."""
    kind, name = request.one("kind") or "", request.one("name")
    with request.db.transaction() as tx:
        row = _get(tx, request)
        if row.protected and kind == ASSOCIATION:
            raise Forbidden(
                f"Metadata definition resource-type-association {name} is protected and cannot be deleted."
            )
        where = [metadef_items.c.namespace_id == row.id, metadef_items.c.kind == kind]
        where += [metadef_items.c.name == name] if name is not None else []
        if not tx.write(sa.delete(metadef_items).where(*where)) and name is not None:
            raise _missing(kind, name, row.namespace)
        notify_metadef(tx, request, f"metadef_{kind}.delete", {"namespace": row.namespace, "name": name})


def _visible(context: Context) -> sa.Select[Any]:
    statement = sa.select(metadef_namespaces)
    if context.admin:
        return statement
    mine = metadef_namespaces.c.owner == context.project_id
    return statement.where(sa.or_(metadef_namespaces.c.visibility == "public", mine))


def _get(tx: Transaction, request: Request) -> Row[Any]:
    name = request.one("namespace") or ""
    row = tx.find(_visible(request.context).where(metadef_namespaces.c.namespace == name))
    if row is None:
        raise NotFound(f"Metadata definition namespace={name} was not found.")
    return row


def _shown(tx: Transaction, key: str) -> Namespace:
    row = tx.all(sa.select(metadef_namespaces).where(metadef_namespaces.c.id == key))[0]
    return _namespace(row, _items(tx, [key]).get(key, []))


def _items(tx: Transaction, ids: list[str], kind: str = "") -> dict[str, list[Item]]:
    found: dict[str, list[Item]] = {}
    statement = sa.select(metadef_items).where(metadef_items.c.namespace_id.in_(ids))
    if kind:
        statement = statement.where(metadef_items.c.kind == kind)
    for row in tx.all(statement.order_by(metadef_items.c.created_at, metadef_items.c.name)) if ids else ():
        item = Item(row.kind, row.name, row.document, row.created_at, row.updated_at)
        found.setdefault(row.namespace_id, []).append(item)
    return found


def _insert(tx: Transaction, namespace_id: str, item: Item, created_at: str) -> None:
    row = {"namespace_id": namespace_id, "kind": item.kind, "name": item.name, "document": item.document}
    tx.write(metadef_items.insert(), {**row, "created_at": created_at, "updated_at": clock.now()})


def _namespace(row: Row[Any], items: list[Item]) -> Namespace:
    names = (name for name in Namespace.__struct_fields__ if name != "items")
    return Namespace(**{name: getattr(row, name) for name in names}, items=items)


def _associated(types: list[str]) -> sa.Select[Any]:
    return sa.select(metadef_items.c.namespace_id).where(
        metadef_items.c.kind == ASSOCIATION, metadef_items.c.name.in_(types)
    )


def _missing(kind: str, name: str, namespace: str) -> NotFound:
    return NotFound(f"The metadata definition {kind} with name={name} was not found in namespace={namespace}.")


ROUTES = [
    Route("GET", "/metadefs", list_namespaces, AUTHENTICATED),
    Route("GET", "/metadefs/types", list_types, AUTHENTICATED),
    Route("GET", "/metadefs/namespace", show_namespace, AUTHENTICATED),
    Route("POST", "/metadefs/namespace", create_namespace, AUTHENTICATED, 201, body=NewNamespace),
    Route("PUT", "/metadefs/namespace", change_namespace, AUTHENTICATED, body=NamespaceChange),
    Route("DELETE", "/metadefs/namespace", delete_namespace, AUTHENTICATED, 204),
    Route("PUT", "/metadefs/items", put_items, AUTHENTICATED, body=ItemChange),
    Route("DELETE", "/metadefs/items", delete_items, AUTHENTICATED, 204),
]
