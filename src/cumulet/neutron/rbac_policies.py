"""/v2.0/rbac-policies: who else may use a network, a security group, a subnet pool or an address scope."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from msgspec import UNSET, UnsetType
from sqlalchemy.engine import Row

from cumulet.core import listing
from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, Conflict, NotFound, Retry
from cumulet.core.http import Request, Route
from cumulet.core.listing import Listing
from cumulet.core.schema import Strict
from cumulet.neutron import address_scopes, checks, notices, quotas, sharing, standard, subnet_pools
from cumulet.neutron.checks import IdText
from cumulet.neutron.networks import get_network
from cumulet.neutron.security_groups import get_group
from cumulet.neutron.sharing import EXTERNAL, SHARED
from cumulet.neutron.standard import Json
from cumulet.neutron.tables import network_rbacs, networks, port_groups, ports


@dataclass(frozen=True)
class Kind:
    """``used``: whether projects that are not ``left`` rely on a policy of this action."""

    get: Callable[[Transaction, Request, str], Row[Any]]
    actions: tuple[str, ...]
    used: Callable[[Transaction, Row[Any], str, set[str]], bool]


class NewPolicy(Strict, kw_only=True):
    object_type: str
    object_id: IdText
    action: str
    target_tenant: IdText
    project_id: IdText | UnsetType = UNSET
    tenant_id: IdText | UnsetType = UNSET


class PolicyChange(Strict):
    target_tenant: IdText | UnsetType = UNSET


class PoliciesBody(Strict):
    rbac_policy: NewPolicy | UnsetType = UNSET
    rbac_policies: list[NewPolicy] | UnsetType = UNSET


class PolicyBody(Strict):
    rbac_policy: PolicyChange


def create_policies(request: Request) -> Json:
    bodies, bulk = standard.wanted(request.body, "rbac_policy", "rbac_policies")
    with request.db.transaction() as tx:
        documents = [_create(tx, request, body) for body in bodies]
        notices.created(tx, request, "rbac_policy", bodies, documents)
    return standard.created(documents, "rbac_policy", "rbac_policies", bulk)


def _create(tx: Transaction, request: Request, body: NewPolicy) -> Json:
    project_id = standard.project_of(request, body)
    about = {"project_id": project_id, "tenant_id": project_id, "target_tenant": body.target_tenant}
    request.enforce("create_rbac_policy", about)
    request.enforce("create_rbac_policy:target_tenant", about)
    kind = KINDS.get(body.object_type.strip().lower())
    if kind is None:
        raise checks.bad(f"'{checks.shown(body.object_type)}' is not a valid RBAC object type")
    if body.action not in kind.actions:
        raise BadRequest(
            f"Invalid action '{checks.shown(body.action)}' for object type '{body.object_type}'. Valid actions: "
            f"{', '.join(kind.actions)}",
            kind="InvalidActionForType",
        )
    if not body.target_tenant:
        raise checks.bad("target_tenant names a project, or is * for all")
    thing = kind.get(tx, request, body.object_id)
    if not (request.context.admin or thing.project_id == request.context.project_id):
        raise checks.bad("Only admins can manipulate policies on objects they do not own")
    if body.action == EXTERNAL:
        request.enforce("update_network:router:external", standard.target(thing))
        tx.write(sa.update(networks).where(networks.c.id == thing.id).values(external=True))
    quotas.reserve(tx, project_id, "rbac_policy")
    row = sharing.policy_row(project_id, body.object_type, thing.id, body.action, body.target_tenant)
    try:
        tx.write(network_rbacs.insert(), row)
    except Conflict as same:
        raise _duplicate() from same
    return _view(get_policy(tx, request, row["id"]))


def list_policies(request: Request) -> Json:
    with request.db.read() as tx:
        scoped = sa.select(network_rbacs).where(standard.visible(request, network_rbacs))
        page = listing.list_page(tx, scoped, request, LISTING)
    return standard.document(request, "rbac_policies", page, [_view(row) for row in page.rows])


def get_policy(tx: Transaction, request: Request, policy_id: str) -> Row[Any]:
    mine = standard.visible(request, network_rbacs)
    row = tx.find(sa.select(network_rbacs).where(network_rbacs.c.id == policy_id, mine))
    if row is None:
        raise NotFound(f"RBAC policy with ID {checks.shown(policy_id)} not found", kind="RbacPolicyNotFound")
    return row


def show_policy(request: Request) -> Json:
    with request.db.read() as tx:
        row = get_policy(tx, request, request.params["policy_id"])
    return {"rbac_policy": standard.selected(request, _view(row))}


def update_policy(request: Request) -> Json:
    body: PolicyChange = request.body.rbac_policy
    with request.db.transaction() as tx:
        row = get_policy(tx, request, request.params["policy_id"])
        about = standard.target(row, target_tenant=body.target_tenant or row.target)
        request.enforce("update_rbac_policy", about)
        if not isinstance(body.target_tenant, UnsetType) and body.target_tenant != row.target:
            request.enforce("update_rbac_policy:target_tenant", about)
            if not body.target_tenant:
                raise checks.bad("target_tenant names a project, or is * for all")
            _check_unused(tx, request, row, {body.target_tenant})
            mine = sa.and_(network_rbacs.c.id == row.id, network_rbacs.c.target == row.target)
            try:
                if not tx.write(sa.update(network_rbacs).where(mine).values(target=body.target_tenant)):
                    raise Retry(f"RBAC policy {row.id} was changed by somebody else")
            except Conflict as same:
                raise _duplicate() from same
        document = _view(get_policy(tx, request, row.id))
        notices.updated(tx, request, "rbac_policy", body, document)
    return {"rbac_policy": document}


def delete_policy(request: Request) -> None:
    with request.db.transaction() as tx:
        row = get_policy(tx, request, request.params["policy_id"])
        request.enforce("delete_rbac_policy", standard.target(row))
        _check_unused(tx, request, row, set())
        tx.write(sa.delete(network_rbacs).where(network_rbacs.c.id == row.id))
        notices.deleted(tx, request, "rbac_policy", row.id)


def _check_unused(tx: Transaction, request: Request, row: Row[Any], instead: set[str]) -> None:
    """A policy stays while others rely on it."""
    kind = KINDS[row.object_type]
    left = sharing.targets(tx, row.object_id, row.action, besides=row.id) | instead
    if kind.used(tx, kind.get(tx, request, row.object_id), row.action, left):
        raise Conflict(
            f"RBAC policy on object {row.object_id} cannot be removed because other objects depend on it.\n"
            f"Details: other projects than its owner use this {row.object_type}",
            kind="RbacPolicyInUse",
        )


def _network_used(tx: Transaction, thing: Row[Any], action: str, left: set[str]) -> bool:
    if action == EXTERNAL:
        return sharing.used_as_external(tx, thing, left)
    return sharing.used_by_others(tx, thing, left)


def _group_used(tx: Transaction, thing: Row[Any], action: str, left: set[str]) -> bool:
    if sharing.ALL in left:
        return False
    others = ports.c.project_id.not_in(["", thing.project_id, *left])
    statement = sa.select(ports.c.id).join(port_groups, port_groups.c.port_id == ports.c.id)
    return tx.find(statement.where(port_groups.c.security_group_id == thing.id, others)) is not None


def _duplicate() -> Conflict:
    return Conflict("An RBAC policy already exists with those values.", kind="DuplicateRbacPolicy")


def _view(row: Row[Any]) -> Json:
    return {
        "id": row.id,
        "project_id": row.project_id,
        "tenant_id": row.project_id,
        "object_type": row.object_type,
        "object_id": row.object_id,
        "action": row.action,
        "target_tenant": row.target,
    }


KINDS = {
    "network": Kind(get_network, (SHARED, EXTERNAL), _network_used),
    "security_group": Kind(get_group, (SHARED,), _group_used),
    "subnetpool": Kind(subnet_pools.get_pool, (SHARED,), subnet_pools.used_by_others),
    "address_scope": Kind(address_scopes.get_scope, (SHARED,), address_scopes.used_by_others),
}
LISTING = Listing(
    network_rbacs.c.id,
    {
        "id": network_rbacs.c.id,
        "project_id": network_rbacs.c.project_id,
        "tenant_id": network_rbacs.c.project_id,
        "object_type": network_rbacs.c.object_type,
        "object_id": network_rbacs.c.object_id,
        "action": network_rbacs.c.action,
        "target_tenant": network_rbacs.c.target,
    },
    default_sort=(("id", "asc"),),
)
BASE = "/v2.0/rbac-policies"
ROUTES = [
    Route("GET", BASE, list_policies, "get_rbac_policy"),
    Route("POST", BASE, create_policies, "create_rbac_policy", 201, body=PoliciesBody),
    Route("GET", BASE + "/{policy_id}", show_policy, "get_rbac_policy"),
    Route("PUT", BASE + "/{policy_id}", update_policy, "update_rbac_policy", body=PolicyBody),
    Route("DELETE", BASE + "/{policy_id}", delete_policy, "delete_rbac_policy", 204),
]
