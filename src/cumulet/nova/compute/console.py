"""nova-compute's own small API: the tail of a server's console, what it uses, its screen (``screens``), its
files for the host that it moves to (``file_gifts``), and the way in for a guest that moves here as it runs
(``arrivals``).

Who wants the first two shows this host's token, which only the controller can make; both stay on the host until
somebody wants to read them.
"""

import re
from collections.abc import Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from cumulet.core.errors import Retry, Terminal
from cumulet.core.schema import encode
from cumulet.nova.compute.arrivals import Arrivals
from cumulet.nova.compute.file_gifts import Gifts
from cumulet.nova.compute.screens import Screens
from cumulet.nova.model import Diagnostics

Authorized = Callable[[str, str], bool]
SERVER_ID = re.compile(r"[0-9a-zA-Z-]{1,64}")


def console_app(
    authorized: Authorized,
    read_log: Callable[[str], bytes],
    screens: Screens,
    diagnose: Callable[[str], Diagnostics | None] = lambda server_id: None,
    gifts: Gifts | None = None,
    arrivals: Arrivals | None = None,
) -> Starlette:
    """``GET /servers/{id}/console?length=N``: the last ``N`` lines, all there are without ``length``.

    ``GET /servers/{id}/diagnostics``: what the server uses; 404 if it does not run.
    """

    def show_console(request: Request) -> Response:
        length = request.query_params.get("length", "")
        if length and not re.fullmatch(r"-?[0-9]{1,9}", length, re.ASCII):
            return PlainTextResponse(f"not a number of lines: {length!r}", 400)
        log = read_log(request.path_params["id"])
        return Response(last_lines(log, int(length) if length else -1), media_type="application/octet-stream")

    def show_diagnostics(request: Request) -> Response:
        found = diagnose(request.path_params["id"])
        return Response(encode(found), media_type="application/json") if found else PlainTextResponse("off", 404)

    def show_health(request: Request) -> Response:
        return PlainTextResponse("OK")

    routes = [
        Route("/servers/{id}/console", _guarded(authorized, show_console)),
        Route("/servers/{id}/diagnostics", _guarded(authorized, show_diagnostics)),
        Route("/healthcheck", show_health),
    ]
    moving = [*([gifts.route()] if gifts else []), *(arrivals.routes() if arrivals else [])]
    return Starlette(routes=[*routes, screens.route(), *moving])


def _guarded(authorized: Authorized, show: Callable[[Request], Response]) -> Callable[[Request], Response]:
    """``show``, for who has the token and asks for what may be a server."""

    def answer(request: Request) -> Response:
        headers, server_id = request.headers, request.path_params["id"]
        if not authorized(headers.get("x-cumulet-host", ""), headers.get("x-cumulet-host-token", "")):
            return PlainTextResponse("this is not the token of this host", 401)
        if not SERVER_ID.fullmatch(server_id):
            return PlainTextResponse(f"not a server: {server_id!r}", 404)
        try:
            return show(request)
        except (Retry, Terminal) as reason:
            return PlainTextResponse(str(reason), 503)

    return answer


def last_lines(log: bytes, length: int) -> bytes:
    """The last ``length`` lines; all if it is negative.

    Lines are what newlines part, as upstream counts them: the empty one behind the last newline is one, too.
    """
    if length < 0:
        return log
    return b"\n".join(log.split(b"\n")[-length:]) if length else b""
