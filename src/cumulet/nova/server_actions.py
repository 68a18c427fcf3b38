"""``POST /servers/{id}/action``: start, stop, pause, suspend, reboot, lock, and the console's log.

An action writes a new wish and a row of history; the host does the rest.  What an action may follow on is
upstream's: its 409s are what clients know.
"""

import re
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from msgspec import Struct, field
from sqlalchemy.engine import Row

from cumulet.core import certificates
from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, Conflict, Forbidden, NotFound, Unavailable
from cumulet.core.http import App, Json, Reply, Request, Route
from cumulet.core.policy import Policies
from cumulet.core.schema import UNSET, Strict, UnsetType, given
from cumulet.core.tables import agents
from cumulet.nova import versions
from cumulet.nova.checks import check_description
from cumulet.nova.console_tokens import CONSOLE_PORT, ConsoleTokens
from cumulet.nova.host_calls import ask_host
from cumulet.nova.servers import POLICY, Order, change_server, check_unlocked, get_server, order, record
from cumulet.nova.services import COMPUTE, host_address

_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f]")
_REBOOTABLE = {"SOFT": ("active",), "HARD": ("active", "stopped", "paused", "suspended", "error")}


class Start(Strict):
    start: Any = field(name="os-start")


class Stop(Strict):
    stop: Any = field(name="os-stop")


class Pause(Strict):
    pause: Any


class Unpause(Strict):
    unpause: Any


class Suspend(Strict):
    suspend: Any


class Resume(Strict):
    resume: Any


class RebootKind(Strict):
    type: str


class Reboot(Strict):
    reboot: RebootKind


class LockReason(Strict):
    locked_reason: str | UnsetType = UNSET


class Lock(Strict):
    lock: LockReason | None


class Unlock(Strict):
    unlock: Any


class ConsoleLength(Strict):
    length: int | str | None = None


class ConsoleOutput(Strict):
    output: ConsoleLength = field(name="os-getConsoleOutput")


class Extras(Struct, frozen=True):
    """What nova's API has besides the database.  ``console_port``: a seam for tests."""

    host_secret: str
    image_policies: Policies  # glance's, for compute's old API of images
    network: App  # neutron's API, in this process (``nova.network_proxy``)
    console_tokens: ConsoleTokens
    console_port: int = CONSOLE_PORT


def check_state(row: Row[Any], action: str, vm_states: tuple[str, ...], *, busy: bool = False) -> None:
    """Raise Conflict unless the server is in one of the states, and (unless ``busy``) nothing is under way."""
    attribute, value = "", ""
    if row.task_state in ("deleting", "migrating") or (row.task_state and not busy):
        attribute, value = "task_state", row.task_state
    if row.vm_state not in vm_states:
        attribute, value = "vm_state", row.vm_state
    if attribute:
        raise Conflict(f"Cannot '{action}' instance {row.id} while it is in {attribute} {value}")


def check_placed(row: Row[Any]) -> None:
    if row.host is None:
        raise Conflict(f"Instance {row.id} is not ready", kind="InstanceNotReady")


def start_server(request: Request) -> Reply:
    return _set_power(request, POLICY + "start", "start", ("stopped",), "on")


def stop_server(request: Request) -> Reply:
    return _set_power(request, POLICY + "stop", "stop", ("active", "error"), "off")


def pause_server(request: Request) -> Reply:
    """Let it stand still, in memory."""
    return _set_power(request, PAUSE + "pause", "pause", ("active",), "paused")


def unpause_server(request: Request) -> Reply:
    """Let it go on; also one that its host has paused because a disk failed."""
    return _set_power(request, PAUSE + "unpause", "unpause", ("paused",), "on")


def suspend_server(request: Request) -> Reply:
    """Write its memory to its host's disk and switch it off."""
    return _set_power(request, SUSPEND + "suspend", "suspend", ("active",), "suspended")


def resume_server(request: Request) -> Reply:
    return _set_power(request, SUSPEND + "resume", "resume", ("suspended",), "on")


def _set_power(request: Request, rule: str, action: str, vm_states: tuple[str, ...], power: str) -> Reply:
    with request.db.transaction() as tx:
        row = movable(tx, request, rule)
        check_state(row, action, vm_states)
        order(tx, request, row, Order(action, {"power": power}))
    return Reply()


def reboot_server(request: Request) -> Reply:
    """A soft reboot asks the guest; a hard one pulls the plug, and also starts a server that is off."""
    kind = request.body.reboot.type.upper()
    if kind not in _REBOOTABLE:
        raise BadRequest(f"Invalid input for field/attribute type. Value: {kind[:300]}. It is SOFT or HARD")
    with request.db.transaction() as tx:
        row = movable(tx, request, POLICY + "reboot")
        check_state(row, "reboot", _REBOOTABLE[kind], busy=kind == "HARD")
        if kind == "HARD" and row.launched_at is None:
            raise Conflict(f"Cannot 'reboot' instance {row.id} while it is in vm_state {row.vm_state}")
        order(tx, request, row, Order("reboot", {"power": "on"}, verb=True, params={"type": kind}))
    return Reply()


