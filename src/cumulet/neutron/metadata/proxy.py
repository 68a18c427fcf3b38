"""The HTTP side of the metadata agent: one event loop, a listening socket in each namespace, thousands if need be.

A guest is not trusted: what it sends is read with bounds (size, time, open connections), parsed strictly and
written anew.  Only the header fields named here pass; who asks is said by this process alone, and signed.  The
path goes to nova as it came, and only nova says what exists.

Who asks is known by where the question arrived and from which address; the controller knows whose that is.
"""

import asyncio
import contextlib
import logging
import re
import resource
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from cumulet.core.errors import Retry, Terminal
from cumulet.core.secrets import sign
from cumulet.neutron.model import Owner

LOG = logging.getLogger(__name__)
T = TypeVar("T")
LONGEST_HEAD, LONGEST_BODY, LONGEST_ANSWER = 16 * 1024, 64 * 1024, 1024 * 1024
CONNECT_SECONDS = 3.0
LOOKUPS = 4
PASSED = frozenset(
    {
        "accept",
        "accept-encoding",
        "accept-language",
        "content-type",
        "if-modified-since",
        "if-none-match",
        "user-agent",
        "x-aws-ec2-metadata-token",
        "x-aws-ec2-metadata-token-ttl-seconds",
    }
)
_START = re.compile(r"([A-Z]{1,16}) (/[\x21-\x7e]*) HTTP/1\.[01]")
_FIELD = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}):[ \t]*([\t\x20-\x7e\x80-\xff]*)")
_REASONS = {
    400: "Bad Request",
    404: "Not Found",
    408: "Request Timeout",
    411: "Length Required",
    413: "Request Entity Too Large",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


@dataclass(frozen=True)
class Place:
    """Where guests ask: a network's DHCP namespace or a router's."""

    kind: str  # 'network' or 'router'
    id: str


@dataclass(frozen=True)
class Upstream:
    """Nova's metadata API, and the secret that it shares with this agent."""

    host: str
    port: int
    secret: str
    others: tuple[tuple[str, int], ...] = ()  # asked if the first does not answer
    trust: ssl.SSLContext | None = None  # by HTTPS, if it is there


@dataclass(frozen=True)
class Limits:
    """How long a guest may take for what, and how many connections may be open."""

    request_seconds: float = 10.0
    answer_seconds: float = 30.0
    flush_seconds: float = 5.0
    per_guest: int = 16
    per_namespace: int = 128
    at_all: int = 2048


@dataclass(frozen=True)
class Question:
    """A guest's request, as far as it is believed."""

    method: str
    target: str
    fields: tuple[tuple[str, str], ...]
    length: int


class Refusal(Exception):
    """The guest gets this status and these words."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass
class _Listener:
    mark: int
    servers: list[asyncio.Server]


class Proxy:
    """Runs its event loop in a thread of its own between ``start`` and ``stop``; ``find_owner`` may block."""

    def __init__(
        self, find_owner: Callable[[Place, str], Owner], upstream: Upstream, limits: Limits | None = None
    ) -> None:
        self._find_owner, self._upstream, self._limits = find_owner, upstream, limits or Limits()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="metadata", daemon=True)
        self._lookups = ThreadPoolExecutor(LOOKUPS, thread_name_prefix="owner")
        self._listeners: dict[Place, _Listener] = {}
        self._open: Counter[Place | tuple[Place, str] | None] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # two descriptors per router, none to spare
        self._thread.start()

    def stop(self) -> None:
        for place in list(self._listeners):
            self.close(place)
        self._run(self._finish())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._lookups.shutdown(wait=False, cancel_futures=True)

    def listening(self) -> dict[Place, int]:
        """The mark given with each place's sockets."""
        return {place: listener.mark for place, listener in list(self._listeners.items())}

    def open_connections(self) -> int:
        return self._open[None]

    def listen(self, place: Place, mark: int, sockets: Sequence[socket.socket]) -> None:
        """Answer on these listening sockets, which are the proxy's from now on."""
        self._listeners[place] = _Listener(mark, self._run(self._serve(place, sockets)))

    def close(self, place: Place) -> None:
        """Stop listening there; what is being answered goes on."""
        listener = self._listeners.pop(place)
        for server in listener.servers:
            self._loop.call_soon_threadsafe(server.close)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _serve(self, place: Place, sockets: Sequence[socket.socket]) -> list[asyncio.Server]:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._connected(place, reader, writer)

        return [await asyncio.start_server(connected, sock=one, limit=LONGEST_HEAD) for one in sockets]

    async def _finish(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, place: Place, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        peer: str = str(writer.get_extra_info("peername", ("",))[0]).partition("%")[0]
        counted = (None, place, (place, peer))
        self._tasks.add(task)
        self._open.update(counted)
        try:
            await self._answer(place, peer, reader, writer)
            writer.close()
            async with asyncio.timeout(self._limits.flush_seconds):
                await writer.wait_closed()
        except (OSError, asyncio.CancelledError):
            pass  # the guest went away or does not read, or we go
        finally:
            writer.transport.abort()
            self._tasks.discard(task)
            self._open.subtract(counted)
            self._open += Counter()  # drops the zeros

    async def _answer(
        self, place: Place, peer: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Nova's answer, or why there is none."""
        try:
            self._check_room(place, peer)
            question, body = await _read(reader, self._limits.request_seconds)
            async with asyncio.timeout(self._limits.answer_seconds):
                owner = await self._owner(place, peer)
                await self._forward(request_head(question, peer, owner, self._upstream) + body, writer)
        except asyncio.IncompleteReadError:
            return
        except TimeoutError:
            writer.write(_plain(Refusal(504, "the metadata service does not answer in time")))
        except Refusal as refusal:
            writer.write(_plain(refusal))

    def _check_room(self, place: Place, peer: str) -> None:
        if (
            self._open[None] > self._limits.at_all
            or self._open[place] > self._limits.per_namespace
            or self._open[place, peer] > self._limits.per_guest
        ):
            raise Refusal(503, "too many connections are open")

    async def _owner(self, place: Place, peer: str) -> Owner:
        try:
            owner = await asyncio.get_running_loop().run_in_executor(self._lookups, self._find_owner, place, peer)
        except Retry as error:
            LOG.warning("%s %s: %s", place.kind, place.id, error)
            raise Refusal(503, "it cannot be told now who asks; try again") from error
        except Terminal as error:
            LOG.error("%s %s: %s", place.kind, place.id, error)
            raise Refusal(500, "it cannot be told who asks") from error
        if not owner.device_id:
            raise Refusal(404, f"no server has the address {peer} here")
        return owner

    async def _forward(self, request: bytes, guest: asyncio.StreamWriter) -> None:
        """Ask nova, and pass its answer on piece by piece.  Refusal only if there is not one piece."""
        left = LONGEST_ANSWER
        try:
            reader, writer = await self._reach()
            try:
                writer.write(request)
                while left > 0 and (piece := await reader.read(min(65536, left))):
                    left -= len(piece)
                    guest.write(piece)
                    await guest.drain()
            finally:
                writer.transport.abort()
        except OSError as error:
            if left == LONGEST_ANSWER:
                LOG.warning("nova's metadata API: %s", error)
        except asyncio.CancelledError:
            if left < LONGEST_ANSWER:
                guest.transport.abort()  # no second answer after the beginning of this one
            raise
        if left == LONGEST_ANSWER:
            raise Refusal(503, "the metadata service does not answer; try again")

    async def _reach(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to the first of nova's metadata APIs that takes one."""
        *others, last = (self._upstream.host, self._upstream.port), *self._upstream.others
        for host, port in others:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(CONNECT_SECONDS):
                    return await asyncio.open_connection(host, port, ssl=self._upstream.trust)
        return await asyncio.open_connection(*last, ssl=self._upstream.trust)


async def _read(reader: asyncio.StreamReader, seconds: float) -> tuple[Question, bytes]:
    """A whole request, within the bounds of size and time."""
    try:
        async with asyncio.timeout(seconds):
            question = await read_question(reader)
            return question, await reader.readexactly(question.length)
    except TimeoutError as error:
        raise Refusal(408, f"a request has to come within {seconds:g} seconds") from error
    except asyncio.LimitOverrunError as error:
        raise Refusal(431, f"a request has at most {LONGEST_HEAD} bytes before its body") from error


async def read_question(reader: asyncio.StreamReader) -> Question:
    """The head of a request.  Refusal if it is not exactly what HTTP/1.1 says."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    start, *lines = head[:-4].split("\r\n")
    words = _START.fullmatch(start)
    if not words:
        raise Refusal(400, "the request line is not understood")
    fields = []
    length: str | None = None
    for line in lines:
        field = _FIELD.fullmatch(line)
        if not field:
            raise Refusal(400, "a header field is not understood")
        name, value = field[1].lower(), field[2].strip(" \t")
        if name == "transfer-encoding":
            raise Refusal(411, "a body needs a Content-Length")
        if name == "content-length":
            if length is not None or not re.fullmatch("[0-9]{1,10}", value):
                raise Refusal(400, "the Content-Length is not understood")
            length = value
        if name in PASSED:
            fields.append((name, value))
    if int(length or 0) > LONGEST_BODY:
        raise Refusal(413, f"a body has at most {LONGEST_BODY} bytes")
    return Question(words[1], words[2], tuple(fields), int(length or 0))


def request_head(question: Question, peer: str, owner: Owner, upstream: Upstream) -> bytes:
    """The head of the request to nova: what passes of the guest's, and who it is, signed."""
    ours = [
        ("Host", f"{upstream.host}:{upstream.port}"),
        ("X-Forwarded-For", peer),
        ("X-Instance-ID", owner.device_id),
        ("X-Tenant-ID", owner.project_id),
        ("X-Instance-ID-Signature", sign(upstream.secret, owner.device_id)),
        ("Connection", "close"),
        ("Content-Length", str(question.length)),
    ]
    lines = [f"{question.method} {question.target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in (*ours, *question.fields)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _plain(refusal: Refusal) -> bytes:
    text = f"{refusal}\n".encode()
    head = (
        f"HTTP/1.1 {refusal.status} {_REASONS[refusal.status]}\r\nContent-Type: text/plain; charset=UTF-8\r\n"
        f"Content-Length: {len(text)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + text
