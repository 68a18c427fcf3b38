"""How glance-api reaches glance-registry: JSON over HTTP on kept connections, each request signed.

The caller's context travels in a signed envelope in the place of a token.  A user's token means nothing to the
registry, and an envelope is good for a minute.  A registry that does not answer is ``Unavailable``: the client
gets a 503 with the reason, and the next request tries again.
"""

import base64
import binascii
import http.client
import select
import socket
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar
from urllib.parse import quote, urlencode

import msgspec
from msgspec.structs import replace

from cumulet.core import errors
from cumulet.core.client import connect
from cumulet.core.context import Context
from cumulet.core.errors import ApiError, Retry, Unauthorized, Unavailable
from cumulet.core.http import App
from cumulet.core.secrets import same, sign
from cumulet.glance.metadef_model import (
    Item,
    ItemChange,
    Namespace,
    NamespaceChange,
    NamespacePage,
    NewNamespace,
)
from cumulet.glance.model import (
    Claim,
    DataState,
    ImportWork,
    Member,
    NewImport,
    Record,
    RecordPage,
    Sent,
    Staged,
    Stored,
    StoredImage,
    Task,
    Usage,
)

T = TypeVar("T")
ENVELOPE_SECONDS = 60
ANSWER_SECONDS = 30.0
SERVICE = Context(roles=frozenset({"admin"}))
"""In whose name glance-api asks when it works for itself or for a host."""
MOVED = "RevisionMoved"
"""The kind of the error that says: somebody else changed the image first."""
_ERRORS = {
    kind.status: kind
    for kind in (errors.BadRequest, errors.Forbidden, errors.NotFound, errors.Conflict, errors.TooLarge)
}


class Transport(Protocol):
    """How a request gets to the registry; raises Unavailable if it does not."""

    def call(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]: ...


class _Envelope(msgspec.Struct):
    context: Context
    at: float


class Failure(msgspec.Struct):
    """The registry's errors on the wire."""

    message: str
    kind: str


def seal(secret: str, context: Context) -> str:
    payload = base64.urlsafe_b64encode(msgspec.json.encode(_Envelope(context, time.time()))).decode()
    return f"{payload}.{sign(secret, f'registry:{payload}')}"


def unseal(secret: str, text: str) -> Context:
    """The context in an envelope; Unauthorized if glance-api did not seal it, or too long ago."""
    payload, _, signature = text.partition(".")
    if not same(signature, sign(secret, f"registry:{payload}")):
        raise Unauthorized("glance-registry serves glance-api only")
    try:
        envelope = msgspec.json.decode(base64.urlsafe_b64decode(payload), type=_Envelope)
    except (binascii.Error, msgspec.DecodeError) as error:
        raise Unauthorized("glance-registry cannot read this envelope") from error
    if abs(time.time() - envelope.at) > ENVELOPE_SECONDS:
        raise Unauthorized("the envelope is out of date; do the nodes' clocks agree?")
    return envelope.context


