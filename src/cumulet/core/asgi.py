"""HTTP on the wire: a request's parts out of an ASGI scope, its body, and the answer's bytes.

What every request passes through is done here by hand, since it is more work in a framework's general form than
the whole rest of a small request.
"""

import time
from collections.abc import Mapping
from email.utils import formatdate
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from cumulet.core.errors import TooLarge

WITHOUT_BODY = (204, 304)


class Parts(NamedTuple):
    """A request without its body.  Names of headers are in lower case; the last of equal ones counts."""

    method: str
    path: str
    headers: dict[str, str]
    query: list[tuple[str, str]]
    client: str


def parts(scope: Scope) -> Parts:
    raw = scope["query_string"]
    path = scope.get("raw_path", b"").decode("latin-1").split("?")[0] or scope["path"]
    client = scope.get("client")
    return Parts(
        scope["method"],
        unquote(path) if "%" in path else path,
        {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]},
        parse_qsl(raw.decode("latin-1"), keep_blank_values=True, errors="replace") if raw else [],
        client[0] if client else "",
    )


async def read_body(receive: Receive, longest: int) -> bytes:
    """The whole body; TooLarge as soon as it is longer, ClientDisconnect if it ends too early."""
    chunks, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > longest:
            raise TooLarge(f"the body is longer than {longest} bytes")
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def send_answer(send: Send, status: int, headers: Mapping[str, str], body: bytes, kind: str) -> None:
    """An answer whose body is there as a whole; ``kind`` is its content type.  HEAD's may tell a length itself."""
    raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    if status not in WITHOUT_BODY and not any(name == b"content-length" for name, _ in raw):
        raw.append((b"content-length", str(len(body)).encode()))
    if body:
        raw.append((b"content-type", content_type(kind).encode("latin-1")))
    raw.append((b"date", date()))
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


def content_type(kind: str) -> str:
    """Text says in which encoding it is."""
    return f"{kind}; charset=utf-8" if kind.startswith("text/") and "charset=" not in kind.lower() else kind


_today: tuple[int, bytes] = (0, b"")


def date() -> bytes:
    """The time as headers have it, made once a second."""
    global _today
    now = int(time.time())
    if _today[0] != now:
        _today = (now, formatdate(now, usegmt=True).encode())
    return _today[1]
