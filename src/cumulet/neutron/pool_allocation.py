"""A subnet's prefix, taken from a subnet pool: the one that is asked for, or the lowest that is free."""

from typing import Any

import msgspec
import sqlalchemy as sa
from msgspec import UNSET
from sqlalchemy.engine import Row

from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, Conflict, Retry
from cumulet.core.http import Request
from cumulet.neutron import checks, ipam, pool_plan, standard
from cumulet.neutron.subnet_pools import get_pool
from cumulet.neutron.tables import subnet_pools, subnets


def take(tx: Transaction, request: Request, project_id: str, body: Any) -> tuple[Any, str | None]:
    """The body of a new subnet with its prefix and IP version, and the pool that it comes from, if from one."""
    pool = _pool(tx, request, body)
    if pool is None:
        if body.prefixlen is not UNSET and body.prefixlen is not None:
            raise checks.bad("prefixlen is for subnets of a subnet pool")
        if body.ip_version is UNSET and body.cidr:
            body = msgspec.structs.replace(body, ip_version=6 if ":" in body.cidr else 4)
        return body, None
    if body.ip_version not in (UNSET, pool.ip_version):
        raise checks.bad(f"Cannot allocate IPv{body.ip_version} subnet from IPv{pool.ip_version} subnet pool")
    taken = tx.all(sa.select(subnets.c.cidr, subnets.c.project_id).where(subnets.c.subnetpool_id == pool.id))
    cidr = _given(pool, body, [row.cidr for row in taken]) if body.cidr else _free(pool, body, taken)
    _check_quota(pool, cidr, [row.cidr for row in taken if row.project_id == project_id])
    # the pool's revision decides between two that take the same prefix at once
    if not standard.change(tx, subnet_pools, pool, {}):
        raise Retry(f"subnet pool {pool.id} was changed by somebody else")
    return msgspec.structs.replace(body, cidr=cidr, ip_version=pool.ip_version), str(pool.id)


def _pool(tx: Transaction, request: Request, body: Any) -> Row[Any] | None:
    """The pool that the body names, or the default one that it asks for."""
    if body.use_default_subnetpool is not True:
        return get_pool(tx, request, body.subnetpool_id) if body.subnetpool_id else None
    if body.subnetpool_id:
        raise checks.bad("subnetpool_id and use_default_subnetpool cannot both be specified")
    version = 4 if body.ip_version is UNSET else body.ip_version
    default = sa.select(subnet_pools.c.id).where(
        subnet_pools.c.is_default.is_(True), subnet_pools.c.ip_version == version
    )
    found = tx.value(default)
    if found is None:
        raise BadRequest(f"No default subnetpool found for IPv{version}", kind="HTTPBadRequest")
    return get_pool(tx, request, str(found))


def _given(pool: Row[Any], body: Any, taken: list[str]) -> str:
    """A certain prefix of the pool."""
    if body.prefixlen is not UNSET and body.prefixlen is not None:
        raise checks.bad("cidr and prefixlen must not be supplied together")
    cidr = checks.prefix(body.cidr, strict=True, mask=True)
    if not pool_plan.inside(pool.prefixes, cidr) or any(ipam.overlapping(cidr, other) for other in taken):
        raise _none("Cannot allocate requested subnet from the available set of prefixes")
    length = int(cidr.partition("/")[2])
    pool_plan.check_length(length, pool.min_prefixlen, pool.max_prefixlen)
    return cidr


def _free(pool: Row[Any], body: Any, taken: Any) -> str:
    length = pool.default_prefixlen if body.prefixlen in (UNSET, None) else body.prefixlen
    pool_plan.check_length(length, pool.min_prefixlen, pool.max_prefixlen)
    cidr = pool_plan.choose(pool.prefixes, [row.cidr for row in taken], length)
    if cidr is None:
        raise _none(f"Insufficient prefix space to allocate subnet size /{length}")
    return cidr


def _check_quota(pool: Row[Any], cidr: str, mine: list[str]) -> None:
    if pool.default_quota is not None and sum(map(pool_plan.units, [cidr, *mine])) > pool.default_quota:
        raise Conflict("Per-tenant subnet pool prefix quota exceeded.", kind="SubnetPoolQuotaExceeded")


def _none(reason: str) -> Conflict:
    return Conflict(f"Failed to allocate subnet: {reason}.", kind="SubnetAllocationError")
