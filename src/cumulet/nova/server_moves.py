"""``resize``, ``migrate``, ``confirmResize``, ``revertResize`` and ``evacuate``: another flavor, another host.

Each writes down what is wanted and is answered at once; ``nova.moves`` tells what becomes of it.  A resized server
is on trial until its owner confirms it or wants it back.
"""

from typing import Annotated, Any

import sqlalchemy as sa
from msgspec import UNSET, Meta, UnsetType, field
from sqlalchemy.engine import Row

from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, NotFound
from cumulet.core.http import Reply, Request, Route
from cumulet.core.schema import Strict, given
from cumulet.nova import moves, quotas, versions
from cumulet.nova.flavors import get_flavor
from cumulet.nova.paging import boolean
from cumulet.nova.server_actions import URL, check_state, movable
from cumulet.nova.server_create import flavor_copy, make_password
from cumulet.nova.servers import POLICY, Order, check_disk_config, order
from cumulet.nova.services import is_up, list_hosts
from cumulet.nova.shared_disks import sharing
from cumulet.nova.tables import servers

MIGRATE = "os_compute_api:os-migrate-server:migrate"
EVACUATE = "os_compute_api:os-evacuate"
GIB = 1 << 30
HostName = Annotated[str, Meta(min_length=1, max_length=255)]


class NewSize(Strict):
    flavorRef: str | int
    disk_config: str | UnsetType = field(name="OS-DCF:diskConfig", default=UNSET)


class Resize(Strict):
    resize: NewSize


class Target(Strict):
    host: HostName | UnsetType | None = UNSET


class Migrate(Strict):
    migrate: Target | None


class ConfirmResize(Strict):
    confirmResize: Any


class RevertResize(Strict):
    revertResize: Any


class Refuge(Strict):
    host: HostName | UnsetType | None = UNSET
    adminPass: Annotated[str, Meta(max_length=255)] | UnsetType = UNSET
    onSharedStorage: bool | str | UnsetType = UNSET
    force: bool | str | UnsetType = UNSET


class Evacuate(Strict):
    evacuate: Refuge


def resize_server(request: Request) -> Reply:
    """Another flavor, on this host or another one; the server goes off and on again."""
    wish: NewSize = request.body.resize
    columns = {} if wish.disk_config is UNSET else {"disk_config": check_disk_config(wish.disk_config)}
    with request.db.transaction() as tx:
        row = movable(tx, request, POLICY + "resize")
        check_state(row, "resize", ("active", "stopped"))
        flavor = _new_flavor(tx, request, row, wish)
        more = (flavor["vcpus"] - row.vcpus, flavor["ram"] - row.memory_mb)
        if max(more) > 0:
            quotas.check_growth(tx, row.project_id, row.user_id, *more)
        order(tx, request, row, Order("resize", columns))
        moves.begin(tx, request, row, moves.RESIZE, flavor)
    return Reply()


def _new_flavor(tx: Transaction, request: Request, row: Row[Any], wish: NewSize) -> dict[str, Any]:
    try:
        flavor = flavor_copy(get_flavor(tx, request, str(wish.flavorRef).rsplit("/", 1)[-1]))
    except NotFound as error:
        raise BadRequest(error.message, kind=error.kind) from error
    if flavor["id"] == row.flavor["id"]:
        raise BadRequest("When resizing, instances must change flavor!", kind="CannotResizeToSameFlavor")
    why = _too_small(tx, row, flavor)
    if why:
        raise BadRequest(f"Server disk was unable to be resized because: {why}", kind="CannotResizeDisk")
    return flavor


def _too_small(tx: Transaction, row: Row[Any], flavor: dict[str, Any]) -> str:
    """Why a disk of the server cannot become what the flavor says; nothing shrinks."""
    if flavor["disk"] == 0 and row.root_gb:
        return "Resize to zero disk flavor is not allowed."
    image = tx.value(sa.select(servers.c.image).where(servers.c.id == row.id)) or {}
    least = row.root_gb * GIB or image.get("virtual_size", 0)
    shrinks = flavor["disk"] and flavor["disk"] * GIB < least
    if shrinks or flavor["ephemeral"] < row.flavor.get("ephemeral", 0):
        return "Unable to resize disk down."
    return ""


