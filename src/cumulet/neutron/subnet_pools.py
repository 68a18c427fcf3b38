"""/v2.0/subnetpools: prefixes from which subnets get theirs.

A subnet that is taken from a pool is the allocation: there is no other record of it.  Two that take at once are
told apart by the pool's revision, which each of them raises.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import sqlalchemy as sa
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy.engine import Row

from cumulet.core import listing
from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, Conflict, NotFound, Retry
from cumulet.core.http import Request, Route
from cumulet.core.listing import Listing
from cumulet.core.schema import Strict
from cumulet.neutron import checks, effects, ipam, notices, pool_plan, quotas, sharing, standard
from cumulet.neutron.address_scopes import get_scope
from cumulet.neutron.checks import IdText, Tag
from cumulet.neutron.sharing import ALL
from cumulet.neutron.standard import Json, Named
from cumulet.neutron.tables import subnet_pools, subnets

Length = Annotated[int, Meta(ge=0, le=128)]
Prefixes = Annotated[list[Annotated[str, Meta(max_length=64)]], Meta(max_length=100)]


class PoolChange(Named):
    prefixes: Prefixes | str | UnsetType = UNSET
    min_prefixlen: Length | UnsetType = UNSET
    max_prefixlen: Length | UnsetType = UNSET
    default_prefixlen: Length | UnsetType = UNSET
    default_quota: Annotated[int, Meta(ge=0, le=2147483647)] | UnsetType | None = UNSET
    address_scope_id: IdText | UnsetType | None = UNSET
    is_default: bool | UnsetType = UNSET


class NewPool(PoolChange):
    shared: bool | UnsetType = UNSET
    project_id: IdText | UnsetType = UNSET
    tenant_id: IdText | UnsetType = UNSET
    tags: list[Tag] | UnsetType = UNSET


class PoolsBody(Strict):
    subnetpool: NewPool | UnsetType = UNSET
    subnetpools: list[NewPool] | UnsetType = UNSET


class PoolBody(Strict):
    subnetpool: PoolChange


DEFAULTS = {"shared": False, "is_default": False}


def create_pools(request: Request) -> Json:
    bodies, bulk = standard.wanted(request.body, "subnetpool", "subnetpools")
    with request.db.transaction() as tx:
        documents = [_create(tx, request, body) for body in bodies]
        notices.created(tx, request, "subnetpool", bodies, documents)
    return standard.created(documents, "subnetpool", "subnetpools", bulk)


def _create(tx: Transaction, request: Request, body: NewPool) -> Json:
    project_id = standard.project_of(request, body)
    about = {"project_id": project_id, "tenant_id": project_id}
    request.enforce("create_subnetpool", about)
    standard.enforce_attributes(request, "create_subnetpool", body, about, DEFAULTS)
    if not (body.name or ""):
        raise checks.bad("a subnet pool has a name")
    quotas.reserve(tx, project_id, "subnetpool")
    row = standard.new_row(project_id, body) | _values(body, None)
    row["shared"] = body.shared is True
    _check_scope(tx, request, row)
    if row["is_default"]:
        _only_default(tx, row)
    tx.write(subnet_pools.insert(), {name: value for name, value in row.items() if name != "shared"})
    sharing.share_with_all(tx, "subnetpool", subnet_pools, row["id"], row["shared"])
    return _views(tx, request, [get_pool(tx, request, row["id"])])[0]


def _values(body: PoolChange, row: Row[Any] | None) -> Json:
    """A pool's own columns after the body's changes to ``row`` (None: a new one)."""
    given = [body.prefixes] if isinstance(body.prefixes, str) else list(body.prefixes or [])
    prefixes = row.prefixes if row is not None and body.prefixes is UNSET else pool_plan.prefixes(given)
    version = 6 if ":" in prefixes[0] else 4
    if row is not None:
        if version != row.ip_version:
            raise BadRequest("Cannot mix IPv4 and IPv6 prefixes in a subnet pool.", kind="PrefixVersionMismatch")
        if not all(pool_plan.inside(prefixes, old) for old in row.prefixes):
            raise BadRequest(
                "Illegal update to prefixes: Existing prefixes must be a subset of the new prefixes.",
                kind="IllegalSubnetPoolPrefixUpdate",
            )

    def now(name: str) -> Any:
        value = getattr(body, name)
        return (None if row is None else getattr(row, name)) if value is UNSET else value

    lengths = pool_plan.bounds(version, now("min_prefixlen"), now("default_prefixlen"), now("max_prefixlen"))
    return {
        "prefixes": prefixes,
        "ip_version": version,
        "min_prefixlen": lengths.smallest,
        "default_prefixlen": lengths.default,
        "max_prefixlen": lengths.largest,
        "default_quota": now("default_quota"),
        "address_scope_id": now("address_scope_id"),
        "is_default": bool(now("is_default")),
    }


def _check_scope(tx: Transaction, request: Request, row: Json) -> None:
    """A pool is in a scope of its own IP version and project, and overlaps with no other pool of it."""
    if row["address_scope_id"] is None:
        return
    scope = get_scope(tx, request, row["address_scope_id"])
    if scope.project_id != row["project_id"] and not request.context.admin:
        raise BadRequest(
            f"Illegal subnetpool association: subnetpool {row['id']} cannot be associated with address scope "
            f"{scope.id}.",
            kind="IllegalSubnetPoolAssociationToAddressScope",
        )
    if scope.ip_version != row["ip_version"]:
        raise BadRequest(
            f"Illegal subnetpool association: subnetpool {row['id']} cannot associate with address scope "
            f"{scope.id} because subnetpool ip_version is not the same as address scope ip_version.",
            kind="IllegalSubnetPoolIpVersionAssociationToAddressScope",
        )
    for other in tx.all(sa.select(subnet_pools).where(subnet_pools.c.address_scope_id == scope.id)):
        if other.id != row["id"] and any(
            ipam.overlapping(one, two) for one in row["prefixes"] for two in other.prefixes
        ):
            raise Conflict(
                "Failed to associate address scope: subnetpools within an address scope must have unique prefixes.",
                kind="AddressScopePrefixConflict",
            )


def _only_default(tx: Transaction, row: Json) -> None:
    other = sa.select(subnet_pools.c.id).where(
        subnet_pools.c.is_default.is_(True),
        subnet_pools.c.ip_version == row["ip_version"],
        subnet_pools.c.id != row["id"],
    )
    if tx.find(other):
        raise checks.bad(f"A default subnetpool for IPv{row['ip_version']} has already been set")


def list_pools(request: Request) -> Json:
    with request.db.read() as tx:
        scoped = sa.select(subnet_pools).where(sharing.visible(request, subnet_pools))
        shared = sharing.open_to(subnet_pools, standard.mine(request))
        listed = replace(LISTING, columns={**LISTING.columns, "shared": shared})
        page = listing.list_page(tx, scoped, request, listed)
        return standard.document(request, "subnetpools", page, _views(tx, request, page.rows))


def get_pool(tx: Transaction, request: Request, pool_id: str) -> Row[Any]:
    """The pool, if the caller may see it; 404 otherwise."""
    seen = sharing.visible(request, subnet_pools)
    row = tx.find(sa.select(subnet_pools).where(subnet_pools.c.id == pool_id, seen))
    if row is None:
        raise NotFound(f"Subnet pool {checks.shown(pool_id)} could not be found.", kind="SubnetPoolNotFound")
    return row


def show_pool(request: Request) -> Json:
    with request.db.read() as tx:
        row = get_pool(tx, request, request.params["subnetpool_id"])
        return {"subnetpool": standard.selected(request, _views(tx, request, [row])[0])}


def update_pool(request: Request) -> Json:
    body: PoolChange = request.body.subnetpool
    with request.db.transaction() as tx:
        row = get_pool(tx, request, request.params["subnetpool_id"])
        about = standard.target(row)
        standard.permit(request, "update_subnetpool", row, about)
        standard.enforce_attributes(request, "update_subnetpool", body, about)
        values = _values(body, row) | {
            name: value for name in ("name", "description") if (value := getattr(body, name)) is not UNSET
        }
        whole = {"id": row.id, "project_id": row.project_id, **values}
        _check_scope(tx, request, whole)
        if values["is_default"]:
            _only_default(tx, whole)
        if not standard.change(tx, subnet_pools, row, values):
            raise Retry(f"subnet pool {row.id} was changed by somebody else")
        if values["address_scope_id"] != row.address_scope_id:
            effects.bump_routers_of_pool(tx, row.id)
        document = _views(tx, request, [get_pool(tx, request, row.id)])[0]
        notices.updated(tx, request, "subnetpool", body, document)
    return {"subnetpool": document}


def delete_pool(request: Request) -> None:
    with request.db.transaction() as tx:
        row = get_pool(tx, request, request.params["subnetpool_id"])
        standard.permit(request, "delete_subnetpool", row)
        if not standard.change(tx, subnet_pools, row, {}):
            raise Retry(f"subnet pool {row.id} was changed by somebody else")
        if tx.find(sa.select(subnets.c.id).where(subnets.c.subnetpool_id == row.id)):
            raise BadRequest(
                "Unable to delete subnet pool: Subnet pool has existing allocations.", kind="SubnetPoolDeleteError"
            )
        tx.write(sa.delete(subnet_pools).where(subnet_pools.c.id == row.id))
        sharing.forget(tx, row.id)
        notices.deleted(tx, request, "subnetpool", row.id)


def used_by_others(tx: Transaction, thing: Row[Any], action: str, left: set[str]) -> bool:
    """Whether projects have subnets from the pool that may take none when it is shared with ``left`` only."""
    if ALL in left:
        return False
    others = subnets.c.project_id.not_in([thing.project_id, *left])
    return tx.find(sa.select(subnets.c.id).where(subnets.c.subnetpool_id == thing.id, others)) is not None


def _views(tx: Transaction, request: Request, rows: Sequence[Row[Any]]) -> list[Json]:
    shared = sharing.shared_ones(tx, request, [row.id for row in rows])
    own = ("prefixes", "ip_version", "min_prefixlen", "default_prefixlen", "max_prefixlen", "default_quota",
           "address_scope_id", "is_default")  # fmt: skip
    return [
        {
            **standard.standard_view(row),
            **{name: getattr(row, name) for name in own},
            "shared": row.id in shared,
        }
        for row in rows
    ]


LISTING = Listing(
    subnet_pools.c.id,
    standard.columns(
        subnet_pools,
        ip_version=subnet_pools.c.ip_version,
        min_prefixlen=subnet_pools.c.min_prefixlen,
        default_prefixlen=subnet_pools.c.default_prefixlen,
        max_prefixlen=subnet_pools.c.max_prefixlen,
        default_quota=subnet_pools.c.default_quota,
        address_scope_id=subnet_pools.c.address_scope_id,
        is_default=subnet_pools.c.is_default,
    ),
    standard.conditions(subnet_pools),
)
BASE = "/v2.0/subnetpools"
ROUTES = [
    Route("GET", BASE, list_pools, "get_subnetpool"),
    Route("POST", BASE, create_pools, "create_subnetpool", 201, body=PoolsBody),
    Route("GET", BASE + "/{subnetpool_id}", show_pool, "get_subnetpool"),
    Route("PUT", BASE + "/{subnetpool_id}", update_pool, "update_subnetpool", body=PoolBody),
    Route("DELETE", BASE + "/{subnetpool_id}", delete_pool, "delete_subnetpool", 204),
]
