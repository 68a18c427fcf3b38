"""What every resource of the API has in common: standard attributes, owners, policies of attributes, filters.

``project_id`` and ``tenant_id`` are one thing under two names.  Per-attribute rules (``create_port:mac_address``)
are enforced for each attribute that a body sets; on creation one that only repeats the default is let pass.
"""

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import msgspec
import sqlalchemy as sa
from msgspec import UNSET, UnsetType
from sqlalchemy.engine import Row

from cumulet.core import clock, listing
from cumulet.core.among import among
from cumulet.core.context import REQUEST_ID, Context
from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, PreconditionFailed
from cumulet.core.http import Request
from cumulet.core.listing import Condition, Page
from cumulet.core.schema import Strict
from cumulet.neutron import checks
from cumulet.neutron.checks import IdText, NameText, Tag

Json = dict[str, Any]
View = Callable[[Any], Json]
Body = TypeVar("Body", bound=msgspec.Struct)


class Named(Strict):
    """Attributes that each resource may be given."""

    name: NameText | UnsetType = UNSET
    description: NameText | UnsetType = UNSET


class Owned(Named):
    """What may be said of a new resource."""

    project_id: IdText | UnsetType = UNSET
    tenant_id: IdText | UnsetType = UNSET
    tags: list[Tag] | UnsetType = UNSET


def attributes(body: msgspec.Struct) -> Json:
    """What the caller sent, by the API's names."""
    names = zip(body.__struct_fields__, body.__struct_encode_fields__, strict=True)
    return {encoded: value for name, encoded in names if (value := getattr(body, name)) is not UNSET}


def wanted(body: Any, one: str, many: str) -> tuple[list[Any], bool]:
    """The things that a POST asks for and whether it came as a list."""
    single: Any = getattr(body, one)
    several: Any = getattr(body, many)
    if (single is UNSET) == (several is UNSET):
        raise BadRequest(f"Resource body required: {one} or {many}", kind="HTTPBadRequest")
    if single is not UNSET:
        return [single], False
    if not several:
        raise BadRequest("Resources required", kind="HTTPBadRequest")
    return list(several), True


def created(documents: list[Json], one: str, many: str, bulk: bool) -> Json:
    return {many: documents} if bulk else {one: documents[0]}


def project_of(request: Request, body: Any) -> str:
    """Whose the new thing is; only an administrator or a service makes things for others."""
    given = {value for value in (body.project_id, body.tenant_id) if isinstance(value, str)}
    if len(given) > 1:
        raise BadRequest("'project_id' and 'tenant_id' do not match", kind="HTTPBadRequest")
    mine = request.context.project_id
    project_id: str = given.pop() if given else mine
    if project_id != mine and not request.allows("service_api", {}) and not request.context.admin:
        raise BadRequest(
            "Specifying 'project_id' or 'tenant_id' other than the authenticated project in request requires "
            "admin privileges",
            kind="HTTPBadRequest",
        )
    if not project_id:
        raise BadRequest(
            "Running without keystone AuthN requires that tenant_id is specified", kind="HTTPBadRequest"
        )
    return project_id


def new_row(project_id: str, body: Any = None) -> Json:
    """The standard columns of a row that is being made."""
    now = clock.now()
    return {
        "id": str(uuid.uuid4()),
        "project_id": project_id,
        "name": (body.name or "") if body else "",
        "description": (body.description or "") if body else "",
        "created_at": now,
        "updated_at": now,
        "revision_number": 1,
        "tags": checks.tags(body.tags or []) if body else [],
    }


def change(tx: Transaction, table: sa.Table, row: Any, values: Mapping[str, Any]) -> int:
    """Write ``values`` if the row is still as it was read; how many rows that changed (0: lost a race)."""
    statement = (
        sa.update(table)
        .where(table.c.id == row.id, table.c.revision_number == row.revision_number)
        .values(**values, updated_at=clock.now(), revision_number=row.revision_number + 1)
    )
    return tx.write(statement)


def touch(tx: Transaction, table: sa.Table, ids: Iterable[str]) -> None:
    """Something that belongs to these rows changed: their next revision."""
    tx.write(
        sa.update(table)
        .where(table.c.id.in_(list(ids)))
        .values(updated_at=clock.now(), revision_number=table.c.revision_number + 1)
    )


def standard_view(row: Any) -> Json:
    return {
        "id": row.id,
        "name": row.name,
        "description": row.description,
        "project_id": row.project_id,
        "tenant_id": row.project_id,
        "created_at": clock.short(row.created_at),
        "updated_at": clock.short(row.updated_at),
        "revision_number": row.revision_number,
        "tags": row.tags,
    }


def own_target(context: Context) -> Json:
    """A thing of the caller, in a network and a security group of theirs."""
    mine = context.project_id
    return {
        "project_id": mine,
        "tenant_id": mine,
        "network:project_id": mine,
        "network:tenant_id": mine,
        "security_group:project_id": mine,
    }


def target(row: Any, network: Any = None, **more: Any) -> Json:
    """What a policy may ask of a row."""
    found = {"project_id": row.project_id, "tenant_id": row.project_id, **more}
    if network is not None:
        found |= {
            "network:tenant_id": network.project_id,
            "network:project_id": network.project_id,
            "shared": network.shared,
            "router:external": network.external,
        }
    return found


