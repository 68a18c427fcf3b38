"""A metadata proxy on loopback, an API behind it that notes what it is asked, and who knows whose address it is."""

import contextlib
import http.client
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from cumulet.core.errors import Retry
from cumulet.neutron.metadata.proxy import Limits, Place, Proxy, Upstream
from cumulet.neutron.model import Owner

SECRET, PLACE = "shared", Place("network", "net")
OWNER = Owner("11111111-1111-4111-8111-111111111111", "red")
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\nConnection: close\r\n\r\nami"


class FakeNova:
    """Answers each connection with ``answer``; ``asked`` are the requests as they came."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.answer = ANSWER
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                guest, _ = self._listener.accept()
            except OSError:
                return
            with guest, guest.makefile("rb") as reader:
                head = b""
                while (line := reader.readline()) not in (b"\r\n", b""):
                    head += line
                fields = dict(one.lower().split(": ", 1) for one in head.decode("latin-1").split("\r\n")[1:] if one)
                body = reader.read(int(fields.get("content-length", "0")))
                self.asked.append(head + b"\r\n" + body)
                with contextlib.suppress(OSError):
                    guest.sendall(self.answer)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def fields(self) -> list[tuple[str, str]]:
        """The header fields of the last request."""
        head = self.asked[-1].split(b"\r\n\r\n")[0].decode("latin-1")
        return [
            (name.lower(), value) for name, _, value in (line.partition(": ") for line in head.split("\r\n")[1:])
        ]


@dataclass
class Owners:
    """Whose address is it?  ``away``: nobody can tell now."""

    known: dict[tuple[Place, str], Owner] = field(default_factory=dict)
    away: bool = False

    def find(self, place: Place, ip: str) -> Owner:
        if self.away:
            raise Retry("neutron-server does not answer")
        return self.known.get((place, ip), Owner())


@dataclass
class World:
    nova: FakeNova
    owners: Owners
    proxy: Proxy
    place: Place = PLACE
    port: int = 0

    def listen(self, send_buffer: int = 0) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        if send_buffer:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        listener.setblocking(False)
        self.port = listener.getsockname()[1]
        self.owners.known[self.place, "127.0.0.1"] = OWNER
        self.proxy.listen(self.place, 1, [listener])

    def get(self, target: str = "/latest/meta-data", **fields: str) -> tuple[int, bytes]:
        guest = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with contextlib.closing(guest):
            guest.request("GET", target, headers={name.replace("_", "-"): value for name, value in fields.items()})
            answer = guest.getresponse()
            return answer.status, answer.read()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def send(self, raw: bytes) -> bytes:
        """All that comes back for these bytes."""
        with self.connect() as guest:
            guest.sendall(raw)
            return read_all(guest)


def read_all(guest: socket.socket) -> bytes:
    found = b""
    with contextlib.suppress(ConnectionError):
        while piece := guest.recv(65536):
            found += piece
    return found


@contextlib.contextmanager
def metadata_world(limits: Limits | None = None, second: bool = False) -> Iterator[World]:
    """``second``: nova is the second controller's, and the first does not answer."""
    nova, owners = FakeNova(), Owners()
    place = ("127.0.0.1", nova.port)
    upstream = Upstream("127.0.0.1", 1, SECRET, (place,)) if second else Upstream(*place, SECRET)
    proxy = Proxy(owners.find, upstream, limits)
    proxy.start()
    try:
        yield World(nova, owners, proxy)
    finally:
        proxy.stop()
        nova.close()