def migrate_server(request: Request) -> Reply:
    """The same flavor on another host, named by an administrator or found; the server goes off and on again."""
    wish: Target = request.body.migrate or Target()
    versions.check_fields("migrate", given(wish), request.version)
    target = wish.host or None
    if target:
        request.enforce(MIGRATE + ":host")
    with request.db.transaction() as tx:
        row = movable(tx, request, MIGRATE)
        check_state(row, "migrate", ("active", "stopped"))
        if target:
            _check_target(tx, request, target)
            if target == row.host:
                why = f"Cannot migrate to the host [{target}] where the server exists."
                raise BadRequest(why, kind="CannotMigrateToSameHost")
        order(tx, request, row, Order("migrate"))
        moves.begin(tx, request, row, moves.MIGRATION, row.flavor, target)
    return Reply()


def _check_target(tx: Transaction, request: Request, target: str) -> None:
    if target not in list_hosts(tx):
        raise BadRequest(f"Compute host {target} could not be found.", kind="ComputeHostNotFound")


def confirm_resize(request: Request) -> Reply:
    with request.db.transaction() as tx:
        row = movable(tx, request, POLICY + "confirm_resize")
        check_state(row, "confirmResize", ("resized",))
        order(tx, request, row, Order("confirmResize", verb=row.move_source == row.move_destination))
        moves.confirm(tx, row)
    return Reply()


def revert_resize(request: Request) -> Reply:
    """Back to the old flavor and host; what was written since is lost."""
    with request.db.transaction() as tx:
        row = movable(tx, request, POLICY + "revert_resize")
        check_state(row, "revertResize", ("resized",))
        stays = row.move_source == row.move_destination
        order(tx, request, row, Order("revertResize", moves.flavor_columns(row.move_old_flavor), verb=stays))
        moves.revert(tx, row)
    return Reply()


def evacuate_server(request: Request) -> Reply:
    """From a host that is dead: made anew elsewhere from its image, with its ports and addresses.

    If the host had its disk on a file system that others have, too, it keeps that.

    An administrator says so, and that the host is dead; should it come back, it destroys what it has of the server.
    """
    wish: Refuge = request.body.evacuate
    versions.check_fields("evacuate", given(wish), request.version)
    shared = None if wish.onSharedStorage is UNSET else boolean(wish.onSharedStorage, "onSharedStorage")
    if shared and wish.adminPass is not UNSET:
        raise BadRequest("admin password can't be changed on existing disk")
    target = wish.host or None
    if wish.force is not UNSET and boolean(wish.force, "force") and not target:
        raise BadRequest("Can't force to a non-provided destination")
    with request.db.transaction() as tx:
        row = movable(tx, request, EVACUATE)
        check_state(row, "evacuate", ("active", "stopped", "error"))
        hosts = list_hosts(tx)
        if target and target not in hosts:
            raise NotFound(f"Compute host {target} not found.", kind="ComputeHostNotFound")
        if target == row.host:
            raise BadRequest("The target host can't be the same one.")
        if row.host in hosts and is_up(hosts[row.host], request.config):
            raise BadRequest(f"Compute service of {row.host} is still in use.", kind="ComputeServiceInUse")
        near = sharing(hosts, row.host)
        if shared is not None and shared != bool(near):
            raise BadRequest("Invalid state of instance files on shared storage")
        if near and target and target not in near:
            raise BadRequest(f"{target} does not have the file system that {row.host} has the server's disks on")
        stopped = request.version >= (2, 95) or row.vm_state == "stopped"
        order(tx, request, row, Order("evacuate", {"power": "off" if stopped else "on"}))
        moves.begin(tx, request, row, moves.EVACUATION, row.flavor, target)
    if request.version >= (2, 14):
        return Reply(status=200)
    if shared:
        return Reply({"adminPass": None}, status=200)
    return Reply({"adminPass": make_password() if wish.adminPass is UNSET else wish.adminPass}, status=200)


ROUTES = (
    Route("POST", URL, resize_server, POLICY + "resize", 202, body=Resize, action="resize"),
    Route("POST", URL, confirm_resize, POLICY + "confirm_resize", 204, body=ConfirmResize, action="confirmResize"),
    Route("POST", URL, revert_resize, POLICY + "revert_resize", 202, body=RevertResize, action="revertResize"),
    Route("POST", URL, migrate_server, MIGRATE, 202, body=Migrate, action="migrate"),
    Route("POST", URL, evacuate_server, EVACUATE, 200, body=Evacuate, action="evacuate"),
)
