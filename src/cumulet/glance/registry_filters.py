"""The list of images: scope, filters, sort and pages, from the query of the public API.

A filter that is no attribute of an image is a custom property's.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement

from cumulet.core import clock
from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest
from cumulet.core.http import Request
from cumulet.core.listing import PAGING, Condition, Listing, Page, list_page
from cumulet.glance import records
from cumulet.glance.model import MEMBER_STATUSES, VISIBILITIES
from cumulet.glance.tables import image_tags, images

DEFAULT_PAGE = 25
_SORT_KEYS: dict[str, ColumnElement[Any]] = {
    "name": images.c.name,
    "status": records.STATUS,
    "container_format": images.c.container_format,
    "disk_format": images.c.disk_format,
    "size": images.c.size,
    "id": images.c.id,
    "created_at": images.c.created_at,
    "updated_at": images.c.updated_at,
}
_LISTED = ("id", "name", "status", "container_format", "disk_format")  # may be asked for as ``in:a,b``
_NUMBERS = {
    name: images.c[name] for name in ("size", "virtual_size", "min_disk", "min_ram")
}  # also with _min and _max
_PLAIN: dict[str, ColumnElement[Any]] = {
    **_SORT_KEYS,
    **_NUMBERS,
    "owner": images.c.owner,
    "checksum": images.c.checksum,
    "os_hash_value": images.c.sha512,
}
_COMPARISONS: dict[str, Callable[[ColumnElement[str], str], ColumnElement[bool]]] = {
    "gt": lambda column, value: column > value,
    "gte": lambda column, value: column >= value,
    "lt": lambda column, value: column < value,
    "lte": lambda column, value: column <= value,
    "eq": lambda column, value: column == value,
    "neq": lambda column, value: column != value,
}

LISTING = Listing(
    images.c.id, _PLAIN, default_sort=(("created_at", "desc"), ("id", "desc")), default_page=DEFAULT_PAGE
)
SCOPES = 256
"""For how many of them statements are kept: of projects, and of what of an image's scope is asked for."""


def list_rows(tx: Transaction, request: Request) -> Page:
    visibility = request.one("visibility")
    if visibility is not None and visibility not in (*VISIBILITIES, "all"):
        raise BadRequest(f"Invalid visibility value: {visibility}")
    member_status = request.one("member_status") or "accepted"
    if member_status not in (*MEMBER_STATUSES, "all"):
        raise BadRequest(f"Invalid status: {member_status}")
    if request.one("changes-since") is not None:
        raise BadRequest('The "changes-since" filter is no longer available on v2.')
    hidden = _boolean("os_hidden", request.one("os_hidden") or "false")
    statement = _scoped(request.context.project_id, request.context.admin, visibility, member_status, hidden)
    scope = ("visibility", "member_status", "os_hidden")
    asked = [pair for pair in request.query if pair[0] not in scope]
    request.query = _sorted(asked) if asked else []
    names = {name for name, _ in request.query} - PAGING
    listing = replace(LISTING, conditions={name: _condition(name) for name in names}) if names else LISTING
    page = list_page(tx, statement, request, listing)
    return Page([]) if (request.one("limit") or "").strip("0") == "" and request.one("limit") else page


@lru_cache(maxsize=SCOPES)
def _scoped(
    project_id: str, admin: bool, visibility: str | None, member_status: str, hidden: bool
) -> sa.Select[Any]:
    """The images among which the query chooses."""
    listed = records.listed(project_id, admin, visibility, member_status)
    return records.SELECT.where(listed, images.c.os_hidden.is_(hidden))


