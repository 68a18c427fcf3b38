"""glance-api and glance-registry in one process, on a database in memory and a store in a temporary directory."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from cumulet.core import config as core_config
from cumulet.core.bus import LocalBus
from cumulet.core.config import Config
from cumulet.core.context import Context
from cumulet.core.controller import ControllerEnv
from cumulet.core.db import Database
from cumulet.core.errors import Unauthorized
from cumulet.core.http import App
from cumulet.core.outbound import Outbound
from cumulet.core.reconcile import Loop
from cumulet.core.secrets import Secrets
from cumulet.glance import app, registry
from cumulet.glance.copies import Copies
from cumulet.glance.imports import Imports
from cumulet.glance.leftovers import Leftovers
from cumulet.glance.peers import Peers
from cumulet.glance.registry_client import InProcessTransport, RegistryClient
from cumulet.glance.store import Store
from cumulet.glance.wiring import Wiring
from tests import databases

SECRETS = Secrets("admin", "of hosts", "of metadata", "of the registry")
CALLERS = {
    "admin": Context(user_id="u0", project_id="ops", roles=frozenset({"admin", "manager", "member", "reader"})),
    "alice": Context(user_id="u1", project_id="blue", roles=frozenset({"member", "reader"})),
    "amy": Context(user_id="u2", project_id="blue", roles=frozenset({"reader"})),
    "bob": Context(user_id="u3", project_id="red", roles=frozenset({"member", "reader"})),
    "nobody": Context(user_id="u4"),
}
PATCH = "application/openstack-images-v2.1-json-patch"


def authenticate(token: str) -> Context:
    try:
        return CALLERS[token]
    except KeyError:
        raise Unauthorized("The request you have made requires authentication.") from None


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


Body = bytes | Iterable[bytes]


async def ask(
    application: App,
    method: str,
    path: str,
    body: Body = b"",
    headers: Mapping[str, str] | None = None,
    sink: Callable[[bytes], None] | None = None,
    disconnect: bool = False,
) -> Answer:
    """One request through the ASGI door.  ``disconnect``: the client goes away after what it sent."""
    pieces = iter([body] if isinstance(body, bytes) else body)
    path, _, query = path.partition("?")
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(k.lower().encode(), v.encode()) for k, v in (headers or {}).items()],
        "client": ("127.0.0.1", 1),
    }
    got: list[bytes] = []
    answer = Answer(0, {}, b"")

    async def receive() -> Any:
        await asyncio.sleep(0)
        for piece in pieces:
            return {"type": "http.request", "body": piece, "more_body": True}
        if disconnect:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {k.decode().lower(): v.decode() for k, v in message["headers"]}
        else:
            (sink or got.append)(message.get("body", b""))

    await application(scope, receive, send)
    answer.body = b"".join(got)
    return answer


@dataclass
class Glance:
    """What a test works with."""

    api: App
    registry: App
    client: RegistryClient
    transport: InProcessTransport
    store: Store
    directory: Path
    db: Database
    bus: LocalBus
    config: Config
    loop: Loop[Any]
    imports: Loop[Any]
    copies: Loop[Any]

    def call(self, who: str, method: str, url: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        given = {"X-Auth-Token": who, **{k.replace("_", "-"): v for k, v in headers.items()}}
        status, data, _ = self.api.call(method, url, body, given)
        return status, data.decode() if isinstance(data, bytes) else data

    def create(self, who: str = "alice", **values: Any) -> dict[str, Any]:
        image = {"name": "an image", "disk_format": "raw", "container_format": "bare", **values}
        status, document = self.call(who, "POST", "/v2/images", image)
        assert status == 201, document
        created: dict[str, Any] = document
        return created

    def patch(self, who: str, image_id: str, *steps: dict[str, Any], **headers: str) -> tuple[int, Any]:
        headers = {"Content_Type": PATCH, **headers}
        return self.call(who, "PATCH", f"/v2/images/{image_id}", list(steps), **headers)

    def upload(self, who: str, image_id: str, body: Body, headers: dict[str, str] | None = None) -> Answer:
        given = {"X-Auth-Token": who, "Content-Type": "application/octet-stream", **(headers or {})}
        return asyncio.run(ask(self.api, "PUT", f"/v2/images/{image_id}/file", body, given))

    def download(
        self,
        who: str,
        image_id: str,
        method: str = "GET",
        sink: Callable[[bytes], None] | None = None,
        **headers: str,
    ) -> Answer:
        given = {"X-Auth-Token": who, **headers}
        return asyncio.run(ask(self.api, method, f"/v2/images/{image_id}/file", b"", given, sink))

    def show(self, image_id: str, who: str = "admin") -> dict[str, Any]:
        status, document = self.call(who, "GET", f"/v2/images/{image_id}")
        assert status == 200, document
        shown: dict[str, Any] = document
        return shown

    def active(self, who: str = "alice", data: bytes = b"some data", **values: Any) -> dict[str, Any]:
        image = self.create(who, **values)
        assert self.upload(who, image["id"], data).status == 204
        return self.show(image["id"])

    def files(self) -> list[str]:
        return sorted(path.name for path in self.directory.iterdir())

    def stage(self, who: str, image_id: str, body: Body) -> Answer:
        given = {"X-Auth-Token": who, "Content-Type": "application/octet-stream"}
        return asyncio.run(ask(self.api, "PUT", f"/v2/images/{image_id}/stage", body, given))

    def order_import(self, who: str, image_id: str, name: str = "glance-direct", **method: Any) -> tuple[int, Any]:
        body = {"method": {"name": name, **method}}
        return self.call(who, "POST", f"/v2/images/{image_id}/import", body)

    def work(self) -> None:
        """One full pass of each loop."""
        for loop in (self.imports, self.loop):
            loop.resync()
            loop.run_once()

    def clean(self) -> None:
        """One full pass of the loop."""
        self.loop.resync()
        self.loop.run_once()


def make_env(db: Database, bus: LocalBus, config: Config) -> ControllerEnv:
    return ControllerEnv(config, db, bus, SECRETS, authenticate)


def make_glance(
    db: Database,
    bus: LocalBus,
    config: Config,
    store: Store,
    directory: Path,
    outbound: Outbound | None = None,
    peers: Peers | None = None,
) -> Glance:
    """Of the node that ``config`` names.  ``peers``: the other controllers."""
    env = make_env(db, bus, config)
    registry_app = registry.build_app(env)
    transport = InProcessTransport(registry_app)
    client = RegistryClient(transport, SECRETS.registry_secret)
    wiring = Wiring(client, store, config.node.name, SECRETS.host_secret, idle_seconds=5, renew_seconds=0)
    wiring = replace(wiring, outbound=outbound or Outbound(refuse_all), peers=peers or Peers())
    store.prepare()
    loop = Loop(Leftovers(client, store, config.node.name).reconciler(30))
    imports = Loop(Imports(wiring, config, workers=1).reconciler(30))
    copies = Loop(Copies(wiring, config.images.largest_bytes).reconciler(30))
    for each in (loop, imports, copies):
        each.listen(bus)
    api = app.build_app(env, wiring)
    return Glance(api, registry_app, client, transport, store, directory, db, bus, config, loop, imports, copies)


def refuse_all(host: str, port: int) -> list[str]:
    """No test asks the real world."""
    return []


def make_config(directory: Path) -> Config:
    config = core_config.load(directory / "none.toml")
    config.node.name = "node-1"
    config.node.state_dir = str(directory)
    return config


def glance_in(directory: Path, outbound: Outbound | None = None) -> Glance:
    """A whole glance that keeps its images below ``directory`` and its metadata in memory."""
    bus = LocalBus()
    db = Database(databases.url(), bus)
    databases.make_tables(db.engine)
    files = directory / "images"
    return make_glance(db, bus, make_config(directory), Store(files), files, outbound)