def permit(request: Request, rule: str, row: Any, about: Json | None = None) -> None:
    """May the caller do this to the row, as it is now?  403, or 412 where ``If-Match`` names another revision."""
    request.enforce(rule, target(row) if about is None else about)
    condition = request.headers.get("if-match", "")
    if not condition:
        return
    name, _, number = condition.strip().strip('"').partition("=")
    if name != "revision_number" or not number.isascii() or not number.isdigit():
        raise BadRequest("Invalid If-Match header: it is revision_number=NUMBER", kind="HTTPBadRequest")
    if int(number) != row.revision_number:
        raise PreconditionFailed(
            f"Constrained to {number}, but current revision is {row.revision_number}",
            kind="RevisionNumberConstraintFailed",
        )


def enforce_attributes(
    request: Request, action: str, body: msgspec.Struct, about: Json, defaults: Mapping[str, Any] | None = None
) -> None:
    """The rules of the attributes that ``body`` sets; on creation the defaults may be repeated by anybody."""
    for name, value in attributes(body).items():
        rule = f"{action}:{name}"
        if rule in request.app.policies.texts and not (defaults is not None and defaults.get(name, UNSET) == value):
            request.enforce(rule, about)


def visible(request: Request, table: sa.Table) -> sa.ColumnElement[bool]:
    """Rows of the caller's project; all for an administrator and for services."""
    if sees_all(request):
        return sa.true()
    return table.c.project_id == mine(request)


def mine(request: Request) -> str:
    """The caller's project; never empty, since the cloud's own things have no project."""
    return request.context.project_id or "-"


def sees_all(request: Request) -> bool:
    return request.allows("context_is_admin", {}) or request.allows("service_api", {})


# ── lists ────────────────────────────────────────────────────────────────────────────────────────────────────


def columns(table: sa.Table, **more: sa.ColumnElement[Any]) -> dict[str, sa.ColumnElement[Any]]:
    """Filters and sort keys that every collection has, and ``more``."""
    names = ("id", "name", "description", "project_id", "created_at", "updated_at", "revision_number")
    return {name: table.c[name] for name in names} | {"tenant_id": table.c.project_id} | more


def conditions(table: sa.Table, **more: Condition) -> dict[str, Condition]:
    def has(tag: str) -> sa.ColumnElement[bool]:
        quoted = msgspec.json.encode(tag).decode()
        return sa.func.instr(sa.cast(table.c.tags, sa.Text), quoted) > 0

    def tags(values: list[str]) -> list[sa.ColumnElement[bool]]:
        return [has(tag) for value in values for tag in value.split(",")]

    def changed_since(values: list[str]) -> sa.ColumnElement[bool]:
        try:
            return table.c.updated_at >= clock.text(clock.parse(values[-1]))
        except ValueError:
            raise BadRequest(f"The value {values[-1]!r} is not a valid time for changed_since") from None

    return {
        "tags": lambda values: sa.and_(*tags(values)),
        "tags-any": lambda values: sa.or_(*tags(values)),
        "not-tags": lambda values: sa.not_(sa.and_(*tags(values))),
        "not-tags-any": lambda values: sa.not_(sa.or_(*tags(values))),
        "changed_since": changed_since,
        **more,
    }


def document(request: Request, collection: str, page: Page, views: Sequence[Any]) -> Json:
    """A list as it is answered: the fields that were asked for, and links to the pages beside it.

    ``views`` may be JSON already if no fields were asked for.
    """
    some = any(request.many("fields"))
    found: Json = {collection: [selected(request, view) for view in views] if some else views}
    if links := listing.links(request, collection, page):
        found[f"{collection}_links"] = links
    return found


def selected(request: Request, view: Json) -> Json:
    """``view`` with the fields that the query names, or all."""
    fields = request.many("fields")
    return {name: value for name, value in view.items() if name in fields} if any(fields) else view


def related(
    tx: Transaction, statement: sa.Select[Any], column: sa.ColumnElement[Any], values: Iterable[str]
) -> dict[str, list[Row[Any]]]:
    """The rows that belong to ``values``, by their ``column``, in one query.

    A ``statement`` that is always the same one is prepared once.
    """
    ids = list(dict.fromkeys(values))
    return grouped(tx.all(_of(statement, column), {"ids": ids}), str(column.key)) if ids else {}


def parts(
    tx: Transaction, statement: sa.Select[Any], column: sa.ColumnElement[Any], values: Iterable[str]
) -> dict[str, list[tuple[Any, ...]]]:
    """The same as plain tuples without the ``column``, which is the statement's first."""
    ids, found = list(dict.fromkeys(values)), dict[str, list[tuple[Any, ...]]]()
    for row in tx.all(_of(statement, column), {"ids": ids}) if ids else ():
        found.setdefault(row[0], []).append(row[1:])
    return found


@lru_cache(maxsize=128)
def _of(statement: sa.Select[Any], column: sa.ColumnElement[Any]) -> sa.Select[Any]:
    return statement.where(among(column, "ids"))


def grouped(rows: Iterable[Row[Any]], key: str) -> dict[str, list[Row[Any]]]:
    found: dict[str, list[Row[Any]]] = {}
    for row in rows:
        found.setdefault(getattr(row, key), []).append(row)
    return found


def system_context() -> Context:
    """For changes that nobody asked for in a request of their own."""
    return Context(request_id=REQUEST_ID.get())
