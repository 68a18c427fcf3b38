"""Which role implies which.  Circles do no harm; that anything implies ``admin`` is refused."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, Forbidden, NotFound
from cumulet.core.http import Json, Reply, Request, Route
from cumulet.keystone import documents
from cumulet.keystone.tables import implied_roles, roles

PROHIBITED = "admin"


def list_implied_roles(request: Request) -> Json:
    with request.db.read() as tx:
        prior = _role(tx, request.params["prior_role_id"])
        implied = _implied().where(implied_roles.c.prior_role_id == prior.id)
        links = {"self": documents.link(request, f"roles/{prior.id}/implies")}
        return {"role_inference": _inference(request, prior, tx.all(implied)), "links": links}


def list_role_inferences(request: Request) -> Json:
    with request.db.read() as tx:
        priors = tx.all(
            sa.select(roles)
            .where(roles.c.id.in_(sa.select(implied_roles.c.prior_role_id)))
            .order_by(roles.c.name, roles.c.id)
        )
        implied: dict[str, list[Row[Any]]] = {}
        for row in tx.all(_implied()):
            implied.setdefault(row.prior_role_id, []).append(row)
    items = (_inference(request, prior, implied.get(prior.id, [])) for prior in priors)
    return documents.collection(request, "role_inferences", items)


def show_implied_role(request: Request) -> Json:
    with request.db.read() as tx:
        prior, implied = _pair(tx, request)
        return _one(request, prior, implied)


def check_implied_role(request: Request) -> Reply:
    with request.db.read() as tx:
        _pair(tx, request)
    return Reply(None, 204)


def create_implied_role(request: Request) -> Json:
    with request.db.transaction() as tx:
        prior = _role(tx, request.params["prior_role_id"])
        implied = _role(tx, request.params["implied_role_id"])
        if implied.name.lower() == PROHIBITED and not implied.domain_id:
            raise Forbidden(f"{implied.id} cannot be an implied roles.")
        if implied.id == prior.id:
            raise BadRequest("A role cannot imply itself.")
        if implied.domain_id and not prior.domain_id:
            raise Forbidden(f"{implied.id} cannot be an implied roles.")
        pair = {"prior_role_id": prior.id, "implied_role_id": implied.id}
        if not tx.find(_where(sa.select(implied_roles), pair)):
            tx.write(implied_roles.insert(), pair)
            documents.notify(tx, request, "role.updated", prior.id)
        return _one(request, prior, implied)


def delete_implied_role(request: Request) -> None:
    with request.db.transaction() as tx:
        prior, implied = _pair(tx, request)
        mine = sa.and_(implied_roles.c.prior_role_id == prior.id, implied_roles.c.implied_role_id == implied.id)
        tx.write(sa.delete(implied_roles).where(mine))
        documents.notify(tx, request, "role.updated", prior.id)


def _pair(tx: Transaction, request: Request) -> tuple[Row[Any], Row[Any]]:
    prior = _role(tx, request.params["prior_role_id"])
    implied = _role(tx, request.params["implied_role_id"])
    pair = {"prior_role_id": prior.id, "implied_role_id": implied.id}
    if not tx.find(_where(sa.select(implied_roles), pair)):
        raise NotFound(f"{prior.id} does not imply {implied.id}.")
    return prior, implied


def _where(statement: sa.Select[Any], pair: dict[str, str]) -> sa.Select[Any]:
    return statement.where(*(implied_roles.c[name] == value for name, value in pair.items()))


def _role(tx: Transaction, role_id: str) -> Row[Any]:
    row = documents.find_row(tx, roles, role_id)
    if row is None:
        raise documents.missing("role", role_id)
    return row


def _implied() -> sa.Select[Any]:
    return (
        sa.select(roles, implied_roles.c.prior_role_id)
        .select_from(implied_roles.join(roles, roles.c.id == implied_roles.c.implied_role_id))
        .order_by(roles.c.name, roles.c.id)
    )


def _inference(request: Request, prior: Row[Any], implied: Sequence[Row[Any]]) -> Json:
    return {"prior_role": _short(request, prior), "implies": [_short(request, row) for row in implied]}


def _one(request: Request, prior: Row[Any], implied: Row[Any]) -> Json:
    links = {"self": documents.link(request, f"roles/{prior.id}/implies/{implied.id}")}
    inference = {"prior_role": _short(request, prior), "implies": _short(request, implied)}
    return {"role_inference": inference, "links": links}


def _short(request: Request, row: Row[Any]) -> Json:
    return {"id": row.id, "name": row.name, "links": {"self": documents.link(request, f"roles/{row.id}")}}


ALL, ONE = "/v3/roles/{prior_role_id}/implies", "/v3/roles/{prior_role_id}/implies/{implied_role_id}"
ROUTES = [
    Route("GET", "/v3/role_inferences", list_role_inferences, "identity:list_role_inference_rules"),
    Route("GET", ALL, list_implied_roles, "identity:list_implied_roles"),
    Route("GET", ONE, show_implied_role, "identity:get_implied_role"),
    Route("HEAD", ONE, check_implied_role, "identity:check_implied_role", 204),
    Route("PUT", ONE, create_implied_role, "identity:create_implied_role", 201),
    Route("DELETE", ONE, delete_implied_role, "identity:delete_implied_role", 204),
]
