"""A web for tests: one server on loopback that answers for every name and public address."""

import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from cumulet.core.outbound import Outbound

PUBLIC = "93.184.216.34"
Answer = bytes | Callable[[socket.socket], None]


@dataclass
class Web:
    """A server on loopback that the fakes call by any name; what was asked of it, and which addresses."""

    answers: dict[str, Answer] = field(default_factory=dict)
    names: dict[str, list[list[str]]] = field(default_factory=dict)  # what each next look-up gives
    asked: list[str] = field(default_factory=list)
    dialled: list[str] = field(default_factory=list)
    listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))

    def serve(self) -> None:
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.answer, args=(peer,), daemon=True).start()

    def answer(self, peer: socket.socket) -> None:
        with peer:
            head = b""
            while b"\r\n\r\n" not in head and (more := peer.recv(65536)):
                head += more
            target = head.split(b" ")[1].decode("latin-1") if b" " in head else ""
            self.asked.append(head.decode("latin-1"))
            answer = self.answers.get(target, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            try:
                answer(peer) if callable(answer) else peer.sendall(answer)
            except OSError:
                return

    def resolve(self, host: str, port: int) -> list[str]:
        queue = self.names.get(host, [[PUBLIC]])
        return queue.pop(0) if len(queue) > 1 else queue[0]

    def connect(self, address: str, port: int) -> socket.socket:
        self.dialled.append(f"{address}:{port}")
        return socket.create_connection(self.listener.getsockname(), 5)

    def outbound(self, **limits: float) -> Outbound:
        return Outbound(self.resolve, self.connect, **limits)  # type: ignore[arg-type]

    def get(self, url: str, largest: int = 1 << 20, **limits: float) -> bytes:
        with self.outbound(**limits).get(url, largest) as download:
            return b"".join(download.pieces())


def ok(body: bytes, *headers: str) -> bytes:
    lines = ["HTTP/1.1 200 OK", *headers, *([] if headers else [f"Content-Length: {len(body)}"])]
    return "\r\n".join([*lines, "", ""]).encode() + body


def redirect(to: str, status: int = 302) -> bytes:
    return f"HTTP/1.1 {status} Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n".encode()