class RegistryClient:
    """The registry's operations.  Raises the registry's ApiErrors, and Retry where a change lost a race."""

    def __init__(self, transport: Transport, secret: str) -> None:
        self._transport, self._secret = transport, secret

    def create_image(self, context: Context, values: Mapping[str, Any]) -> Record:
        return self._call(context, "POST", "/images", values, Record)

    def list_images(self, context: Context, query: Sequence[tuple[str, str]]) -> RecordPage:
        """The page that the API's query asks for."""
        return self._call(context, "GET", f"/images?{urlencode(query)}", None, RecordPage)

    def get_image(self, context: Context, image_id: str) -> Record:
        return self._call(context, "GET", _path("images", image_id), None, Record)

    def change_image(self, context: Context, record: Record, changes: Mapping[str, Any]) -> Record:
        """``changes`` to the image as it was in ``record``; Retry if it is no longer that."""
        body = {**changes, "revision": record.revision}
        return self._call(context, "PATCH", _path("images", record.id), body, Record)

    def delete_image(self, context: Context, record: Record) -> None:
        self._call(context, "DELETE", f"{_path('images', record.id)}?revision={record.revision}", None, None)

    def claim(self, context: Context, image_id: str, claim: Claim) -> None:
        """Begin an upload.  Conflict if the image has, or is getting, data."""
        self._call(context, "POST", _path("images", image_id, "uploads"), claim, None)

    def renew(self, context: Context, image_id: str, attempt: str) -> None:
        """Say that the upload goes on.  Conflict or NotFound: it is no longer wanted."""
        self._call(context, "POST", _path("images", image_id, "uploads", attempt, "renew"), None, None)

    def activate(self, context: Context, image_id: str, attempt: str, stored: Stored) -> None:
        self._call(context, "POST", _path("images", image_id, "uploads", attempt, "finish"), stored, None)

    def stage(self, context: Context, image_id: str, attempt: str, size: int) -> None:
        """The upload's data is complete and waits for its import."""
        path = _path("images", image_id, "uploads", attempt, "staged")
        self._call(context, "POST", path, Staged(size), None)

    def release(self, context: Context, image_id: str, attempt: str) -> None:
        """End an upload without data; Conflict if its data is the image's.  Only after it may the file go."""
        self._call(context, "DELETE", _path("images", image_id, "uploads", attempt), None, None)

    def list_data(self, image_ids: Sequence[str]) -> list[DataState]:
        """The data's state of these images and of all that are being saved or wait for their data's removal."""
        return self._call(SERVICE, "POST", "/data", list(image_ids), list[DataState])

    def list_stored(self) -> list[StoredImage]:
        """All images that have their data, whoever has it."""
        return self._call(SERVICE, "GET", "/data/stored", None, list[StoredImage])

    def report_gone(self, image_id: str) -> None:
        self._call(SERVICE, "POST", _path("data", image_id, "gone"), None, None)

    def create_import(self, context: Context, image_id: str, wanted: NewImport) -> None:
        """Order an import.  Conflict if the image cannot get data in this way now."""
        self._call(context, "POST", _path("images", image_id, "imports"), wanted, None)

    def list_imports(self) -> list[ImportWork]:
        """All that are not finished."""
        return self._call(SERVICE, "GET", "/imports", None, list[ImportWork])

    def fail_import(self, context: Context, task_id: str, reason: str) -> None:
        """End an import without data; only after it may its file go."""
        self._call(context, "POST", _path("imports", task_id, "failure"), {"reason": reason}, None)

    def list_tasks(self, context: Context, image_id: str = "", task_id: str = "") -> list[Task]:
        """Of one image, or one by its id, or all that the caller may see."""
        query = urlencode({"image_id": image_id, "task_id": task_id})
        return self._call(context, "GET", f"/tasks?{query}", None, list[Task])

    def report_sent(self, context: Context, image_id: str, sent: Sent) -> None:
        self._call(context, "POST", _path("images", image_id, "sent"), sent, None)

    def usage(self, context: Context) -> Usage:
        """Of the caller's project."""
        return self._call(context, "GET", "/usage", None, Usage)

    def list_members(self, context: Context, image_id: str) -> list[Member]:
        return self._call(context, "GET", _path("images", image_id, "members"), None, list[Member])

    def create_member(self, context: Context, image_id: str, member_id: str) -> Member:
        body = {"member_id": member_id}
        return self._call(context, "POST", _path("images", image_id, "members"), body, Member)

    def set_member_status(self, context: Context, image_id: str, member_id: str, status: str) -> Member:
        body = {"member_id": member_id, "status": status}
        return self._call(context, "PUT", _path("images", image_id, "members"), body, Member)

    def delete_member(self, context: Context, image_id: str, member_id: str) -> None:
        query = urlencode({"member_id": member_id})
        self._call(context, "DELETE", f"{_path('images', image_id, 'members')}?{query}", None, None)

    def list_metadefs(self, context: Context, query: Sequence[tuple[str, str]]) -> NamespacePage:
        """The page of namespaces that the API's query asks for."""
        return self._call(context, "GET", f"/metadefs?{urlencode(query)}", None, NamespacePage)

    def list_metadef_types(self, context: Context) -> list[str]:
        return self._call(context, "GET", "/metadefs/types", None, list[str])

    def get_metadef(self, context: Context, name: str) -> Namespace:
        return self._call(context, "GET", _namespace_path("namespace", name), None, Namespace)

    def create_metadef(self, context: Context, wanted: NewNamespace) -> Namespace:
        return self._call(context, "POST", "/metadefs/namespace", wanted, Namespace)

    def change_metadef(self, context: Context, name: str, change: NamespaceChange) -> Namespace:
        return self._call(context, "PUT", _namespace_path("namespace", name), change, Namespace)

    def delete_metadef(self, context: Context, name: str) -> None:
        self._call(context, "DELETE", _namespace_path("namespace", name), None, None)

    def put_metadef_items(self, context: Context, name: str, change: ItemChange) -> list[Item]:
        """All of that kind, as they are then."""
        return self._call(context, "PUT", _namespace_path("items", name), change, list[Item])

    def delete_metadef_items(self, context: Context, name: str, kind: str, item: str | None) -> None:
        """One, or all of a kind."""
        query = {"kind": kind, **({} if item is None else {"name": item})}
        self._call(context, "DELETE", _namespace_path("items", name, **query), None, None)

    def _call(self, context: Context, method: str, path: str, body: Any, kind: type[T] | None) -> T:
        raw = b"" if body is None else msgspec.json.encode(body)
        headers = {"X-Auth-Token": seal(self._secret, _unnamed(context)), "Content-Type": "application/json"}
        if context.request_id:
            headers["X-Openstack-Request-Id"] = context.request_id
        status, data = self._transport.call(method, path, raw, headers)
        if status >= 400:
            raise _failure(status, data)
        if kind is None:
            return None  # type: ignore[return-value]
        return msgspec.json.decode(data, type=kind)