def _sorted(query: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The query with both of upstream's ways to sort as one; ties are broken by age and id."""
    keys = [value.strip() for name, value in query if name == "sort_key"]
    directions = [value.strip() for name, value in query if name == "sort_dir"]
    new = [value for name, value in query if name == "sort"]
    rest = [pair for pair in query if pair[0] not in ("sort", "sort_key", "sort_dir", "page_reverse")]
    if new:
        if keys or directions:
            raise BadRequest("Old and new sorting syntax cannot be combined")
        split = [item.strip().partition(":") for item in ",".join(new).split(",")]
        pairs = [(key.strip(), direction.strip() or "desc") for key, _, direction in split]
    else:
        keys = keys or ["created_at"]
        if len(directions) > 1 and len(directions) != len(keys):
            raise BadRequest("Number of sort dirs does not match the number of sort keys")
        directions = directions * len(keys) if len(directions) == 1 else directions or ["desc"] * len(keys)
        pairs = list(zip(keys, directions, strict=True))
    for key, direction in pairs:
        if key not in _SORT_KEYS:
            available = ", ".join(_SORT_KEYS)
            raise BadRequest(f"Invalid sort key: {key}. It must be one of the following: {available}.")
        if direction not in ("asc", "desc"):
            raise BadRequest(f"Invalid sort direction: {direction}")
    named = {key for key, _ in pairs}
    pairs += [(key, pairs[-1][1]) for key in ("created_at", "id") if key not in named]
    return [*rest, ("sort", ",".join(f"{key}:{direction}" for key, direction in pairs))]


def _condition(name: str) -> Condition:
    """What the values of one filter ask for; the last value counts, but a tag must be there for each."""
    if name == "tag":
        return _tagged
    if name == "protected":
        return lambda values: images.c.protected.is_(_boolean(name, values[-1]))
    if name in _LISTED:
        return lambda values: _one_of(_PLAIN[name], values[-1])
    if name in ("created_at", "updated_at"):
        return lambda values: _compare_time(images.c[name], name, values[-1])
    number = _NUMBERS.get(name.removesuffix("_min").removesuffix("_max"))
    if number is not None:
        return lambda values: _compare_number(number, name, values[-1])
    if name in _PLAIN:
        return lambda values: _PLAIN[name] == values[-1]
    return lambda values: has_property(name, values[-1])


def _tagged(values: list[str]) -> ColumnElement[bool]:
    return sa.and_(
        *(images.c.id.in_(sa.select(image_tags.c.image_id).where(image_tags.c.tag == tag)) for tag in values)
    )


def _one_of(column: ColumnElement[Any], text: str) -> ColumnElement[bool]:
    operator, separator, value = text.partition(":")
    if separator and operator == "in":
        return column.in_(_split_quoted(value))
    if separator and operator == "eq":
        return column == value
    if separator and operator in _COMPARISONS:
        raise BadRequest(f"Unable to filter by unknown operator '{operator}'.")
    return column == text


def _split_quoted(text: str) -> list[str]:
    """``a,"b,c",d``; a quote inside quotes is ``\\"``."""
    values, current, quoted, escaped = [], "", False, False
    for character in text:
        if escaped:
            current, escaped = current + character, False
        elif character == "\\" and quoted:
            escaped = True
        elif character == '"':
            quoted = not quoted
        elif character == "," and not quoted:
            values.append(current)
            current = ""
        else:
            current += character
    if quoted:
        raise BadRequest(f"Invalid filter value {text}. The quote is not closed.")
    return [*values, current]


def _compare_time(column: ColumnElement[str], name: str, text: str) -> ColumnElement[bool]:
    operator, separator, value = text.partition(":")
    if not separator or operator not in _COMPARISONS:
        operator, value = "eq", text
    try:
        moment = clock.parse(value)
    except ValueError:
        raise BadRequest(f'Bad "{name}" query filter format. Use ISO 8601 DateTime notation.') from None
    second = clock.text(moment.replace(microsecond=0))[:19]
    return _COMPARISONS[operator](sa.func.substr(column, 1, 19), second)


def _compare_number(column: ColumnElement[int], name: str, text: str) -> ColumnElement[bool]:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 18:
        raise BadRequest("Unable to filter on a range with a non-numeric value.")
    number = int(text)
    if number < 0:
        raise BadRequest(f"Invalid value '{text}' for '{name}' filter: it cannot be negative.")
    if name.endswith("_min"):
        return column >= number
    return column <= number if name.endswith("_max") else column == number


def has_property(name: str, value: str) -> ColumnElement[bool]:
    if '"' in name or "\\" in name:
        return sa.false()  # such a name cannot be given to an image, nor written in a JSON path
    found: ColumnElement[bool] = images.c.properties[name].as_string() == value
    return found


def _boolean(name: str, text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise BadRequest(f"Invalid value '{text}' for '{name}' filter. Valid values are 'true' or 'false'.")
    return text.lower() == "true"
