"""Where a user may go: the projects, domains and system they have a role on, and the catalogue of this token."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement

from cumulet.core.errors import Forbidden
from cumulet.core.http import Json, Request, Route
from cumulet.core.listing import list_page
from cumulet.keystone import documents, domains, projects
from cumulet.keystone.catalog import list_catalog
from cumulet.keystone.model import SYSTEM, Scope, Standing
from cumulet.keystone.standing import held_by
from cumulet.keystone.tables import assignments
from cumulet.keystone.tables import projects as table
from cumulet.keystone.users import get_user

_home = table.alias("home")


def list_my_projects(request: Request) -> Json:
    """Those that a token can be had for: enabled, in an enabled domain."""
    enabled = sa.and_(table.c.enabled, table.c.domain_id.in_(sa.select(_home.c.id).where(_home.c.enabled)))
    return _projects(request, _of_user(request.context.user_id).where(enabled))


def list_user_projects(request: Request) -> Json:
    with request.db.read() as tx:
        user = get_user(tx, request, "identity:list_user_projects")
    return _projects(request, _of_user(user.id))


def list_my_domains(request: Request) -> Json:
    on = sa.select(assignments.c.target_id).where(
        held_by(request.context.user_id), assignments.c.target_type == "domain", sa.not_(assignments.c.inherited)
    )
    statement = sa.select(table).where(table.c.id.in_(on), table.c.is_domain, table.c.enabled)
    with request.db.read() as tx:
        page = list_page(tx, statement, request, domains.LISTING)
        return documents.collection(request, "domains", domains.views(tx, request, page.rows), page)


def list_my_systems(request: Request) -> Json:
    on = sa.select(assignments.c.target_id).where(
        held_by(request.context.user_id), assignments.c.target_type == SYSTEM
    )
    with request.db.read() as tx:
        found = tx.find(on)
    return documents.collection(request, "system", [{"all": True}] if found else [])


def show_catalog(request: Request) -> Json:
    context = request.context
    if not (context.project_id or context.domain_id or context.system):
        raise Forbidden("You are not authorized to perform the requested action: identity:get_auth_catalog.")
    scope = Scope("project", context.project_id) if context.project_id else Scope("domain", context.domain_id)
    standing = Standing(context.user_id, context.user_name, context.user_domain_id, "", 0, scope)
    with request.db.read() as tx:
        return documents.collection(request, "catalog", list_catalog(tx, standing))


def _projects(request: Request, statement: sa.Select[Any]) -> Json:
    with request.db.read() as tx:
        page = list_page(tx, statement, request, projects.LISTING)
        return documents.collection(request, "projects", projects.views(tx, request, page.rows), page)


def _of_user(user_id: str) -> sa.Select[Any]:
    """The projects with a role of the user on them, or inherited from above them."""
    mine: ColumnElement[bool] = held_by(user_id)
    here = sa.select(assignments.c.target_id).where(
        mine, assignments.c.target_type == "project", sa.not_(assignments.c.inherited)
    )
    above = sa.select(assignments.c.target_id).where(mine, assignments.c.inherited)
    inner = table.alias("inner_project")
    below = sa.select(inner.c.id).where(inner.c.parent_id.in_(above)).cte("below", recursive=True)
    further = table.alias("further_project")
    below = below.union(sa.select(further.c.id).where(further.c.parent_id == below.c.id))
    return sa.select(table).where(
        sa.not_(table.c.is_domain), sa.or_(table.c.id.in_(here), table.c.id.in_(sa.select(below.c.id)))
    )


ROUTES = [
    Route("GET", "/v3/auth/projects", list_my_projects, "identity:get_auth_projects"),
    Route("GET", "/v3/auth/domains", list_my_domains, "identity:get_auth_domains"),
    Route("GET", "/v3/auth/system", list_my_systems, "identity:get_auth_system"),
    Route("GET", "/v3/auth/catalog", show_catalog, "identity:get_auth_catalog"),
    Route("GET", "/v3/users/{user_id}/projects", list_user_projects, "identity:list_user_projects"),
]