class HttpTransport:
    """HTTP with one kept connection per thread.

    uvicorn closes a connection that was idle for some seconds, so one that is readable before it is used is
    opened anew.  Only a GET is repeated after a failure: what else was sent may have been done.
    """

    def __init__(self, host: str, port: int, trust: ssl.SSLContext | None = None) -> None:
        self._host, self._port, self._trust = host, port, trust
        self._local = threading.local()

    def call(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        try:
            return self._exchange(method, path, body, headers)
        except (OSError, http.client.HTTPException) as error:
            self._connection().close()
            if method != "GET":
                raise _silent(error) from error
        try:
            return self._exchange(method, path, body, headers)
        except (OSError, http.client.HTTPException) as error:
            self._connection().close()
            raise _silent(error) from error

    def _exchange(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        connection = self._connection()
        if connection.sock is not None and _readable(connection.sock):
            connection.close()
        connection.request(method, path, body or None, dict(headers))
        response = connection.getresponse()
        return response.status, response.read()

    def _connection(self) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = connect(self._host, self._port, self._trust, ANSWER_SECONDS)
            self._local.connection = connection
        return connection


@dataclass
class InProcessTransport:
    """To a registry in this process, for tests and the simulated cloud.  ``down``: it does not answer."""

    app: App
    down: bool = False
    calls: list[str] = field(default_factory=list)

    def call(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        self.calls.append(f"{method} {path}")
        if self.down:
            raise Unavailable("glance-registry does not answer: it is down")
        status, data, _ = self.app.call(method, path, body, headers)
        return status, data if isinstance(data, bytes) else msgspec.json.encode(data)


def _readable(sock: socket.socket) -> bool:
    """Whether the other side has closed, or said what nobody asked."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def _path(*parts: str) -> str:
    return "/" + "/".join(quote(part, safe="") for part in parts)


def _namespace_path(what: str, namespace: str, **query: str) -> str:
    return f"/metadefs/{what}?{urlencode({'namespace': namespace, **query})}"


def _unnamed(context: Context) -> Context:
    """Who asks, without what the registry has no use for."""
    return replace(
        context, user_name="", project_name="", token_expires_at="", audit_ids=(), methods=(), delegation=None
    )


def _failure(status: int, data: bytes) -> Exception:
    try:
        failure = msgspec.json.decode(data, type=Failure)
    except msgspec.DecodeError:
        return Unavailable(f"glance-registry answers {status}")
    if failure.kind == MOVED:
        return Retry(failure.message)
    kind: type[ApiError] = _ERRORS.get(status, Unavailable)
    return kind(failure.message, kind=failure.kind)


def _silent(error: Exception) -> Unavailable:
    return Unavailable(f"glance-registry does not answer: {error}")
