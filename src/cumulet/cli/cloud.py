"""The cloud's own APIs, as the command line calls them: as its administrator, by name, with few words."""

import http.client
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from cumulet.core import secrets
from cumulet.core.config import Config
from cumulet.services import SERVICES

Json = dict[str, Any]
T = TypeVar("T")


class Refused(Exception):
    """An API said no: its status and words."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Cloud:
    """The administrator's session.  Services are named by their type in the catalogue."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._places = {
            kind: (config.api.bind, service.port, path) for service in SERVICES for kind, _, path in service.catalog
        }
        self._password = secrets.load(config.etc).admin_password
        self._token = ""

    def login(self) -> None:
        user = {"name": "admin", "domain": {"id": "default"}, "password": self._password}
        scope = {"project": {"name": "admin", "domain": {"id": "default"}}}
        body = {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}}
        response = self._send("POST", "identity", "/auth/tokens", body)
        self._token = response[1]["X-Subject-Token"]

    def get(self, service: str, path: str) -> Json:
        return self._ask("GET", service, path)

    def post(self, service: str, path: str, body: Json) -> Json:
        return self._ask("POST", service, path, body)

    def put(self, service: str, path: str, body: Any) -> Json:
        return self._ask("PUT", service, path, body)

    def delete(self, service: str, path: str) -> None:
        self._ask("DELETE", service, path)

    def find(self, service: str, path: str, name: str, **also: str) -> Json | None:
        """The thing of a collection that has this name (or id), or None."""
        collection = path.removesuffix("/detail").rsplit("/", 1)[-1]
        key = collection.removeprefix("os-").replace("-", "_")
        query = "&".join(f"{k}={quote(v)}" for k, v in also.items())
        things = self.get(service, f"{path}?{query}" if query else path)[key]
        unwrapped = [thing.get("keypair", thing) for thing in things]
        return next((thing for thing in unwrapped if name in (thing.get("id"), thing.get("name"))), None)

    def ensure(self, service: str, path: str, name: str, make: Callable[[], Json]) -> Json:
        """The thing with this name, made by ``make`` if there is none.  ``make`` gives the body to POST."""
        found = self.find(service, path, name)
        if found is None:
            answer = self.post(service, path, make())
            found = next(iter(answer.values())) if len(answer) == 1 else answer
        return found

    def _ask(self, method: str, service: str, path: str, body: Any = None) -> Json:
        if not self._token:
            self.login()
        return self._send(method, service, path, body)[0]

    def _send(self, method: str, service: str, path: str, body: Any) -> tuple[Json, Any]:
        host, port, prefix = self._places[service]
        connection = http.client.HTTPConnection(host, port, timeout=120)
        headers = {"X-Auth-Token": self._token} if self._token else {}
        data = body
        if hasattr(body, "read"):
            headers["Content-Type"] = "application/octet-stream"
        elif body is not None:
            headers["Content-Type"] = "application/json"
            data = msgspec.json.encode(body)
        if service == "compute":
            headers["OpenStack-API-Version"] = "compute 2.67"
        try:
            connection.request(method, prefix + path, data, headers)
            response = connection.getresponse()
            raw = response.read()
        except OSError as error:
            raise Refused(0, f"{service} does not answer on {host}:{port}: {error}") from error
        finally:
            connection.close()
        if response.status >= 400:
            raise Refused(response.status, _words(raw, f"{method} {path}: {response.status}"))
        return (msgspec.json.decode(raw) if raw[:1] in b"{[" and raw else {}), response.headers


def _words(raw: bytes, otherwise: str) -> str:
    """The message in an error's body, whatever the project's format."""
    try:
        document = msgspec.json.decode(raw)
        inner = next(iter(document.values()))
        return str(inner.get("message", inner)) if isinstance(inner, dict) else str(inner)
    except (msgspec.DecodeError, StopIteration, AttributeError):
        return f"{otherwise} {raw[:200].decode(errors='replace')}"


def wait(what: str, seconds: float, look: Callable[[], tuple[T | None, str]]) -> T:
    """Poll ``look`` until it gives a thing; shows what it waits for.  Ends the program when time is up."""
    deadline, shown = time.monotonic() + seconds, ""
    while True:
        found, state = look()
        if found is not None:
            return found
        if state != shown:
            print(f"  {what}: {state}", flush=True)
            shown = state
        if time.monotonic() > deadline:
            sys.exit(f"{what}: still {shown} after {seconds:.0f} s")
        time.sleep(0.1)
