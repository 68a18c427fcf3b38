"""Requests that the cloud makes for a user, to where the user says.

Such a request is made from inside, so it must not reach what only the inside reaches.  The name is resolved once,
every address it has must be a public one, and the connection goes to one of those addresses, not to the name again:
a name that changes its mind in between changes nothing.  Each redirect is a new address to be checked.  Only http
and https on their own ports, no credentials, no proxies, no numbers that some parser takes for an address.  A watch
ends what is too slow, too long or no longer wanted, whatever the other side does.

``Refused`` is the user's fault and may be shown to them; it says nothing of what is inside.
"""

import http.client
import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urljoin, urlsplit

PORTS = {"http": 80, "https": 443}
MOST_REDIRECTS = 5
CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 30.0
LONGEST_SECONDS = 3 * 3600.0
SLOWEST = 64 * 1024
"""Bytes in a second, on the average of a whole transfer after its first minute."""
PIECE = 1 << 20
LONGEST_URL = 2048
_PLAIN = re.compile(r"[!#$%&'()*+,\-./0-9:;=?@A-Z\[\]_a-z~]+")
_NAME = re.compile(r"(?=.{1,253}\.?$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*\.?")
_NUMBER = re.compile(r"(0x[0-9a-f]*|[0-9]+)")
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_UNICAST = ipaddress.ip_network("2000::/3")
_CLOSED = [
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
        "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24",
        "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
        # of IPv6 only 2000::/3 is open at all; in it: Teredo and its like, documentation, 6to4, segment routing
        "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
    )
]  # fmt: skip


class Refused(Exception):
    """The URL, or what is there, is not accepted."""


class Ended(Exception):
    """The transfer was not finished because this service is ending; it may be begun again."""


Resolve = Callable[[str, int], list[str]]
Connect = Callable[[str, int], socket.socket]


