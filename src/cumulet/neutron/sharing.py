"""Who else may use a project's networks, groups, pools and scopes: the rows of ``network_rbacs``, as SQL.

A thing is shared with a project if a policy says so for it or for all (``*``).  ``shared`` of the API is the answer
for whoever asks; setting it writes or takes away the policy for all.  There is no second truth beside the rows.
"""

import uuid
from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from cumulet.core.db import Transaction
from cumulet.core.errors import Conflict
from cumulet.core.http import Request
from cumulet.neutron import standard
from cumulet.neutron.tables import floatingips, network_rbacs, ports, routers, subnets

ALL = "*"
_ALL_OF_THEM = sa.true()
PROJECTS = 256
"""For how many of them the expressions are kept that are the same in each of their requests."""
SHARED, EXTERNAL = "access_as_shared", "access_as_external"


@lru_cache(maxsize=PROJECTS)
def open_to(table: sa.Table, project_id: str, action: str = SHARED) -> sa.ColumnElement[bool]:
    """Whether rows of ``table`` are open to this project by a policy."""
    mine = sa.and_(network_rbacs.c.object_id == table.c.id, network_rbacs.c.action == action)
    return sa.exists().where(mine, network_rbacs.c.target.in_([ALL, project_id]))


@lru_cache(maxsize=PROJECTS)
def with_shared(table: sa.Table, project_id: str) -> sa.Select[Any]:
    """Rows of ``table`` with ``shared`` as this project sees it."""
    return sa.select(table, open_to(table, project_id).label("shared"))


@lru_cache(maxsize=PROJECTS)
def usable_by(table: sa.Table, project_id: str) -> sa.ColumnElement[bool]:
    """What the project has, and what is open to it in any way."""
    mine = sa.exists().where(network_rbacs.c.object_id == table.c.id, network_rbacs.c.target.in_([ALL, project_id]))
    return sa.or_(table.c.project_id == project_id, mine)


@lru_cache(maxsize=PROJECTS)
def usable_one(table: sa.Table, project_id: str, every: bool) -> sa.Select[Any]:
    """The row whose ``id`` is a parameter, as the project sees it, if it may use it or may use ``every``."""
    one = with_shared(table, project_id).where(table.c.id == sa.bindparam("id"))
    return one if every else one.where(usable_by(table, project_id))


def visible(request: Request, table: sa.Table) -> sa.ColumnElement[bool]:
    """What the caller may use; all for an administrator and for services."""
    return _ALL_OF_THEM if standard.sees_all(request) else usable_by(table, standard.mine(request))


def share_with_all(
    tx: Transaction, kind: str, table: sa.Table, thing_id: str, wanted: bool, action: str = SHARED
) -> None:
    """Write the policy for all, or take it away."""
    this = sa.and_(network_rbacs.c.object_id == thing_id, network_rbacs.c.action == action)
    if not wanted:
        tx.write(sa.delete(network_rbacs).where(this, network_rbacs.c.target == ALL))
    elif not tx.find(sa.select(network_rbacs.c.id).where(this, network_rbacs.c.target == ALL)):
        project_id = str(tx.value(sa.select(table.c.project_id).where(table.c.id == thing_id)))
        tx.write(network_rbacs.insert(), policy_row(project_id, kind, thing_id, action, ALL))


def policy_row(project_id: str, kind: str, thing_id: str, action: str, target: str) -> dict[str, Any]:
    return {
        "id": str(uuid.uuid4()),
        "project_id": project_id,
        "object_type": kind,
        "object_id": thing_id,
        "action": action,
        "target": target,
    }


def forget(tx: Transaction, thing_id: str) -> None:
    """The thing goes, and its policies with it."""
    tx.write(sa.delete(network_rbacs).where(network_rbacs.c.object_id == thing_id))


def targets(tx: Transaction, thing_id: str, action: str = SHARED, besides: str = "") -> set[str]:
    """Whom the thing is open to, but for the policy ``besides``."""
    mine = sa.and_(network_rbacs.c.object_id == thing_id, network_rbacs.c.action == action)
    return {row.target for row in tx.all(sa.select(network_rbacs).where(mine)) if row.id != besides}


def shared_ones(tx: Transaction, request: Request, ids: Iterable[str]) -> set[str]:
    """Which of these things are shared with the caller's project."""
    return set(standard.related(tx, _shared_with(standard.mine(request)), network_rbacs.c.object_id, ids))


@lru_cache(maxsize=PROJECTS)
def _shared_with(project_id: str) -> sa.Select[Any]:
    return sa.select(network_rbacs.c.object_id).where(
        network_rbacs.c.action == SHARED, network_rbacs.c.target.in_([ALL, project_id])
    )


def used_by_others(tx: Transaction, network: Any, left: Collection[str]) -> bool:
    """Whether projects use the network that may do so no more when it is shared with ``left`` only."""
    if ALL in left:
        return False
    allowed = ["", network.project_id, *left]
    port = sa.select(ports.c.id).where(ports.c.network_id == network.id, ports.c.project_id.not_in(allowed))
    subnet = sa.select(subnets.c.id).where(subnets.c.network_id == network.id, subnets.c.project_id.not_in(allowed))
    return bool(tx.find(port) or tx.find(subnet))


def used_as_external(tx: Transaction, network: Any, left: Collection[str]) -> bool:
    """Whether gateways or floating IPs of projects that ``left`` does not hold are on the external network."""
    if ALL in left:
        return False
    allowed = ["", network.project_id, *left]
    gateway = (
        sa.select(routers.c.id)
        .join(ports, ports.c.id == routers.c.gateway_port_id)
        .where(ports.c.network_id == network.id, routers.c.project_id.not_in(allowed))
    )
    floating = sa.select(floatingips.c.id).where(
        floatingips.c.floating_network_id == network.id, floatingips.c.project_id.not_in(allowed)
    )
    return bool(tx.find(gateway) or tx.find(floating))


def still_in_use(network_id: str) -> Conflict:
    return Conflict(
        f"Unable to reconfigure sharing settings for network {network_id}. Multiple tenants are using it.",
        kind="InvalidSharedSetting",
    )
