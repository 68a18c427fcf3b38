"""The cloud's own APIs, as the command line calls them: as its administrator, by name, with few words."""

import re
import time
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlencode

import msgspec

from cumulet.core import certificates, secrets
from cumulet.core.client import connect
from cumulet.core.config import Config
from cumulet.core.errors import ApiError
from cumulet.services import SERVICES

Json = dict[str, Any]
T = TypeVar("T")
SECONDS, UPLOAD_SECONDS = 30.0, 300.0
ID = re.compile(r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}")


class Refused(ApiError):
    """An API said no, or did not what was waited for: its status (0: none) and words."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Cloud:
    """The administrator's session, in a project of the default domain.

    Services are named by their type in the catalogue.
    """

    def __init__(self, config: Config, project: str = "admin") -> None:
        self._config, self._project = config, project
        self._places = {
            kind: (_reachable(config.api.bind), service.port, path)
            for service in SERVICES
            for kind, _, path in service.catalog
        }
        self._password = secrets.load(config.etc).admin_password
        self._token = ""
        self._trust = certificates.trust(config)

    def login(self) -> None:
        user = {"name": "admin", "domain": {"id": "default"}, "password": self._password}
        scope = {"project": {"name": self._project, "domain": {"id": "default"}}}
        body = {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}}
        try:
            response = self._send("POST", "identity", "/auth/tokens", body)
        except Refused as error:
            if error.status != 401:
                raise
            place = secrets.path(self._config.etc)
            text = f"admin cannot log in with the password in {place}: if it was changed, write the new one there"
            raise Refused(401, text) from error
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
        if service in ("image", "network"):
            things = self.get(service, f"{path}?{urlencode({**also, 'name': name})}")[key]
            if not things and ID.fullmatch(name):
                things = self._shown(service, f"{path}/{name}", key)
        else:
            things = self.get(service, f"{path}?{urlencode(also)}" if also else path)[key]
        unwrapped = [thing.get("keypair", thing) for thing in things]
        return next((thing for thing in unwrapped if name in (thing.get("id"), thing.get("name"))), None)

    def _shown(self, service: str, path: str, key: str) -> list[Json]:
        """The one thing at ``path``, if there is one.  glance shows it bare, the others below its kind."""
        try:
            found = self.get(service, path)
        except Refused as error:
            if error.status == 404:
                return []
            raise
        return [found.get(key.removesuffix("s"), found)]

    def ensure(self, service: str, path: str, name: str, make: Callable[[], Json]) -> Json:
        """The thing with this name, made by ``make`` if there is none.  ``make`` gives the body to POST.

        Somebody else may make it between the look and the POST: then it is there at a second look.
        """
        found = self.find(service, path, name)
        if found is not None:
            return found
        try:
            answer = self.post(service, path, make())
        except Refused as error:
            made = self.find(service, path, name) if error.status == 409 else None
            if made is None:
                raise
            return made
        return next(iter(answer.values())) if len(answer) == 1 else answer

    def _ask(self, method: str, service: str, path: str, body: Any = None) -> Json:
        if not self._token:
            self.login()
        return self._send(method, service, path, body)[0]

    def _send(self, method: str, service: str, path: str, body: Any) -> tuple[Json, Any]:
        host, port, prefix = self._places[service]
        seconds = UPLOAD_SECONDS if hasattr(body, "read") else SECONDS
        connection = connect(host, port, self._trust, seconds)
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
            raise Refused(0, f"{service} does not answer on {host}:{port}: {error.strerror or error}") from error
        finally:
            connection.close()
        if response.status >= 400:
            raise Refused(response.status, _words(raw, f"{method} {path}: {response.status}"))
        return (msgspec.json.decode(raw) if raw[:1] in b"{[" and raw else {}), response.headers


def _reachable(bind: str) -> str:
    """Where to call who listens there: every address is this node's."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(bind, bind)


def _words(raw: bytes, otherwise: str) -> str:
    """The message in an error's body, whatever the project's format."""
    try:
        document = msgspec.json.decode(raw)
        inner = next(iter(document.values()))
        return str(inner.get("message", inner)) if isinstance(inner, dict) else str(inner)
    except (msgspec.DecodeError, StopIteration, AttributeError):
        return f"{otherwise} {raw[:200].decode(errors='replace')}"


def wait(what: str, seconds: float, look: Callable[[], tuple[T | None, str]]) -> T:
    """Poll ``look`` until it gives a thing; shows what it waits for.  ``Refused`` when time is up."""
    deadline, shown = time.monotonic() + seconds, ""
    while True:
        found, state = look()
        if found is not None:
            return found
        if state != shown:
            print(f"  {what}: {state}", flush=True)
            shown = state
        if time.monotonic() > deadline:
            raise Refused(0, f"{what}: still {shown} after {seconds:.0f} s; 'cumulet why' tells what it waits for")
        time.sleep(0.1)
