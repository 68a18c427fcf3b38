"""Projects.  A domain can be made, shown and changed here too, as a project with ``is_domain``."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from cumulet.core import clock, schema
from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, Forbidden
from cumulet.core.http import Json, Request, Route
from cumulet.core.listing import Listing, list_page
from cumulet.core.schema import UNSET, Open, UnsetType
from cumulet.keystone import documents, tags
from cumulet.keystone.documents import Description, IdText, Options, PlaceName
from cumulet.keystone.model import DEFAULT_DOMAIN
from cumulet.keystone.tables import assignments, groups, projects, roles, users
from cumulet.keystone.tags import Tags

DEEPEST = 5
"""How many projects may stand above one another, the domain counted."""


class NewProject(Open):
    name: PlaceName
    domain_id: IdText | UnsetType | None = UNSET
    parent_id: IdText | None = None
    is_domain: bool = False
    enabled: bool = True
    description: Description = ""
    tags: Tags = []
    options: Options | UnsetType = UNSET


class NewProjectBody(Open):
    project: NewProject


class ChangedProject(Open):
    name: PlaceName | UnsetType = UNSET
    domain_id: str | UnsetType | None = UNSET
    parent_id: str | UnsetType | None = UNSET
    is_domain: bool | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    description: Description | UnsetType = UNSET
    tags: Tags | UnsetType = UNSET
    options: Options | UnsetType = UNSET


class ChangedProjectBody(Open):
    project: ChangedProject


LISTING = Listing(
    projects.c.id,
    {"name": projects.c.name, "domain_id": projects.c.domain_id, "parent_id": projects.c.parent_id},
    {
        "enabled": lambda values: projects.c.enabled == documents.is_true(values),
        **documents.name_filters(projects.c.name),
        **tags.FILTERS,
    },
    default_sort=(("name", "asc"),),
)


def list_projects(request: Request) -> Json:
    """Domains are listed with ``is_domain=true`` only; a token for a domain shows the projects in it."""
    is_domain = documents.is_true(request.many("is_domain") or ["false"])
    statement = sa.select(projects).where(projects.c.is_domain == is_domain)
    if request.context.domain_id:
        statement = statement.where(projects.c.domain_id == request.context.domain_id)
    with request.db.read() as tx:
        page = list_page(tx, statement, request, LISTING)
        return documents.collection(request, "projects", views(tx, request, page.rows), page)


def show_project(request: Request) -> Json:
    with request.db.read() as tx:
        row = get_project(tx, request, "identity:get_project")
        (document,) = views(tx, request, [row])
        asked = {name for name, _ in request.query}
        if asked & {"parents_as_list", "parents_as_ids", "subtree_as_list", "subtree_as_ids"}:
            document.update(_relatives(tx, request, row, asked))
        return {"project": document}


def create_project(request: Request) -> Json:
    wanted: NewProject = request.body.project
    with request.db.transaction() as tx:
        domain_id, parent_id = _place(tx, request, wanted)
        request.enforce("identity:create_project", {"target.project.domain_id": domain_id or None})
        row: Json = {
            "id": documents.new_id(),
            "domain_id": domain_id,
            "parent_id": parent_id,
            "is_domain": wanted.is_domain,
            "name": wanted.name.strip(),
            "description": wanted.description or "",
            "enabled": wanted.enabled,
            "options": documents.changed_options({}, wanted.options),
            "extra": documents.extras(request, "project", NewProject),
            "created_at": clock.now(),
        }
        with documents.unique("project", row["name"], domain_id):
            tx.write(projects.insert(), row)
        tags.set_tags(tx, row["id"], wanted.tags)
        documents.notify(tx, request, "project.created", row["id"])
        return {"project": views(tx, request, [find_row(tx, row["id"])])[0]}


def update_project(request: Request) -> Json:
    with request.db.transaction() as tx:
        row = get_project(tx, request, "identity:update_project", lock=True)
        wanted: ChangedProject = request.body.project
        for name, label in (("domain_id", "Domain ID"), ("parent_id", "parent_id"), ("is_domain", "is_domain")):
            value = getattr(wanted, name)
            if value is not UNSET and (value or None) != (getattr(row, name) or None):
                raise BadRequest(f"Update of `{label}` is not allowed.")
        change_row(tx, request, "project", row, wanted)
        return {"project": views(tx, request, [find_row(tx, row.id)])[0]}


def change_row(tx: Transaction, request: Request, what: str, row: Row[Any], wanted: Any) -> None:
    """Change a project or a domain; also used by ``domains``."""
    given = schema.given(wanted)
    options = documents.changed_options(row.options, wanted.options)
    documents.check_mutable(what, row, "update", options)
    if not row.is_domain and given.get("enabled", row.enabled) != row.enabled:
        _check_switch(tx, row, given["enabled"])
    values: Json = {name: given[name] for name in ("name", "enabled") if name in given}
    if "description" in given:
        values["description"] = given["description"] or ""
    values["options"] = options
    values["extra"] = {**row.extra, **documents.extras(request, what, type(wanted))}
    with documents.unique(what, given.get("name", row.name), row.domain_id):
        tx.write(sa.update(projects).where(projects.c.id == row.id).values(values))
    if not isinstance(wanted.tags, UnsetType):
        tags.set_tags(tx, row.id, wanted.tags)
    documents.notify(tx, request, f"{what}.updated", row.id)
    if given.get("enabled") is False:
        documents.notify(tx, request, f"{what}.disabled", row.id)


def delete_project(request: Request) -> None:
    with request.db.transaction() as tx:
        row = get_project(tx, request, "identity:delete_project")
        documents.check_mutable("project", row, "delete")
        if row.is_domain and (row.enabled or row.id == DEFAULT_DOMAIN):
            raise BadRequest(
                f"cannot delete an enabled project acting as a domain. Please disable the project {row.id} first."
            )
        if tx.find(sa.select(projects.c.id).where(projects.c.parent_id == row.id)):
            raise Forbidden(
                f"Cannot delete the project {row.id} since it is not a leaf in the hierarchy. Use the cascade "
                "option if you want to delete a whole subtree."
            )
        if row.is_domain:
            delete_domain_row(tx, row)
            documents.notify(tx, request, "domain.deleted", row.id)
            return
        on_it = sa.and_(assignments.c.target_type == "project", assignments.c.target_id == row.id)
        tx.write(sa.delete(assignments).where(on_it))
        tx.write(sa.update(users).where(users.c.default_project_id == row.id).values(default_project_id=None))
        tx.write(sa.delete(projects).where(projects.c.id == row.id))
        documents.notify(tx, request, "project.deleted", row.id)


def delete_domain_row(tx: Transaction, row: Row[Any]) -> None:
    """The domain with all that is in it; also used by ``domains``."""
    for actor, table in (("user", users), ("group", groups)):
        ids = sa.select(table.c.id).where(table.c.domain_id == row.id)
        theirs = sa.and_(assignments.c.actor_type == actor, assignments.c.actor_id.in_(ids))
        tx.write(sa.delete(assignments).where(theirs))
        tx.write(sa.delete(table).where(table.c.domain_id == row.id))
    inside = sa.select(projects.c.id).where(projects.c.domain_id == row.id)
    on_them = sa.or_(assignments.c.target_id == row.id, assignments.c.target_id.in_(inside))
    tx.write(sa.delete(assignments).where(assignments.c.target_type != "system", on_them))
    tx.write(sa.delete(roles).where(roles.c.domain_id == row.id))
    tx.write(sa.delete(projects).where(projects.c.domain_id == row.id))
    tx.write(sa.delete(projects).where(projects.c.id == row.id))


def get_project(tx: Transaction, request: Request, rule: str, *, lock: bool = False) -> Row[Any]:
    """The project in the URL; who may not see it is told the same as of one that does not exist."""
    project_id = request.params["project_id"]
    row = documents.find_row(tx, projects, project_id, lock=lock)
    request.enforce(rule, project_target(row))
    if row is None:
        raise documents.missing("project", project_id)
    return row


def project_target(row: Row[Any] | None) -> Json:
    if row is None:
        return {}
    target = {"target.project.id": row.id, "target.project.domain_id": row.domain_id or None}
    return {**target, "project_id": row.id, "target.domain.id": row.id if row.is_domain else None}


def find_row(tx: Transaction, project_id: str) -> Row[Any]:
    return tx.all(sa.select(projects).where(projects.c.id == project_id))[0]


def views(tx: Transaction, request: Request, rows: Sequence[Row[Any]]) -> list[Json]:
    tagged = tags.list_tags(tx, [row.id for row in rows])
    return [
        {
            **row.extra,
            "id": row.id,
            "name": row.name,
            "domain_id": row.domain_id or None,
            "parent_id": row.parent_id,
            "is_domain": row.is_domain,
            "enabled": row.enabled,
            "description": row.description,
            "options": row.options,
            "tags": tagged.get(row.id, []),
            "links": {"self": documents.link(request, f"projects/{row.id}")},
        }
        for row in rows
    ]


def _place(tx: Transaction, request: Request, wanted: NewProject) -> tuple[str, str | None]:
    """Domain and parent of a new project.  A parent gives the domain that is not named."""
    named = None if isinstance(wanted.domain_id, UnsetType) else wanted.domain_id
    if wanted.is_domain:
        if named or wanted.parent_id:
            raise BadRequest("only root projects are allowed to act as domains.")
        return "", None
    parent_id = wanted.parent_id or named or documents.home_domain(request)
    line = _line(tx, parent_id)
    if not line:
        raise documents.missing("project" if wanted.parent_id else "domain", parent_id)
    domain_id = line[-1].id
    if named not in (None, domain_id):
        raise BadRequest(
            f"Cannot create project, since it specifies its domain_id {named}, but specifies a parent in a "
            f"different domain ({domain_id})."
        )
    if len(line) >= DEEPEST:
        raise Forbidden(f"Max hierarchy depth reached for {parent_id} branch.")
    for each in line:
        if not each.enabled and not each.is_domain:
            raise BadRequest(f"cannot create a project in a branch containing a disabled project: {each.id}")
    return domain_id, parent_id


def _line(tx: Transaction, project_id: str | None) -> list[Row[Any]]:
    """The project, its parent and so on; the domain last; empty if there is no such project."""
    line: list[Row[Any]] = []
    while project_id and (row := tx.find(sa.select(projects).where(projects.c.id == project_id))):
        line.append(row)
        project_id = row.parent_id
    return line


def _below(tx: Transaction, project_id: str) -> list[Row[Any]]:
    below: list[Row[Any]] = []
    level = [project_id]
    while level:
        rows = tx.all(sa.select(projects).where(projects.c.parent_id.in_(level)).order_by(projects.c.name))
        below += rows
        level = [row.id for row in rows]
    return below


def _check_switch(tx: Transaction, row: Row[Any], enabled: bool) -> None:
    if enabled and any(not each.enabled for each in _line(tx, row.parent_id)):
        raise Forbidden(f"Cannot enable project {row.id} since it has disabled parents")
    if not enabled and any(each.enabled for each in _below(tx, row.id)):
        raise Forbidden(f"Cannot disable project {row.id} since its subtree contains enabled projects.")


def _relatives(tx: Transaction, request: Request, row: Row[Any], asked: set[str]) -> Json:
    """``parents`` and ``subtree`` of a shown project, as far as the caller may see them."""
    found: Json = {}
    if asked & {"parents_as_list", "parents_as_ids"}:
        parents = _line(tx, row.parent_id)
        if "parents_as_ids" in asked:
            found["parents"] = _nested([each.id for each in parents])
        else:
            found["parents"] = _visible(tx, request, parents)
    if asked & {"subtree_as_list", "subtree_as_ids"}:
        below = _below(tx, row.id)
        if "subtree_as_ids" in asked:
            found["subtree"] = _tree(row.id, below)
        else:
            found["subtree"] = _visible(tx, request, below)
    return found


def _visible(tx: Transaction, request: Request, rows: Sequence[Row[Any]]) -> list[Json]:
    seen = [row for row in rows if request.allows("identity:get_project", project_target(row))]
    return [{"project": document} for document in views(tx, request, seen)]


def _nested(ids: Sequence[str]) -> Json | None:
    return {ids[0]: _nested(ids[1:])} if ids else None


def _tree(root: str, below: Sequence[Row[Any]]) -> Json | None:
    children = {row.id: _tree(row.id, below) for row in below if row.parent_id == root}
    return children or None


ROUTES = [
    Route("GET", "/v3/projects", list_projects, "identity:list_projects"),
    Route("POST", "/v3/projects", create_project, "identity:create_project", 201, body=NewProjectBody),
    Route("GET", "/v3/projects/{project_id}", show_project, "identity:get_project"),
    Route("PATCH", "/v3/projects/{project_id}", update_project, "identity:update_project", body=ChangedProjectBody),
    Route("DELETE", "/v3/projects/{project_id}", delete_project, "identity:delete_project", 204),
]
