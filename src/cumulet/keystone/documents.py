"""How keystone's documents look: links, collections, attributes that only the client knows, and the errors' texts.

A client may put any further attribute on most things and finds it there again (``extra``); keystone's own
attributes always win over one that has their name.
"""

import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any
from urllib.parse import urlencode

import msgspec
import sqlalchemy as sa
from msgspec import Meta
from sqlalchemy.engine import Row
from sqlalchemy.sql.elements import ColumnElement

from cumulet.core import clock, listing, schema
from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, Conflict, Forbidden, NotFound
from cumulet.core.http import Json, Request
from cumulet.core.schema import UNSET, Strict, UnsetType
from cumulet.keystone.model import DEFAULT_DOMAIN

Name = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"\S")]
PlaceName = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"\S")]
"""Of a project or a domain."""
IdText = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9-]+$")]
Description = Annotated[str, Meta(max_length=65535)] | None
NEVER_EXTRA = frozenset({"id", "links", "password", "original_password", "tags"})
FLAGS = frozenset({"enabled", "is_domain"})


class Options(Strict):
    """Options of projects, domains and roles.  None takes one away."""

    immutable: bool | UnsetType | None = UNSET


def new_id() -> str:
    return uuid.uuid4().hex


def link(request: Request, path: str) -> str:
    return f"{request.app.endpoint}/v3/{path}"


def collection(request: Request, name: str, items: Iterable[Json], page: listing.Page | None = None) -> Json:
    """``{name: [...], "links": {"self", "next", "previous"}}``."""
    address = f"{request.app.endpoint}{request.path}"
    query = f"?{urlencode(request.query)}" if request.query else ""
    links: dict[str, str | None] = {"next": None, "self": address + query, "previous": None}
    if page:
        links.update((each["rel"], each["href"]) for each in listing.links(request, name, page))
    return {name: list(items), "links": links}


def extras(request: Request, key: str, kind: type[msgspec.Struct]) -> Json:
    """What the body's ``key`` says beyond the fields of ``kind``.

    An id other than the URL's is a 400, and so is a flag that is a word: ``"False"`` must not come to mean true.
    """
    body: Json = schema.decode(request.raw, dict[str, Any])[key]
    own_id = request.params.get(f"{key}_id")
    if own_id is not None and body.get("id", own_id) != own_id:
        raise BadRequest(f"Cannot change {key} ID")
    for name in FLAGS.intersection(kind.__struct_fields__):
        if not isinstance(body.get(name, True), bool):
            raise BadRequest(f"Invalid input for field '{name}': {body[name]!r} is not of type 'boolean'")
    known = NEVER_EXTRA.union(kind.__struct_fields__)
    return {name: value for name, value in body.items() if name not in known}


def expiry(text: str | None) -> str | None:
    """A moment in the future, in the database's form; None if there is none."""
    if not text:
        return None
    try:
        expires_at = clock.text(clock.parse(text))
    except (ValueError, OverflowError):
        raise BadRequest(f"Invalid input for expires_at: {text!r} is not an ISO 8601 time") from None
    if expires_at <= clock.now():
        raise BadRequest(
            "The 'expires_at' must not be before now. The server could not comply with the request since it is "
            "either malformed or otherwise incorrect. The client is assumed to be in error."
        )
    return expires_at


def changed_options(before: Json, options: Strict | UnsetType) -> Json:
    given = {} if isinstance(options, UnsetType) else schema.given(options)
    return {name: value for name, value in {**before, **given}.items() if value is not None}


def check_mutable(what: str, row: Row[Any], verb: str, after: Json | None = None) -> None:
    """Raise Forbidden if ``row`` is immutable, unless this change ends that."""
    if row.options.get("immutable") and (after is None or after.get("immutable")):
        raise Forbidden(
            f'Unable to {verb} immutable {what} resource: `{row.id}. Set resource option "immutable" to false '
            "first."
        )


def find_row(tx: Transaction, table: sa.Table, key: str, *, lock: bool = False) -> Row[Any] | None:
    """The row with this id; ``lock`` where the handler writes what it has read (SQLite locks by itself)."""
    statement = sa.select(table).where(table.c.id == key)
    return tx.find(statement.with_for_update() if lock else statement)


def missing(what: str, key: str) -> NotFound:
    return NotFound(f"Could not find {what}: {key}.")


@contextmanager
def unique(what: str, name: str, domain_id: str = "") -> Iterator[None]:
    """Give a broken unique index upstream's words."""
    try:
        yield
    except Conflict as error:
        where = f" at domain ID {domain_id}" if domain_id else ""
        raise Conflict(
            f"Conflict occurred attempting to store {what} - Duplicate entry found with name {name}{where}."
        ) from error


def home_domain(request: Request) -> str:
    """The domain of what the caller makes without naming one: that of their token."""
    return request.context.domain_id or request.context.project_domain_id or DEFAULT_DOMAIN


def notify(tx: Transaction, request: Request, event: str, key: str) -> None:
    """``identity.user.created``, as upstream's basic notifications have it."""
    payload = {"resource_info": key, "eventTime": clock.now()}
    tx.notify(request.context, f"identity.{event}", f"identity.{request.config.node.name}", payload)


def name_filters(column: ColumnElement[Any]) -> dict[str, Callable[[list[str]], ColumnElement[bool]]]:
    """``name__contains`` and the like."""
    return {
        "name__contains": lambda values: column.contains(values[-1], autoescape=True),
        "name__icontains": lambda values: column.icontains(values[-1], autoescape=True),
        "name__startswith": lambda values: column.startswith(values[-1], autoescape=True),
        "name__istartswith": lambda values: column.istartswith(values[-1], autoescape=True),
        "name__endswith": lambda values: column.endswith(values[-1], autoescape=True),
        "name__iendswith": lambda values: column.iendswith(values[-1], autoescape=True),
    }


def is_true(values: list[str]) -> bool:
    """A flag in a query, as upstream reads it: ``?enabled`` and ``?enabled=True`` set, ``0`` and ``false`` not."""
    return values[-1].lower() not in ("0", "false", "no", "off")
