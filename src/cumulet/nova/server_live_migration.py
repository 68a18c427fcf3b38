"""``os-migrateLive``: a server goes to another host as it runs, or as it stands still.

What is known to be wrong is a 400 until 2.33; since 2.34 the order is taken and comes to nothing at once: the
migration ends as ``error``, and the action's fault says why.  ``nova.live_moves`` tells what becomes of the others.
"""

from typing import Any

from msgspec import UNSET, UnsetType, field
from sqlalchemy.engine import Row

from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest
from cumulet.core.http import Reply, Request, Route
from cumulet.core.schema import Strict, given
from cumulet.nova import moves, versions
from cumulet.nova.live_moves import DEAD
from cumulet.nova.model import LIVE
from cumulet.nova.move_scheduler import choose_host, find_move
from cumulet.nova.paging import boolean
from cumulet.nova.server_actions import URL, check_state, movable
from cumulet.nova.server_moves import HostName
from cumulet.nova.servers import Order, order
from cumulet.nova.services import is_up, list_hosts
from cumulet.nova.shared_disks import sharing

MIGRATE_LIVE = "os_compute_api:os-migrate-server:migrate_live"
NOT_SHARED = (
    "{} is not on shared storage: Shared storage live-migration requires either shared storage or boot-from-volume "
    "with no local disks."
)

NOT_LOCAL = "{} is not on local storage: Block migration can not be used with shared storage."


class Wish(Strict):
    host: HostName | None
    block_migration: bool | str
    disk_over_commit: bool | str | UnsetType = UNSET
    force: bool | str | UnsetType = UNSET


class MigrateLive(Strict):
    migrate: Wish = field(name="os-migrateLive")


def migrate_live(request: Request) -> Reply:
    """To the host that an administrator names, or to one that is found."""
    wish: Wish = request.body.migrate
    send, target = _check(request, wish), wish.host
    if target:
        request.enforce(MIGRATE_LIVE + ":host")
    early = request.version < (2, 34)
    with request.db.transaction() as tx:
        row = movable(tx, request, MIGRATE_LIVE)
        check_state(row, "os-migrateLive", ("active", "paused"))
        if target and target not in list_hosts(tx):
            raise BadRequest(f"Compute host {target} could not be found.", kind="ComputeHostNotFound")
        fault = _fault(tx, request, row, target, send)
        order(tx, request, row, Order(LIVE, verb=True))
        moves.begin(tx, request, row, LIVE, row.flavor, target)
        move = find_move(tx, row.id)
        if early and not fault:
            fault = choose_host(tx, request.config, move).decision.fault
        if early and fault:
            raise BadRequest(fault)
        if fault:
            moves.refuse(tx, move, fault)
    return Reply()


def _check(request: Request, wish: Wish) -> bool | None:
    """Whether it is said that the disks are to be sent; None if that is left to the cloud."""
    versions.check_fields("os-migrateLive", given(wish), request.version)
    if request.version < (2, 25):
        if wish.disk_over_commit is UNSET:
            raise BadRequest(
                "Invalid input for field/attribute os-migrateLive. 'disk_over_commit' is a required property",
                kind="ValidationError",
            )
        boolean(wish.disk_over_commit, "disk_over_commit")
    if wish.force is not UNSET and boolean(wish.force, "force") and not wish.host:
        raise BadRequest("Can't force to a non-provided destination")
    if wish.block_migration == "auto" and request.version >= (2, 25):
        return None
    return boolean(wish.block_migration, "block_migration")


def _fault(tx: Transaction, request: Request, row: Row[Any], target: str | None, send: bool | None) -> str:
    """Why it cannot be, as far as that is known already."""
    hosts = list_hosts(tx)
    if target == row.host:
        return f"Unable to migrate instance ({row.id}) to current host ({target})."
    for host in filter(None, (row.host, target)):
        if host not in hosts or not is_up(hosts[host], request.config):
            return DEAD.format(host)
    near = sharing(hosts, row.host)
    if send and near:
        return NOT_LOCAL.format(row.host)
    if (near and target and target not in near) or (send is False and not near):
        return NOT_SHARED.format(row.host)
    return ""


ROUTES = (Route("POST", URL, migrate_live, MIGRATE_LIVE, 202, body=MigrateLive, action="os-migrateLive"),)
