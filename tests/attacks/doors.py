"""Every front of the cloud in this process, over one database, with real tokens: what attackers can knock at.

``call`` looks at each answer as it goes by: whoever asked and whatever came of it, no answer may hold a path of
the store, a secret of the cloud or a piece of a traceback, and none may be a 500.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from cumulet.core import clock
from cumulet.core.bus import LocalBus
from cumulet.core.config import Config, Identity, Node
from cumulet.core.controller import ControllerEnv
from cumulet.core.db import Database
from cumulet.core.heartbeat import Heartbeat, beat
from cumulet.core.http import App, Route
from cumulet.core.secrets import Secrets, host_token
from cumulet.glance import app as glance
from cumulet.glance import registry
from cumulet.glance.registry_client import InProcessTransport, RegistryClient
from cumulet.glance.store import Store
from cumulet.glance.wiring import Wiring
from cumulet.keystone import app as keystone
from cumulet.keystone.model import CatalogEntry
from cumulet.keystone.public import bootstrap, build_authenticator
from cumulet.neutron import app as neutron
from cumulet.nova import app as nova
from cumulet.nova import conductor, consoleauth, scheduler
from cumulet.nova import hosts as nova_hosts
from cumulet.nova import metadata as nova_metadata
from cumulet.nova.console_tokens import API
from cumulet.nova.model import Seen
from cumulet.placement import public as placement
from cumulet.placement.model import DISK_GB, MEMORY_MB, VCPU, Inventory
from tests import databases
from tests.glance.rig import ask
from tests.nova.consoles import to_consoleauth

SECRETS = Secrets(*(f"s3cret-of-{name}" for name in Secrets.__struct_fields__))
PASSWORD = "p4ssword-canary"
CATALOG = (
    CatalogEntry("identity", "keystone", "http://cloud:5000/v3"),
    CatalogEntry("compute", "nova", "http://cloud:8774/v2.1"),
)
PEOPLE = {
    "mona": ("red", "manager"),
    "alice": ("red", "member"),
    "rita": ("red", "reader"),
    "bob": ("blue", "member"),
}
INSIDE = ("Traceback", "sqlalchemy", "sqlite3", "OperationalError", "IntegrityError", 'File "', "site-packages")
GIB = 1 << 30


class Doors:
    """``doors.call("alice", "nova-api", "GET", "/v2.1/servers")``: status, body, headers."""

    def __init__(self, place: Path, url: str = "", database: type[Database] = Database) -> None:
        self.place, self.bus = place, LocalBus()
        node = Node(
            name="h1", state_dir=str(place / "state"), run_dir=str(place / "run"), log_dir=str(place / "log")
        )
        self.config = Config(node=node, identity=Identity(bcrypt_rounds=4), etc_dir=str(place / "etc"))
        self.config.compute.overhead_memory_mb = self.config.compute.reserved_memory_mb = 0
        self.db = database(url or databases.url(), self.bus)
        databases.make_tables(self.db.engine)
        with self.db.transaction() as tx:
            bootstrap(tx, self.config, SECRETS.admin_password, CATALOG)
        authenticate = build_authenticator(self.config, self.db)
        self.env = ControllerEnv(self.config, self.db, self.bus, SECRETS, authenticate)
        self.apps = self._apps()
        self.scheduler = scheduler.Scheduler(self.db, self.config, seed=1)
        self.tokens = {"admin": self.login("admin", SECRETS.admin_password, project="admin"), "nobody": ""}
        self.ids: dict[str, str] = {}
        for name, (project, role) in PEOPLE.items():
            self.add_person(name, project, role)
        self.make("keystone", "admin", "/v3/users", "user", name="nora", password=PASSWORD)
        self.tokens["nora"] = self.login("nora", PASSWORD)

    def _apps(self) -> dict[str, App]:
        registry_app = registry.build_app(self.env)
        store = Store(self.config.state / "images")
        store.prepare()
        client = RegistryClient(InProcessTransport(registry_app), SECRETS.registry_secret)
        wiring = Wiring(client, store, "h1", SECRETS.host_secret)
        console_app = consoleauth.build_app(self.env)
        console_tokens = to_consoleauth(console_app, API, SECRETS.host_secret)
        apps = (
            keystone.build(self.env).app, glance.build_app(self.env, wiring), registry_app,
            neutron.build(self.env).app, nova.build_app(self.env, console_tokens=console_tokens),
            nova_metadata.build_app(self.env), conductor.build_app(self.env), console_app,
        )  # fmt: skip
        return {app.name: app for app in apps}

    def routes(self) -> list[tuple[str, Route]]:
        return [(name, route) for name, app in self.apps.items() for route in app.routes]

    # ── asking ───────────────────────────────────────────────────────────────────────────────────────────────

    def headers(self, who: str, **more: str) -> dict[str, str]:
        """Who asks: a person, ``host:h1``, or ``nobody``; ``more`` with underscores for hyphens."""
        named = {name.replace("_", "-"): value for name, value in more.items()}
        if who.startswith("host:"):
            host = who.removeprefix("host:")
            named |= {"X-Cumulet-Host": host, "X-Cumulet-Host-Token": host_token(SECRETS.host_secret, host)}
        elif self.tokens.get(who):
            named["X-Auth-Token"] = self.tokens[who]
        return {"OpenStack-API-Version": "compute 2.100", **named}

    def call(
        self, who: str, app: str, method: str, url: str, body: Any = None, **headers: str
    ) -> tuple[int, Any, Mapping[str, str]]:
        return self.ask(app, method, url, body, self.headers(who, **headers))

    def ask(
        self, app: str, method: str, url: str, body: Any, headers: Mapping[str, str]
    ) -> tuple[int, Any, Mapping[str, str]]:
        target = self.apps[app]
        if ("/file" in url or "/stage" in url) and app == "glance-api":  # bytes stream: only the real door has that
            raw = body if isinstance(body, bytes) else b"" if body is None else msgspec.json.encode(body)
            answer = asyncio.run(ask(target, method, url, raw, headers))
            status, data, sent = answer.status, answer.body, answer.headers
        else:
            status, data, sent = target.call(method, url, body, headers)  # type: ignore[assignment]
        self._look(f"{method} {app} {url}", status, data, sent)
        return status, data, sent

    def _look(self, what: str, status: int, data: Any, headers: Mapping[str, str]) -> None:
        """IMG-9, API-5: nothing of the inside is in any answer."""
        said = f"{data!r} {dict(headers)!r}"
        assert status not in (500, 502), (what, said)
        for secret in (str(self.place), *INSIDE, *(getattr(SECRETS, name) for name in SECRETS.__struct_fields__)):
            assert secret not in said, (what, secret, said)

    def good(self, who: str, app: str, method: str, url: str, body: Any = None, **headers: str) -> Any:
        status, data, _ = self.call(who, app, method, url, body, **headers)
        assert status < 300, (method, url, status, data)
        return data

    def make(self, app: str, who: str, url: str, kind: str, **values: Any) -> Any:
        """POST one thing; ``router__external`` for ``router:external``."""
        wish = {name.replace("__", ":"): value for name, value in values.items()}
        return self.good(who, app, "POST", url, {kind: wish})[kind]

    def login(self, name: str, password: str, **scope: str) -> str:
        user = {"name": name, "domain": {"id": "default"}, "password": password}
        auth: dict[str, Any] = {"identity": {"methods": ["password"], "password": {"user": user}}}
        if scope:
            auth["scope"] = {kind: {"name": value, "domain": {"id": "default"}} for kind, value in scope.items()}
        status, data, headers = self.apps["keystone"].call("POST", "/v3/auth/tokens", {"auth": auth})
        assert status == 201, data
        return headers["X-Subject-Token"]

    # ── things ───────────────────────────────────────────────────────────────────────────────────────────────

    def add_person(self, name: str, project: str, role: str) -> None:
        """A user with a role on a project, which is made if it is missing."""
        if project not in self.ids:
            self.ids[project] = self.make("keystone", "admin", "/v3/projects", "project", name=project)["id"]
        self.ids[name] = self.make("keystone", "admin", "/v3/users", "user", name=name, password=PASSWORD)["id"]
        url = f"/v3/projects/{self.ids[project]}/users/{self.ids[name]}/roles/{self.role(role)}"
        self.good("admin", "keystone", "PUT", url)
        self.tokens[name] = self.login(name, PASSWORD, project=project)

    def role(self, name: str) -> str:
        return str(self.good("admin", "keystone", "GET", f"/v3/roles?name={name}")["roles"][0]["id"])

    def image(self, who: str = "alice", data: bytes = b"some data", **values: Any) -> str:
        wish = {"name": "an image", "disk_format": "raw", "container_format": "bare", **values}
        image_id: str = self.good(who, "glance-api", "POST", "/v2/images", wish)["id"]
        kind = {"Content_Type": "application/octet-stream"}
        self.good(who, "glance-api", "PUT", f"/v2/images/{image_id}/file", data, **kind)
        return image_id

    def network(self, who: str = "alice", cidr: str = "10.0.0.0/24", **values: Any) -> tuple[str, str]:
        """A network and its subnet."""
        net = self.make("neutron-server", who, "/v2.0/networks", "network", name="net", **values)["id"]
        wish = {"network_id": net, "ip_version": 4, "cidr": cidr}
        return net, self.make("neutron-server", who, "/v2.0/subnets", "subnet", **wish)["id"]

    def public_network(self) -> str:
        values = {
            "router__external": True,
            "provider__network_type": "flat",
            "provider__physical_network": "public",
        }
        return self.network("admin", "172.24.4.0/24", **values)[0]

    def port(self, who: str, network: str, **values: Any) -> str:
        found: str = self.make("neutron-server", who, "/v2.0/ports", "port", network_id=network, **values)["id"]
        return found

    def flavor(self, name: str = "m1.tiny", **values: Any) -> str:
        wish = {"name": name, "ram": 512, "vcpus": 1, "disk": 1, **values}
        found: str = self.good("admin", "nova-api", "POST", "/v2.1/flavors", {"flavor": wish})["flavor"]["id"]
        return found

    def server(self, who: str = "alice", **wish: Any) -> str:
        """A server with what it needs: an image and a flavor are made where none are named."""
        if "imageRef" not in wish:
            wish["imageRef"] = self.ids.get(f"image of {who}") or self.image(who)
            self.ids[f"image of {who}"] = wish["imageRef"]
        if "flavorRef" not in wish:
            self.ids.setdefault("flavor", "") or self.ids.update(flavor=self.flavor())
            wish["flavorRef"] = self.ids["flavor"]
        body = {"name": "vm", "networks": "none", **wish}
        found: str = self.good(who, "nova-api", "POST", "/v2.1/servers", {"server": body})["server"]["id"]
        return found

    def add_host(self, host: str = "h1") -> None:
        """A host with all its agents alive, and room."""
        inventory = {
            "vcpus": 1000, "memory_mb": 1000000, "disk_gb": 100000, "virt_type": "kvm", "cpu_model": "max",
            "hypervisor_version": 7002022, "address": "127.0.0.2", "details": {},
        }  # fmt: skip
        agents = ("neutron-openvswitch-agent", "neutron-dhcp-agent", "neutron-l3-agent", "neutron-metadata-agent")
        with self.db.transaction() as tx:
            beat(tx, "nova-compute", host, Heartbeat(clock.now(), {"inventory": inventory}))
            for binary in agents:
                beat(tx, binary, host, Heartbeat(clock.now(), {}))
            stock = {VCPU: Inventory(1000), MEMORY_MB: Inventory(1000000), DISK_GB: Inventory(100000)}
            placement.set_inventory(tx, host, stock)

    def run(self, server_id: str, host: str = "h1", power: str = "on") -> None:
        """Place it, if it is not, and let its host say how it is."""
        self.scheduler.place_all(self.scheduler.read())
        with self.db.transaction() as tx:
            generation = nova_hosts.list_intents(tx, host, "")[server_id].generation
            nova_hosts.record(tx, host, {server_id: Seen(generation, power, reached=power == "on")})
