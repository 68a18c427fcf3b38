"""Lists: filters, sort and pages by marker, the same way for every collection.

A collection declares once which of its API attributes are columns; a list is then one query.  Pages go by key,
not by offset: the marker's row gives the values to continue after, and ``id`` breaks ties.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from sqlalchemy.engine import Row
from sqlalchemy.sql.elements import ColumnElement

from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest
from cumulet.core.http import Request

LARGEST_PAGE = 1000
_NUMBER = re.compile(r"-?[0-9]{1,17}")
PAGING = frozenset({"limit", "marker", "page_reverse", "sort_key", "sort_dir", "sort", "fields"})
Condition = Callable[[list[str]], ColumnElement[bool]]
Key = tuple[ColumnElement[Any], bool]


@dataclass(frozen=True)
class Listing:
    """``columns``: attribute of the API → column, for filters (equal to any of the given values) and sort.

    ``conditions``: filters of another kind, from the values given to a condition.  ``unknown_is_error``: a
    filter nobody knows is a 400, else it is ignored.  ``biggest_page``: the most that one page may hold;
    ``default_page``: what it holds if the query says nothing or 0, None for all.
    ``zero_is_empty``: ``limit=0`` asks for an empty page instead.
    """

    id: ColumnElement[Any]
    columns: Mapping[str, ColumnElement[Any]]
    conditions: Mapping[str, Condition] | None = None
    default_sort: tuple[tuple[str, str], ...] = (("created_at", "asc"),)
    biggest_page: int = LARGEST_PAGE
    default_page: int | None = None
    unknown_is_error: bool = False
    zero_is_empty: bool = False


@dataclass(frozen=True)
class Page:
    rows: Sequence[Row[Any]]
    next_marker: str | None = None
    previous_marker: str | None = None


def list_page(tx: Transaction, statement: sa.Select[Any], request: Request, listing: Listing) -> Page:
    """The page of ``statement`` (already scoped to the caller) that the request's query asks for."""
    statement = filtered(statement, request, listing)
    limit = _limit(request, listing)
    keys = _sort_keys(request, listing)
    backwards = (request.one("page_reverse") or "").lower() in ("true", "1")
    if backwards:
        keys = [(column, not ascending) for column, ascending in keys]
    marker = request.one("marker")
    if marker:
        statement = statement.where(_after(tx, statement, marker, keys, listing))
    rows = tx.all(_ordered(statement, keys, limit) if request.query else _plain(statement, keys, limit))
    more = limit is not None and len(rows) > limit
    rows = rows[:limit] if more else rows
    if backwards:
        rows = rows[::-1]
    name = listing.id.key or "id"
    return Page(
        rows,
        getattr(rows[-1], name) if rows and (more or backwards) else None,
        getattr(rows[0], name) if rows and marker else None,
    )


def _ordered(statement: sa.Select[Any], keys: Iterable[Key], limit: int | None) -> sa.Select[Any]:
    paged = statement.order_by(*(column.asc() if ascending else column.desc() for column, ascending in keys))
    return paged if limit is None else paged.limit(limit + 1)


_plain_ones: WeakKeyDictionary[sa.Select[Any], dict[Any, sa.Select[Any]]] = WeakKeyDictionary()


def _plain(statement: sa.Select[Any], keys: Iterable[Key], limit: int | None) -> sa.Select[Any]:
    """The same for a query that asks for nothing in particular: made once, for as long as ``statement`` is kept."""
    found, key = _plain_ones.setdefault(statement, {}), (*keys, limit)
    if key not in found:
        found[key] = _ordered(statement, keys, limit)
    return found[key]


def filtered(statement: sa.Select[Any], request: Request, listing: Listing) -> sa.Select[Any]:
    """``statement`` with the query's filters."""
    conditions = listing.conditions or {}
    for name in dict.fromkeys(name for name, _ in request.query if name not in PAGING):
        values = request.many(name)
        if name in conditions:
            statement = statement.where(conditions[name](values))
        elif name in listing.columns:
            column = listing.columns[name]
            statement = statement.where(column.in_([_typed(column, name, value) for value in values]))
        elif listing.unknown_is_error:
            raise BadRequest(f"Invalid filter: {name}")
    return statement


