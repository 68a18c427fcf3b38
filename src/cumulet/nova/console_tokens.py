"""How nova-api and nova-novncproxy ask nova-consoleauth; each shows a token of its own that no host has.

A console's token is only ever in the body of these requests, never in a URL that a log could keep.
"""

from typing import TypeVar

from msgspec import Struct

from cumulet.core import certificates
from cumulet.core.client import Controller
from cumulet.core.config import Config
from cumulet.core.errors import Retry, Terminal, Unavailable
from cumulet.core.secrets import service_token

T = TypeVar("T")
NAME, PORT = "nova-consoleauth", 8785
API, PROXY = "nova-api", "nova-novncproxy"
CONSOLE_PORT = 8784
"""Where nova-compute serves consoles, whatever host it is on."""


class Wish(Struct, forbid_unknown_fields=True):
    """A token to the screen of this server."""

    server_id: str


class Shown(Struct, forbid_unknown_fields=True):
    """The token that somebody has shown."""

    token: str


class Issued(Struct):
    token: str


class Place(Struct):
    """Where the screen of a server is to be had."""

    server_id: str
    address: str

    @property
    def path(self) -> str:
        return f"/servers/{self.server_id}/screen"


class Screen(Place):
    """A place, and how the host and who comes to it know each other (``console_tickets``)."""

    host: str
    ticket: str
    proof: str


class Found(Struct):
    place: Place | None = None


class Taken(Struct):
    screen: Screen | None = None


class ConsoleTokens:
    """nova-consoleauth's operations.  Unavailable if it does not answer."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    def issue(self, server_id: str) -> str:
        """A new token; empty if the server has no screen now."""
        return self._ask("/tokens", Wish(server_id), Issued).token

    def find(self, token: str) -> Place | None:
        """Where the token leads to.  It stays good."""
        return self._ask("/tokens/find", Shown(token), Found).place

    def take(self, token: str) -> Screen | None:
        """The screen that the token opens: once, whatever comes of it."""
        return self._ask("/tokens/take", Shown(token), Taken).screen

    def _ask(self, path: str, body: Struct, kind: type[T]) -> T:
        try:
            return self._controller.ask(path, body, kind)
        except (Retry, Terminal) as reason:
            raise Unavailable(f"{NAME} does not answer, try again later") from reason


def reach(config: Config, host_secret: str, service: str) -> ConsoleTokens:
    """nova-consoleauth as ``service`` sees it."""
    urls = config.controller_urls(PORT)
    token = service_token(host_secret, service)
    return ConsoleTokens(Controller(NAME, urls, service, token, certificates.trust(config)))
