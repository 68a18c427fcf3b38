"""Tags of projects and domains."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Annotated, Any

import sqlalchemy as sa
from msgspec import Meta
from sqlalchemy.sql.elements import ColumnElement

from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, NotFound
from cumulet.core.schema import Open, convert
from cumulet.keystone.tables import project_tags, projects

MOST_TAGS = 80
Tag = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[^,/]*$")]
Tags = Annotated[list[Tag], Meta(max_length=MOST_TAGS)]


class TagsBody(Open):
    tags: Tags


def list_tags(tx: Transaction, project_ids: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    if project_ids:
        mine = project_tags.c.project_id.in_(project_ids)
        for row in tx.all(sa.select(project_tags).where(mine).order_by(project_tags.c.name)):
            found[row.project_id].append(row.name)
    return found


def set_tags(tx: Transaction, project_id: str, names: Sequence[str]) -> None:
    tx.write(sa.delete(project_tags).where(project_tags.c.project_id == project_id))
    rows = [{"project_id": project_id, "name": name} for name in dict.fromkeys(names)]
    if rows:
        tx.write(project_tags.insert(), rows)


def add_tag(tx: Transaction, project_id: str, name: str) -> None:
    name = convert(name, Tag)
    names = list_tags(tx, [project_id])[project_id]
    if name not in names and len(names) >= MOST_TAGS:
        raise BadRequest(f"a project may have {MOST_TAGS} tags")
    if name not in names:
        tx.write(project_tags.insert(), {"project_id": project_id, "name": name})


def check_tag(tx: Transaction, project_id: str, name: str) -> None:
    if name not in list_tags(tx, [project_id])[project_id]:
        raise NotFound(f"Could not find project tag: {name}.")


def delete_tag(tx: Transaction, project_id: str, name: str) -> None:
    mine = sa.and_(project_tags.c.project_id == project_id, project_tags.c.name == name)
    if not tx.write(sa.delete(project_tags).where(mine)):
        raise NotFound(f"Could not find project tag: {name}.")


def _tagged(names: Sequence[str]) -> sa.Select[Any]:
    return sa.select(project_tags.c.project_id).where(project_tags.c.name.in_(names))


def _all_of(values: list[str]) -> ColumnElement[bool]:
    return sa.and_(*(projects.c.id.in_(_tagged([name])) for name in _names(values)))


def _any_of(values: list[str]) -> ColumnElement[bool]:
    return projects.c.id.in_(_tagged(_names(values)))


def _names(values: list[str]) -> list[str]:
    return [name for value in values for name in value.split(",")]


FILTERS = {
    "tags": _all_of,
    "tags-any": _any_of,
    "not-tags": lambda values: sa.not_(_all_of(values)),
    "not-tags-any": lambda values: sa.not_(_any_of(values)),
}
