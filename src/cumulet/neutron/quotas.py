"""How many networks, ports, … a project may have.  Counted where they are made, in the same transaction."""

from typing import Annotated, Any

import sqlalchemy as sa
from msgspec import UNSET, Meta, UnsetType

from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, Conflict, Forbidden
from cumulet.core.http import Request, Route
from cumulet.core.policy import AUTHENTICATED
from cumulet.core.schema import Strict, given
from cumulet.neutron.projects import lock_project
from cumulet.neutron.tables import (
    floatingips,
    network_quotas,
    network_rbacs,
    networks,
    ports,
    routers,
    security_group_rules,
    security_groups,
    subnet_pools,
    subnets,
)

COUNTED: dict[str, tuple[sa.Table, int]] = {
    "network": (networks, 100),
    "subnet": (subnets, 100),
    "port": (ports, 500),
    "router": (routers, 10),
    "floatingip": (floatingips, 50),
    "security_group": (security_groups, 10),
    "security_group_rule": (security_group_rules, 100),
    "rbac_policy": (network_rbacs, 10),
    "subnetpool": (subnet_pools, -1),
}
DEFAULTS = {resource: bound for resource, (_, bound) in COUNTED.items()}
Bound = Annotated[int, Meta(ge=-1, le=2147483647)] | UnsetType
Json = dict[str, Any]


class Quota(Strict):
    network: Bound = UNSET
    subnet: Bound = UNSET
    port: Bound = UNSET
    router: Bound = UNSET
    floatingip: Bound = UNSET
    security_group: Bound = UNSET
    security_group_rule: Bound = UNSET
    rbac_policy: Bound = UNSET
    subnetpool: Bound = UNSET
    check_limit: bool | UnsetType = UNSET
    force: bool | UnsetType = UNSET


class QuotaBody(Strict):
    quota: Quota


def reserve(tx: Transaction, project_id: str, resource: str, count: int = 1) -> None:
    """Room for ``count`` more, or a 409; nobody else takes it before this transaction ends."""
    lock_project(tx, project_id)
    table, default = COUNTED[resource]
    bound = tx.value(_BOUND, {"project": project_id, "what": resource})
    bound = default if bound is None else bound
    if bound < 0:
        return
    used = tx.value(sa.select(sa.func.count()).select_from(table).where(table.c.project_id == project_id))
    if used + count > bound:
        raise Conflict(f"Quota exceeded for resources: ['{resource}'].", kind="OverQuota")


_BOUND = sa.select(network_quotas.c.bound).where(
    network_quotas.c.project_id == sa.bindparam("project"), network_quotas.c.resource == sa.bindparam("what")
)


def list_quotas(request: Request) -> Json:
    """Projects whose quotas are not the defaults."""
    if not request.context.admin:
        raise Forbidden("Admin privileges are required to list quotas", kind="AdminRequired")
    with request.db.read() as tx:
        rows = tx.all(sa.select(network_quotas))
    found: dict[str, Json] = {}
    for row in rows:
        mine = found.setdefault(
            row.project_id, {**DEFAULTS, "project_id": row.project_id, "tenant_id": row.project_id}
        )
        mine[row.resource] = row.bound
    return {"quotas": list(found.values())}


def get_quota(request: Request) -> Json:
    project_id = _readable(request)
    with request.db.read() as tx:
        return {"quota": _bounds(tx, project_id)}


def get_default_quota(request: Request) -> Json:
    _readable(request)
    return {"quota": DEFAULTS}


def get_quota_details(request: Request) -> Json:
    project_id = _readable(request)
    with request.db.read() as tx:
        bounds = _bounds(tx, project_id)
        found = {
            resource: {"limit": bounds[resource], "used": _used(tx, table, project_id), "reserved": 0}
            for resource, (table, _) in COUNTED.items()
        }
    return {"quota": found}


def get_own_project(request: Request) -> Json:
    return {"tenant": {"tenant_id": request.context.project_id}}


def update_quota(request: Request) -> Json:
    """Without ``force`` no bound may be below what the project has already.

    ``check_limit`` is what one had to say for that until 2025.1; it changes nothing."""
    project_id = _project(request, "update_quota")
    wanted = given(request.body.quota)
    force = wanted.pop("force", False)
    wanted.pop("check_limit", None)
    with request.db.transaction() as tx:
        if not force:
            _check_used(tx, project_id, wanted)
        for resource, bound in wanted.items():
            key = (network_quotas.c.project_id == project_id, network_quotas.c.resource == resource)
            if not tx.write(sa.update(network_quotas).where(*key).values(bound=bound)) and not tx.find(
                sa.select(network_quotas.c.bound).where(*key)
            ):
                row = {"project_id": project_id, "resource": resource, "bound": bound}
                tx.write(network_quotas.insert(), row)
        return {"quota": _bounds(tx, project_id)}


def _check_used(tx: Transaction, project_id: str, bounds: dict[str, int]) -> None:
    for resource, bound in bounds.items():
        used = _used(tx, COUNTED[resource][0], project_id)
        if 0 <= bound < used:
            raise BadRequest(
                f"Quota limit {bound} for {resource} must be greater than or equal to already used {used}."
            )


def delete_quota(request: Request) -> None:
    project_id = _project(request, "delete_quota")
    with request.db.transaction() as tx:
        tx.write(sa.delete(network_quotas).where(network_quotas.c.project_id == project_id))


def _readable(request: Request) -> str:
    """The project of the URL.  Everybody may see their own project's quotas, whatever the rule says."""
    if request.params["project_id"] == request.context.project_id:
        return request.context.project_id
    return _project(request, "get_quota")


def _project(request: Request, rule: str) -> str:
    project_id = request.params["project_id"]
    request.enforce(rule, {"project_id": project_id, "tenant_id": project_id})
    return project_id


def _bounds(tx: Transaction, project_id: str) -> dict[str, int]:
    rows = tx.all(sa.select(network_quotas).where(network_quotas.c.project_id == project_id))
    return {**DEFAULTS, **{row.resource: row.bound for row in rows}}


def _used(tx: Transaction, table: sa.Table, project_id: str) -> int:
    return int(tx.value(sa.select(sa.func.count()).select_from(table).where(table.c.project_id == project_id)))


BASE = "/v2.0/quotas"
ROUTES = [
    Route("GET", BASE, list_quotas, "get_quota"),
    Route("GET", f"{BASE}/tenant", get_own_project, AUTHENTICATED),
    Route("GET", f"{BASE}/project", get_own_project, AUTHENTICATED),
    Route("GET", BASE + "/{project_id}", get_quota, AUTHENTICATED),
    Route("GET", BASE + "/{project_id}/default", get_default_quota, AUTHENTICATED),
    Route("GET", BASE + "/{project_id}/details", get_quota_details, AUTHENTICATED),
    Route("GET", BASE + "/{project_id}/details.json", get_quota_details, AUTHENTICATED),
    Route("PUT", BASE + "/{project_id}", update_quota, "update_quota", body=QuotaBody),
    Route("DELETE", BASE + "/{project_id}", delete_quota, "delete_quota", 204),
]