def links(request: Request, collection: str, page: Page) -> list[dict[str, str]]:
    """``next`` and ``previous`` links, with the service's public address, not the Host header's."""
    found = []
    for rel, marker in (("next", page.next_marker), ("previous", page.previous_marker)):
        if marker is not None and request.one("limit"):
            query = [(k, v) for k, v in request.query if k not in ("marker", "page_reverse")]
            query.append(("marker", marker))
            if rel == "previous":
                query.append(("page_reverse", "True"))
            found.append({"rel": rel, "href": f"{request.app.endpoint}{request.path}?{urlencode(query)}"})
    return found


def _limit(request: Request, listing: Listing) -> int | None:
    text = request.one("limit")
    if text is None:
        return listing.default_page
    if not (text.isascii() and text.isdigit()) or len(text) > 9:
        raise BadRequest(f"Invalid input for limit: {text!r} is not a number of 0 or more")
    wanted = int(text)
    if not wanted and listing.zero_is_empty:
        return 0
    return min(wanted, listing.biggest_page) if wanted else listing.default_page


def _sort_keys(request: Request, listing: Listing) -> list[Key]:
    pairs = list(zip(request.many("sort_key"), _directions(request), strict=False))
    for item in ",".join(request.many("sort")).split(","):
        name, _, direction = item.partition(":")
        if name:
            pairs.append((name, direction or "desc"))
    keys = []
    for name, direction in pairs or listing.default_sort:
        if name not in listing.columns and name != "id":
            raise BadRequest(f"Invalid sort key: {name}")
        if direction not in ("asc", "desc"):
            raise BadRequest(f"Invalid sort direction: {direction}; it is asc or desc")
        keys.append((listing.columns.get(name, listing.id), direction == "asc"))
    if all(column is not listing.id for column, _ in keys):
        keys.append((listing.id, keys[-1][1] if keys else True))
    return keys


def _directions(request: Request) -> list[str]:
    given = request.many("sort_dir")
    return given + ["asc"] * (len(request.many("sort_key")) - len(given))


def _after(
    tx: Transaction,
    statement: sa.Select[Any],
    marker: str,
    keys: list[Key],
    listing: Listing,
) -> ColumnElement[bool]:
    """Rows behind the marker's: greater in the first key, or equal there and greater in the next, and so on."""
    start = tx.find(statement.with_only_columns(*(column for column, _ in keys)).where(listing.id == marker))
    if start is None:
        raise BadRequest(f"marker [{marker}] not found", kind="MarkerNotFound")
    ways = []
    for number, (column, ascending) in enumerate(keys):
        same = [_same(earlier, start[i]) for i, (earlier, _) in enumerate(keys[:number])]
        ways.append(sa.and_(*same, _behind(column, start[number], ascending)))
    return sa.or_(*ways)


def _same(column: ColumnElement[Any], value: Any) -> ColumnElement[bool]:
    return column.is_(None) if value is None else column == value


def _behind(column: ColumnElement[Any], value: Any, ascending: bool) -> ColumnElement[bool]:
    """NULL sorts first, as in SQLite and MariaDB."""
    if value is None:
        return column.is_not(None) if ascending else sa.false()
    return column > value if ascending else sa.or_(column < value, column.is_(None))


def _typed(column: ColumnElement[Any], name: str, value: str) -> Any:
    if isinstance(column.type, sa.Boolean):
        if value.lower() not in ("true", "false", "1", "0"):
            raise BadRequest(f"Invalid input for {name}: {value!r} is not a boolean")
        return value.lower() in ("true", "1")
    if isinstance(column.type, sa.Integer):
        if not _NUMBER.fullmatch(value):
            raise BadRequest(f"Invalid input for {name}: {value!r} is not a number")
        return int(value)
    return value
