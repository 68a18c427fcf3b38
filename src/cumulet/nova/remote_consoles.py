"""``/servers/{id}/remote-consoles``: a URL at which a browser shows a server's screen and types into it.

The URL holds a token of nova-consoleauth and is all that one needs; it is good once and for some minutes.  There
are VNC consoles in the browser (``novnc``) and no others.
"""

from urllib.parse import quote

from msgspec import field

from cumulet.core.errors import BadRequest, Conflict, NotFound
from cumulet.core.http import Json, Request, Route
from cumulet.core.schema import Strict
from cumulet.nova.console_tokens import CONSOLE_PORT
from cumulet.nova.server_actions import check_placed
from cumulet.nova.servers import get_server

POLICY = "os_compute_api:os-remote-consoles"
TOKENS_POLICY = "os_compute_api:os-console-auth-tokens"
PROTOCOLS = ("vnc", "spice", "rdp", "serial")
TYPES = ("novnc", "xvpvnc", "spice-html5", "rdp-html5", "serial")
VNC_TYPES = ("novnc", "xvpvnc")


class ConsoleKind(Strict):
    protocol: str
    type: str


class CreateConsole(Strict):
    remote_console: ConsoleKind


class VncKind(Strict):
    type: str


class VncConsole(Strict):
    console: VncKind = field(name="os-getVNCConsole")


def create_console(request: Request) -> Json:
    wish: ConsoleKind = request.body.remote_console
    newer, newest = request.version >= (2, 8), request.version >= (2, 99)
    _check("protocol", wish.protocol, (*PROTOCOLS, "mks") if newer else PROTOCOLS)
    _check("type", wish.type, (*TYPES, *(("webmks",) if newer else ()), *(("spice-direct",) if newest else ())))
    url = _open(request, wish.protocol, wish.type)
    return {"remote_console": {"protocol": wish.protocol, "type": wish.type, "url": url}}


def get_vnc_console(request: Request) -> Json:
    """The same, as it was asked for until 2.5."""
    kind = request.body.console.type
    _check("type", kind, VNC_TYPES)
    return {"console": {"type": kind, "url": _open(request, "vnc", kind)}}


def _check(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise BadRequest(
            f"Invalid input for field/attribute {name}. Value: {value[:300]}. "
            f"{value[:300]!r} is not one of {list(known)}",
            kind="ValidationError",
        )


def _open(request: Request, protocol: str, kind: str) -> str:
    """A URL to the screen.  BadRequest for another console than ``novnc``, Conflict for a server that is off."""
    with request.db.read() as tx:
        row = get_server(tx, request, POLICY)
        check_placed(row)
    if protocol != "vnc":
        raise BadRequest(f"Unavailable console type {kind}.", kind="ConsoleTypeUnavailable")
    if kind != "novnc":
        raise BadRequest(f"Invalid console type {kind}", kind="ConsoleTypeInvalid")
    token = request.app.extras.console_tokens.issue(row.id)
    if not token:
        raise Conflict(f"Instance {row.id} is not ready", kind="InstanceNotReady")
    return f"{request.config.console_url}/vnc_lite.html?path={quote(f'?token={token}', safe='')}"


def show_token(request: Request) -> Json:
    """Where a token leads to; until 2.31 that was told of RDP consoles only."""
    place = request.app.extras.console_tokens.find(request.params["token"])
    if place is None:
        raise NotFound("Token not found")
    if request.version < (2, 31):
        raise BadRequest("The requested console type details are not accessible")
    return {
        "console": {
            "instance_uuid": place.server_id,
            "host": place.address,
            "port": CONSOLE_PORT,
            "internal_access_path": place.path,
        }
    }


ROUTES = (
    Route(
        "POST", "/v2.1/servers/{id}/remote-consoles", create_console, POLICY, body=CreateConsole, since=(2, 6)
    ),
    Route(
        "POST", "/v2.1/servers/{id}/action", get_vnc_console, POLICY,
        body=VncConsole, action="os-getVNCConsole", until=(2, 5),
    ),
    Route("GET", "/v2.1/os-console-auth-tokens/{token}", show_token, TOKENS_POLICY, also=(503,), hides=True),
)  # fmt: skip
