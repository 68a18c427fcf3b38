"""A server's files on their way to the host that it moves to: given by one nova-compute, taken by another.

``GET /servers/{id}/files/{name}`` with the ticket that nova-conductor has put into both hosts' intents.  The host
that gives looks into its own intent whether the ticket is good still: it is until the move is over, and then a copy
of the ticket opens nothing.  Only a server that is kept here and off is given away.
"""

import http.client
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from cumulet.core.client import connect_host
from cumulet.core.errors import Retry, Terminal
from cumulet.core.secrets import same
from cumulet.nova.model import Fetch

TICKET = "X-Files-Ticket"
DISK, EPHEMERAL, BASE = "disk", "ephemeral", "base"
SECONDS, CHUNK = 30.0, 1 << 20
Take = Callable[[Fetch, str, str, Callable[[bytes], object]], bool]
"""(where, server, name of the file, where its bytes go): False if there is no such file."""


@dataclass
class Gifts:
    """``ticket_of``: for what ticket a server's files are given now, empty if not; ``find``: the file, if any."""

    ticket_of: Callable[[str], str]
    find: Callable[[str, str], Path | None]

    def route(self) -> Route:
        return Route("/servers/{id}/files/{name}", self.give)

    def give(self, request: Request) -> Response:
        server_id, name = request.path_params["id"], request.path_params["name"]
        try:
            ticket = self.ticket_of(server_id)
            if not ticket or not same(request.headers.get(TICKET, ""), ticket):
                return PlainTextResponse("there is nothing to be had for this ticket", 403)
            path = self.find(server_id, name) if name in (DISK, EPHEMERAL, BASE) else None
        except (Retry, Terminal) as reason:
            return PlainTextResponse(str(reason), 503)
        return FileResponse(path) if path else PlainTextResponse(f"there is no file {name!r}", 404)


def take_file(
    fetch: Fetch,
    server_id: str,
    name: str,
    write: Callable[[bytes], object],
    trust: Callable[[], ssl.SSLContext | None] = lambda: None,
) -> bool:
    """Stream a file from the host that has it; Retry if that breaks off."""
    if not fetch.address:
        raise Retry(f"{fetch.host} has not said where it can be asked")
    connection = connect_host(fetch.host, fetch.address, fetch.port, trust(), SECONDS)
    try:
        connection.request("GET", f"/servers/{server_id}/files/{name}", headers={TICKET: fetch.ticket})
        response = connection.getresponse()
        if response.status == 404:
            return False
        if response.status != 200:
            reason = response.read(300).decode(errors="replace")
            raise Retry(f"{fetch.host} answers {response.status} for {name} of server {server_id}: {reason}")
        while chunk := response.read(CHUNK):
            write(chunk)
        return True
    except (OSError, http.client.HTTPException) as error:
        raise Retry(f"{fetch.host} broke off {name} of server {server_id}: {error}") from error
    finally:
        connection.close()
