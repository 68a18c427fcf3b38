"""How an agent reaches its controller: HTTP with its host token, one connection per thread, ETags.

Where there are several controllers, the next is tried when one does not answer, and is kept to.  If none does,
that is ``Retry``: the loop touches nothing and asks again later.  No agent opens the database.
"""

import http.client
import logging
import ssl
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from cumulet.core.context import REQUEST_ID
from cumulet.core.errors import Retry, Terminal
from cumulet.core.secrets import same, sign

LOG = logging.getLogger(__name__)
T = TypeVar("T")
SECONDS = 30.0
CONNECT_SECONDS = 5.0
CHUNK = 1 << 20


def connect(host: str, port: int, trust: ssl.SSLContext | None, seconds: float) -> http.client.HTTPConnection:
    """HTTPS if there is somebody to trust; not connected yet."""
    if trust is None:
        return http.client.HTTPConnection(host, port, timeout=seconds)
    return http.client.HTTPSConnection(host, port, timeout=seconds, context=trust)


class HostConnection(http.client.HTTPConnection):
    """HTTPS to a host, which is known by its name, wherever it is."""

    def __init__(self, name: str, address: str, port: int, trust: ssl.SSLContext, seconds: float) -> None:
        super().__init__(address, port, timeout=seconds)
        self._name, self._trust = name, trust

    def connect(self) -> None:
        super().connect()
        self.sock = self._trust.wrap_socket(self.sock, server_hostname=self._name)


def connect_host(
    name: str, address: str, port: int, trust: ssl.SSLContext | None, seconds: float
) -> http.client.HTTPConnection:
    """To what a host listens on for others, at an address as it is told (IPv6 in brackets); not connected yet."""
    bare = address.strip("[]")
    if trust is None:
        return http.client.HTTPConnection(bare, port, timeout=seconds)
    return HostConnection(name, bare, port, trust, seconds)


