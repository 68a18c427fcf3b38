"""Domains: the rows of ``projects`` with ``is_domain``, under a URL of their own."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from cumulet.core import clock
from cumulet.core.db import Transaction
from cumulet.core.errors import Forbidden
from cumulet.core.http import Json, Request, Route
from cumulet.core.listing import Listing, list_page
from cumulet.core.schema import UNSET, Open, UnsetType
from cumulet.keystone import documents, tags
from cumulet.keystone.documents import Description, IdText, Options, PlaceName
from cumulet.keystone.model import DEFAULT_DOMAIN
from cumulet.keystone.projects import change_row, delete_domain_row, find_row
from cumulet.keystone.tables import projects
from cumulet.keystone.tags import Tags


class NewDomain(Open):
    name: PlaceName
    explicit_domain_id: IdText | UnsetType = UNSET
    enabled: bool = True
    description: Description = ""
    tags: Tags = []
    options: Options | UnsetType = UNSET


class NewDomainBody(Open):
    domain: NewDomain


class ChangedDomain(Open):
    name: PlaceName | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    description: Description | UnsetType = UNSET
    tags: Tags | UnsetType = UNSET
    options: Options | UnsetType = UNSET


class ChangedDomainBody(Open):
    domain: ChangedDomain


LISTING = Listing(
    projects.c.id,
    {"name": projects.c.name},
    {
        "enabled": lambda values: projects.c.enabled == documents.is_true(values),
        **documents.name_filters(projects.c.name),
        **tags.FILTERS,
    },
    default_sort=(("name", "asc"),),
)


def list_domains(request: Request) -> Json:
    statement = sa.select(projects).where(projects.c.is_domain)
    if request.context.domain_id:
        statement = statement.where(projects.c.id == request.context.domain_id)
    with request.db.read() as tx:
        page = list_page(tx, statement, request, LISTING)
        return documents.collection(request, "domains", views(tx, request, page.rows), page)


def show_domain(request: Request) -> Json:
    with request.db.read() as tx:
        return {"domain": views(tx, request, [get_domain(tx, request, "identity:get_domain")])[0]}


def create_domain(request: Request) -> Json:
    wanted: NewDomain = request.body.domain
    explicit = wanted.explicit_domain_id
    row: Json = {
        "id": documents.new_id() if isinstance(explicit, UnsetType) else explicit,
        "domain_id": "",
        "is_domain": True,
        "name": wanted.name.strip(),
        "description": wanted.description or "",
        "enabled": wanted.enabled,
        "options": documents.changed_options({}, wanted.options),
        "extra": documents.extras(request, "domain", NewDomain),
        "created_at": clock.now(),
    }
    with request.db.transaction() as tx:
        with documents.unique("domain", row["name"]):
            tx.write(projects.insert(), row)
        tags.set_tags(tx, row["id"], wanted.tags)
        documents.notify(tx, request, "domain.created", row["id"])
        return {"domain": views(tx, request, [find_row(tx, row["id"])])[0]}


def update_domain(request: Request) -> Json:
    with request.db.transaction() as tx:
        row = get_domain(tx, request, "identity:update_domain", lock=True)
        change_row(tx, request, "domain", row, request.body.domain)
        return {"domain": views(tx, request, [find_row(tx, row.id)])[0]}


def delete_domain(request: Request) -> None:
    """With all that is in it, and all roles anybody had on any of it."""
    with request.db.transaction() as tx:
        row = get_domain(tx, request, "identity:delete_domain")
        documents.check_mutable("domain", row, "delete")
        if row.id == DEFAULT_DOMAIN:
            raise Forbidden("The default domain cannot be deleted.")
        if row.enabled:
            raise Forbidden("Cannot delete a domain that is enabled, please disable it first.")
        delete_domain_row(tx, row)
        documents.notify(tx, request, "domain.deleted", row.id)


def get_domain(tx: Transaction, request: Request, rule: str, *, lock: bool = False) -> Row[Any]:
    """The domain in the URL; who may not see it is told the same as of one that does not exist."""
    domain_id = request.params["domain_id"]
    row = documents.find_row(tx, projects, domain_id, lock=lock)
    row = row if row and row.is_domain else None
    request.enforce(rule, {"target.domain.id": row.id, "domain_id": row.id} if row else {})
    if row is None:
        raise documents.missing("domain", domain_id)
    return row


def views(tx: Transaction, request: Request, rows: Sequence[Row[Any]]) -> list[Json]:
    tagged = tags.list_tags(tx, [row.id for row in rows])
    return [
        {
            **row.extra,
            "id": row.id,
            "name": row.name,
            "enabled": row.enabled,
            "description": row.description,
            "options": row.options,
            "tags": tagged.get(row.id, []),
            "links": {"self": documents.link(request, f"domains/{row.id}")},
        }
        for row in rows
    ]


ROUTES = [
    Route("GET", "/v3/domains", list_domains, "identity:list_domains"),
    Route("POST", "/v3/domains", create_domain, "identity:create_domain", 201, body=NewDomainBody),
    Route("GET", "/v3/domains/{domain_id}", show_domain, "identity:get_domain"),
    Route("PATCH", "/v3/domains/{domain_id}", update_domain, "identity:update_domain", body=ChangedDomainBody),
    Route("DELETE", "/v3/domains/{domain_id}", delete_domain, "identity:delete_domain", 204),
]