def resolve(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    except (OSError, UnicodeError):
        raise Refused(f"the host {host} cannot be found") from None
    return list(dict.fromkeys(str(each[4][0]) for each in found))


def connect(address: str, port: int) -> socket.socket:
    """A connection to this very address, which must not be one of our own."""
    connection = socket.create_connection((address, port), CONNECT_SECONDS)
    peer, own = connection.getpeername()[0], connection.getsockname()[0]
    if not is_public(peer) or peer == own:
        connection.close()
        raise Refused("the address is not public")
    return connection


def is_public(address: str) -> bool:
    """Whether a user may have us talk to ``address``: not if it could be, or be translated to, the inside."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False  # also what has a zone, fe80::1%eth0
    if parsed.version == 6 and parsed not in _UNICAST:
        return (
            False  # loopback, link-local, unique local, mapped and translated (64:ff9b::/96) addresses, multicast
        )
    return not any(parsed in network for network in _CLOSED if network.version == parsed.version)


def check_url(url: str) -> SplitResult:
    """The parts of a URL that may be asked for, as far as its text tells; Refused otherwise."""
    if len(url) > LONGEST_URL or not _PLAIN.fullmatch(url):
        raise Refused("the URL is too long or has characters in it that must be escaped")
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname or ""
    except ValueError:
        raise Refused("the URL cannot be read") from None
    if parts.scheme not in PORTS:
        raise Refused(f"the scheme of the URL must be one of {', '.join(PORTS)}")
    if "@" in parts.netloc:
        raise Refused("the URL must not name a user")
    if port is not None and port not in PORTS.values():
        raise Refused(f"the port of the URL must be one of {', '.join(map(str, PORTS.values()))}")
    _check_host(host, bracketed="[" in parts.netloc)
    return parts


def _check_host(host: str, *, bracketed: bool) -> None:
    last = host.rstrip(".").rpartition(".")[2]
    if bracketed or _NUMBER.fullmatch(last):  # an address; to be one, it must be written as one
        if not is_public(host):
            raise Refused("the address is not public")
    elif not _NAME.fullmatch(host):
        raise Refused("the URL does not name a host")


@dataclass
class Download:
    """An answer that is under way: its bytes, in pieces."""

    response: http.client.HTTPResponse
    watch: "_Watch"
    largest: int
    expected: int | None = None

    def pieces(self) -> Iterator[bytes]:
        received = 0
        while True:
            try:
                piece = self.response.read1(PIECE)
            except (OSError, http.client.HTTPException, ValueError):
                self.watch.check()
                raise Refused("the transfer broke off") from None
            self.watch.check()
            if not piece:
                break
            received += len(piece)
            self.watch.received = received
            if received > self.largest:
                raise Refused(f"there are more than {self.largest} bytes")
            yield piece
        if self.expected not in (None, received):
            raise Refused("the transfer broke off")


@dataclass
class Outbound:
    """``stopping`` ends what is under way.  ``resolve`` and ``connect`` are seams for tests."""

    resolve: Resolve = resolve
    connect: Connect = connect
    stopping: threading.Event = field(default_factory=threading.Event)
    answer_seconds: float = ANSWER_SECONDS
    longest_seconds: float = LONGEST_SECONDS
    slowest: int = SLOWEST
    tls: ssl.SSLContext | None = None  # default: the machine's certificate authorities

    @contextmanager
    def get(self, url: str, largest: int) -> Iterator[Download]:
        """What is at ``url``, at most ``largest`` bytes.  Refused and Ended, here and while it is read."""
        secure = False
        for _ in range(MOST_REDIRECTS + 1):
            parts = check_url(url)
            if secure and parts.scheme != "https":
                raise Refused("a redirect leads from https to http")
            secure = parts.scheme == "https"
            with self._answer(parts) as (response, watch):
                if response.status not in _REDIRECTS:
                    yield self._download(response, watch, largest)
                    return
                url = urljoin(url, response.getheader("Location") or "")
        raise Refused(f"there are more than {MOST_REDIRECTS} redirects")

    def _download(self, response: http.client.HTTPResponse, watch: "_Watch", largest: int) -> Download:
        if response.status != 200:
            raise Refused(f"the server answered {response.status}")
        if (response.getheader("Content-Encoding") or "identity").lower() != "identity":
            raise Refused("the server sends the data encoded")
        if response.length is not None and response.length > largest:
            raise Refused(f"there are more than {largest} bytes")
        watch.begin_transfer()
        return Download(response, watch, largest, response.length)

    @contextmanager
    def _answer(self, parts: SplitResult) -> Iterator[tuple[http.client.HTTPResponse, "_Watch"]]:
        host, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
        connection = http.client.HTTPConnection(host, port)
        raw = self._open(host, port)
        watch = _Watch(raw, self)
        watch.start()
        try:
            try:
                secure = parts.scheme == "https"
                connection.sock = self._secured(raw, host) if secure else raw
                watch.connection = connection.sock
                target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                connection.request("GET", target, headers={"User-Agent": "cumulet", "Accept-Encoding": "identity"})
                response = connection.getresponse()
            except (OSError, http.client.HTTPException, ValueError) as error:
                watch.check()
                raise Refused(f"the server does not answer as it should ({type(error).__name__})") from None
            yield response, watch
        finally:
            watch.done.set()
            watch.join()
            connection.close()
            raw.close()

    def _secured(self, raw: socket.socket, host: str) -> socket.socket:
        self.tls = self.tls or ssl.create_default_context()
        return self.tls.wrap_socket(raw, server_hostname=host)

    def _open(self, host: str, port: int) -> socket.socket:
        """A connection to one of the host's addresses, all of which are public."""
        addresses = self.resolve(host, port)
        if not addresses or not all(is_public(address) for address in addresses):
            raise Refused("the address is not public")
        for address in addresses[:4]:
            if self.stopping.is_set():
                raise Ended
            with suppress(OSError):
                connection = self.connect(address, port)
                connection.settimeout(self.answer_seconds)
                return connection
        raise Refused("the server cannot be reached")


class _Watch(threading.Thread):
    """Cuts a connection when its time is over.  No timeout of a single read could: one byte may come each time."""

    def __init__(self, connection: socket.socket, limits: Outbound) -> None:
        super().__init__(name="outbound-watch", daemon=True)
        self.connection, self._limits = connection, limits
        self.done = threading.Event()
        self.received = 0
        self._since = time.monotonic()
        self._transferring = False
        self._reason: Exception | None = None

    def begin_transfer(self) -> None:
        self._since, self._transferring = time.monotonic(), True

    def check(self) -> None:
        if self._reason:
            raise self._reason

    def run(self) -> None:
        while not self.done.wait(0.2):
            self._reason = self._verdict()
            if self._reason:
                with suppress(OSError):
                    socket.socket.shutdown(self.connection, socket.SHUT_RDWR)
                return

    def _verdict(self) -> Exception | None:
        limits, passed = self._limits, time.monotonic() - self._since
        if limits.stopping.is_set():
            return Ended("the service ends")
        if not self._transferring:
            return Refused("the server does not answer") if passed > limits.answer_seconds else None
        if passed > limits.longest_seconds:
            return Refused("the transfer takes too long")
        grace = 2 * limits.answer_seconds
        return (
            Refused("the transfer is too slow")
            if passed > grace and self.received < passed * limits.slowest
            else None
        )