class Controller:
    """One controller service, e.g. nova-conductor, as the agent of ``host`` sees it."""

    def __init__(
        self,
        service: str,
        urls: str | Sequence[str],
        host: str,
        token: str,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        """``trust``: speak HTTPS, and with whom."""
        self.trust = trust
        self._service, self._host, self._token = service, host, token
        self._urls = [urlsplit(url) for url in ([urls] if isinstance(urls, str) else urls)]
        self._turn = 0  # of ``_urls``: who answered last
        self._local = threading.local()
        self._seen: dict[str, tuple[str, Any]] = {}  # path → ETag and what was decoded under it

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the service, for who speaks to it in a way of its own."""
        return self.addresses[0]

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Of all controllers, who answered last first."""
        turn = self._turn
        return [(url.hostname or "", url.port or 80) for url in (*self._urls[turn:], *self._urls[:turn])]

    def get(self, path: str, kind: type[T]) -> T:
        """The document at ``path`` as ``kind``; the one read before if the controller says it is the same."""
        etag, before = self._seen.get(path, ("", None))
        status, headers, body = self._request("GET", path, None, {"If-None-Match": etag} if etag else {})
        if status == 304:
            return before  # type: ignore[no-any-return]
        value = msgspec.json.decode(body, type=kind)
        if "etag" in headers:
            self._seen[path] = (headers["etag"], value)
        return value

    def get_bytes(self, path: str) -> bytes:
        return self._request("GET", path, None, {})[2]

    def post(self, path: str, body: Any) -> None:
        self._request("POST", path, msgspec.json.encode(body), {"Content-Type": "application/json"})

    def ask(self, path: str, body: Any, kind: type[T]) -> T:
        """What the controller answers to what is posted to it."""
        found = self.tell(path, body, kind)
        if found is None:
            raise Retry(f"{self._service} has no answer for {path}")
        return found

    def tell(self, path: str, body: Any, kind: type[T]) -> T | None:
        """The same, or None if it has nothing to say."""
        raw = self._request("POST", path, msgspec.json.encode(body), {"Content-Type": "application/json"})[2]
        return msgspec.json.decode(raw, type=kind) if raw else None

    def download(self, path: str, write: Any, headers: dict[str, str] | None = None) -> None:
        """Stream the bytes at ``path`` into ``write``, in constant memory, on a connection of its own."""
        connection = self._reach()
        try:
            connection.request("GET", path, headers={**self._headers(), **(headers or {})})
            response = connection.getresponse()
            if response.status != 200:
                self._refused(response.status, response.read(4096), path)
            while chunk := response.read(CHUNK):
                write(chunk)
        except (OSError, http.client.HTTPException) as error:
            raise Retry(f"{self._service} broke off {path}: {error}") from error
        finally:
            connection.close()

    def upload(self, path: str, file: Path, headers: dict[str, str] | None = None) -> None:
        """Stream a file to ``path``, in constant memory, on a connection of its own."""
        connection = self._reach()
        sent = {"Content-Type": "application/octet-stream", "Content-Length": str(file.stat().st_size)}
        try:
            with file.open("rb") as body:
                try:
                    connection.request("PUT", path, body, {**self._headers(), **sent, **(headers or {})})
                except (BrokenPipeError, ConnectionResetError):
                    LOG.info("%s does not want all of %s", self._service, path)  # its answer says why
                response = connection.getresponse()
                answer = response.read(4096)
            if response.status >= 300:
                self._refused(response.status, answer, path)
        except (OSError, http.client.HTTPException) as error:
            raise Retry(f"{self._service} broke off {path}: {error}") from error
        finally:
            connection.close()

    def has_token(self, host: str, token: str) -> bool:
        """Whether somebody shows this host's own token; only the controller and this host have it."""
        return same(f"{host} {token}", f"{self._host} {self._token}")

    def sign(self, text: str) -> str:
        """What only the controller and this host can say of ``text``."""
        return sign(self._token, text)

    def _request(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        """One exchange; a kept connection that has gone stale is opened once more, then the others are tried."""
        for fresh in (False, *[True] * len(self._urls)):
            connection = self._connection(fresh)
            try:
                connection.request(method, path, body, {**self._headers(), **headers})
                response = connection.getresponse()
                data = response.read()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                failure = error
                if fresh:
                    self._turn = (self._turn + 1) % len(self._urls)
                continue
            if response.status >= 400:
                self._refused(response.status, data, path)
            return response.status, {k.lower(): v for k, v in response.getheaders()}, data
        raise Retry(f"{self._service} does not answer: {failure}") from failure

    def _refused(self, status: int, body: bytes, path: str) -> None:
        reason = body[:300].decode(errors="replace")
        if status >= 500 or status in (401, 403, 404, 409):
            raise Retry(f"{self._service} answers {status} for {path}: {reason}")
        raise Terminal(f"{self._service} refuses {path}: {status} {reason}")

    def _headers(self) -> dict[str, str]:
        headers = {"X-Cumulet-Host": self._host, "X-Cumulet-Host-Token": self._token}
        if REQUEST_ID.get():
            headers["X-Openstack-Request-Id"] = REQUEST_ID.get()
        return headers

    def _connection(self, fresh: bool) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None or fresh:
            self._local.connection = None
            connection = self._local.connection = self._reach()
        return connection

    def _reach(self) -> http.client.HTTPConnection:
        """A connection to the first controller that takes one, from who answered last on."""
        failure: OSError | None = None
        first = self._turn
        for number, address in enumerate(self.addresses):
            connection = self._connection_to(*address)
            try:
                connection.connect()
            except OSError as error:
                failure = error
                continue
            connection.sock.settimeout(SECONDS)
            self._turn = (first + number) % len(self._urls)
            return connection
        raise Retry(f"{self._service} does not answer: {failure}") from failure

    def _connection_to(self, host: str, port: int) -> http.client.HTTPConnection:
        """Not yet connected."""
        return connect(host, port, self.trust, CONNECT_SECONDS)
