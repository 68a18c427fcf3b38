"""nova-compute's own small API: the tail of a server's serial console, for nova-api, and its screen (``screens``).

Who wants the log shows this host's token, which only the controller can make; the log stays on the host until
somebody wants to read it.
"""

import re
from collections.abc import Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from cumulet.core.errors import Retry, Terminal
from cumulet.nova.compute.screens import Screens

SERVER_ID = re.compile(r"[0-9a-zA-Z-]{1,64}")


def console_app(
    authorized: Callable[[str, str], bool], read_log: Callable[[str], bytes], screens: Screens
) -> Starlette:
    """``GET /servers/{id}/console?length=N``: the last ``N`` lines, all there are without ``length``."""

    def show_console(request: Request) -> Response:
        headers = request.headers
        if not authorized(headers.get("x-cumulet-host", ""), headers.get("x-cumulet-host-token", "")):
            return PlainTextResponse("this is not the token of this host", 401)
        server_id, length = request.path_params["id"], request.query_params.get("length", "")
        if not SERVER_ID.fullmatch(server_id):
            return PlainTextResponse(f"not a server: {server_id!r}", 404)
        if length and not re.fullmatch(r"-?[0-9]{1,9}", length, re.ASCII):
            return PlainTextResponse(f"not a number of lines: {length!r}", 400)
        try:
            log = read_log(server_id)
        except (Retry, Terminal) as reason:
            return PlainTextResponse(str(reason), 503)
        return Response(last_lines(log, int(length) if length else -1), media_type="application/octet-stream")

    def show_health(request: Request) -> Response:
        return PlainTextResponse("OK")

    routes = [Route("/servers/{id}/console", show_console), Route("/healthcheck", show_health)]
    return Starlette(routes=[*routes, screens.route()])


def last_lines(log: bytes, length: int) -> bytes:
    """The last ``length`` lines; all if it is negative.

    Lines are what newlines part, as upstream counts them: the empty one behind the last newline is one, too.
    """
    if length < 0:
        return log
    return b"\n".join(log.split(b"\n")[-length:]) if length else b""