def movable(tx: Transaction, request: Request, rule: str) -> Row[Any]:
    """The server of the URL, if it is on a host and not locked."""
    row = get_server(tx, request, rule)
    check_unlocked(request, row)
    check_placed(row)
    return row


# ── locks ────────────────────────────────────────────────────────────────────────────────────────────────────


def lock_server(request: Request) -> Reply:
    """Nobody but an administrator changes a locked server."""
    wish = request.body.lock or LockReason()
    versions.check_fields("lock", given(wish), request.version)
    reason = None if wish.locked_reason is UNSET else check_description(wish.locked_reason, "locked_reason")
    with request.db.transaction() as tx:
        row = get_server(tx, request, LOCK + "lock")
        owner = row.project_id == request.context.project_id
        if row.locked and owner:
            return Reply()
        values = {"locked": True, "locked_by": "owner" if owner else "admin", "locked_reason": reason}
        change_server(tx, row, values)
        record(tx, request, row.id, row.project_id, Order("lock"), row.generation, finished=True)
    return Reply()


def unlock_server(request: Request) -> Reply:
    with request.db.transaction() as tx:
        row = get_server(tx, request, LOCK + "unlock")
        owner = row.project_id == request.context.project_id
        override = LOCK + "unlock:unlock_override"
        if row.locked_by == "admin" and owner and not request.allows(override, {"project_id": row.project_id}):
            raise Forbidden(f"Policy doesn't allow {override} to be performed.", kind="PolicyNotAuthorized")
        change_server(tx, row, {"locked": False, "locked_by": None, "locked_reason": None})
        record(tx, request, row.id, row.project_id, Order("unlock"), row.generation, finished=True)
    return Reply()


# ── the console's log ────────────────────────────────────────────────────────────────────────────────────────


def show_console_output(request: Request) -> Json:
    """The end of the serial console's log, fetched from the server's host, where it is kept."""
    length = _length(request.body.output.length)
    with request.db.read() as tx:
        row = get_server(tx, request, "os_compute_api:os-console-output")
        check_placed(row)
        agent = tx.find(sa.select(agents).where(agents.c.binary == COMPUTE, agents.c.host == row.host))
    log = _fetch(request, row.host, host_address(agent), row.id, length)
    return {"output": _UNPRINTABLE.sub("", log.decode(errors="replace"))}


def _length(asked: int | str | None) -> int | None:
    """How many lines, or None for all there are; upstream's -1 says so, too."""
    if asked is None:
        return None
    if not re.fullmatch(r"-1|[0-9]{1,9}", str(asked), re.ASCII):
        raise BadRequest(f"Invalid input for field/attribute length. Value: {str(asked)[:300]}. It is -1 or more")
    return None if int(asked) < 0 else int(asked)


def _fetch(request: Request, host: str, address: str, server_id: str, length: int | None) -> bytes:
    path = f"/servers/{quote(server_id)}/console" + ("" if length is None else f"?length={length}")
    extras, trust = request.app.extras, certificates.trust(request.config)
    status, log = ask_host(extras.host_secret, trust, host, address, extras.console_port, path, server_id)
    if status == 404:
        raise NotFound("Guest does not have a console available.", kind="ConsoleNotAvailable")
    if status != 200:
        raise Unavailable(f"the host of instance {server_id} answers {status} for its console log")
    return log


LOCK = "os_compute_api:os-lock-server:"
PAUSE, SUSPEND = "os_compute_api:os-pause-server:", "os_compute_api:os-suspend-server:"
URL = "/v2.1/servers/{id}/action"
ROUTES = (
    Route("POST", URL, start_server, POLICY + "start", 202, body=Start, action="os-start"),
    Route("POST", URL, stop_server, POLICY + "stop", 202, body=Stop, action="os-stop"),
    Route("POST", URL, pause_server, PAUSE + "pause", 202, body=Pause, action="pause"),
    Route("POST", URL, unpause_server, PAUSE + "unpause", 202, body=Unpause, action="unpause"),
    Route("POST", URL, suspend_server, SUSPEND + "suspend", 202, body=Suspend, action="suspend"),
    Route("POST", URL, resume_server, SUSPEND + "resume", 202, body=Resume, action="resume"),
    Route("POST", URL, reboot_server, POLICY + "reboot", 202, body=Reboot, action="reboot"),
    Route("POST", URL, lock_server, LOCK + "lock", 202, body=Lock, action="lock"),
    Route("POST", URL, unlock_server, LOCK + "unlock", 202, body=Unlock, action="unlock"),
    Route(
        "POST", URL, show_console_output, "os_compute_api:os-console-output",
        body=ConsoleOutput, action="os-getConsoleOutput",
    ),
)  # fmt: skip
