"""nova-api in this process, with people who call it, a network, an image, and hosts that report what they are told.

The scheduler, neutron and the conductor's book-keeping are the real ones; only nova-compute is missing.
"""

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from msgspec.structs import replace
from sqlalchemy import event

import cumulet.keystone.tables  # noqa: F401  (one metadata for all)
from cumulet.core import clock
from cumulet.core.bus import LocalBus
from cumulet.core.config import Config
from cumulet.core.context import Context
from cumulet.core.controller import ControllerEnv
from cumulet.core.db import Database
from cumulet.core.errors import Unauthorized
from cumulet.core.heartbeat import Heartbeat, beat
from cumulet.core.reconcile import Loop
from cumulet.core.secrets import Secrets
from cumulet.core.tables import notifications
from cumulet.glance.tables import images
from cumulet.neutron import app as neutron
from cumulet.nova import app, consoleauth, hosts
from cumulet.nova import metadata as metadata_service
from cumulet.nova.console_tokens import API
from cumulet.nova.model import Seen
from cumulet.nova.scheduler import Scheduler
from cumulet.nova.tables import server_actions, server_hosts, servers
from cumulet.placement import public as placement
from cumulet.placement.model import DISK_GB, MEMORY_MB, VCPU, Inventory
from tests import databases
from tests.nova.consoles import to_consoleauth

SECRETS = Secrets("admin", "host secret", "metadata secret", "registry secret")
MEMBER, READER = frozenset({"member", "reader"}), frozenset({"reader"})
PEOPLE = {
    "admin": Context(user_id="root", project_id="adm", roles=frozenset({"admin", "member", "reader"})),
    "alice": Context(user_id="alice", project_id="red", roles=MEMBER),
    "carol": Context(user_id="carol", project_id="red", roles=MEMBER),
    "rita": Context(user_id="rita", project_id="red", roles=READER),
    "bob": Context(user_id="bob", project_id="blue", roles=MEMBER),
}
GIB = 1 << 30


def authenticate(token: str) -> Context:
    if token not in PEOPLE:
        raise Unauthorized("no such token")
    return PEOPLE[token]


class Cloud:
    """``cloud.call("alice", "GET", "/servers")`` gives status and body; ``good`` and ``refused`` insist."""

    def __init__(self, console_port: int = 1, url: str = "") -> None:
        self.bus, self.config = LocalBus(), Config()
        self.config.etc_dir = "/nonexistent"
        self.config.compute.overhead_memory_mb = self.config.compute.reserved_memory_mb = 0
        self.db = Database(url or databases.url(), self.bus)
        databases.make_tables(self.db.engine)
        env = ControllerEnv(self.config, self.db, self.bus, SECRETS, authenticate)
        self.consoleauth = consoleauth.build_app(env)
        tokens = to_consoleauth(self.consoleauth, API)
        self.app = app.build_app(env, console_port, tokens)
        self.neutron = neutron.build(env).app
        self.metadata = metadata_service.build_app(env)
        self.scheduler: Loop[Any] = Loop(Scheduler(self.db, self.config, seed=1).reconciler())
        self.hints: list[tuple[str, str]] = []
        self.bus.hint = lambda topic, key: self.hints.append((topic, key))  # type: ignore[method-assign]
        self.version = "2.100"
        self.image = self.add_image()
        self.flavor = self.add_flavor("m1.tiny")

    # what users do

    def env_with(self, host_secret: str) -> ControllerEnv:
        """What a service gets that has another secret."""
        return ControllerEnv(
            self.config, self.db, self.bus, replace(SECRETS, host_secret=host_secret), authenticate
        )

    def answer(
        self, who: str, method: str, url: str, body: Any = None, version: str = ""
    ) -> tuple[int, Any, dict[str, str]]:
        path = url if url == "/" else f"/v2.1{url}"
        headers = {"X-Auth-Token": who, "OpenStack-API-Version": f"compute {version or self.version}"}
        status, answer, sent = self.app.call(method, path, body, headers)
        return status, answer, dict(sent)

    def call(self, who: str, method: str, url: str, body: Any = None, version: str = "") -> tuple[int, Any]:
        return self.answer(who, method, url, body, version)[:2]

    def good(self, who: str, method: str, url: str, body: Any = None, version: str = "") -> Any:
        status, answer = self.call(who, method, url, body, version)
        assert status < 300, (status, answer)
        return answer

    def get(self, who: str, url: str, version: str = "") -> Any:
        return self.good(who, "GET", url, version=version)

    def refused(self, who: str, method: str, url: str, body: Any = None, version: str = "") -> tuple[int, str]:
        """The status and the message, in nova's form."""
        status, answer = self.call(who, method, url, body, version)
        assert 400 <= status < 500 or status == 503, (status, answer)
        ((kind, error),) = answer.items()
        assert error["code"] == status, answer
        assert kind == app._KINDS.get(status, "error" if status == 401 else "computeFault")
        return status, error["message"]

    def act(self, who: str, server_id: str, **action: Any) -> None:
        named = {name.replace("os_", "os-"): value for name, value in action.items()}
        self.good(who, "POST", f"/servers/{server_id}/action", named)

    def create(self, who: str = "alice", version: str = "", **wish: Any) -> str:
        """A new server without networks, unless the wish says otherwise: its id."""
        body = {"name": "vm", "imageRef": self.image, "flavorRef": self.flavor, "networks": "none", **wish}
        server_id: str = self.good(who, "POST", "/servers", {"server": body}, version)["server"]["id"]
        return server_id

    def show(self, who: str, server_id: str, version: str = "") -> Any:
        return self.get(who, f"/servers/{server_id}", version)["server"]

    # what there is

    def add_image(self, **changes: Any) -> str:
        now = clock.now()
        row = {
            "id": str(uuid.uuid4()),
            "owner": "red",
            "name": "cirros",
            "visibility": "public",
            "disk_format": "qcow2",
            "container_format": "bare",
            "created_at": now,
            "updated_at": now,
            "attempt": "a",
            "stored_at": now,
            "size": 1000,
            "virtual_size": GIB // 2,
            "checksum": "0" * 32,
            "sha512": "0" * 128,
            **changes,
        }
        with self.db.transaction() as tx:
            tx.write(images.insert(), row)
        return str(row["id"])

    def add_flavor(self, name: str, **values: Any) -> str:
        flavor = {"name": name, "ram": 512, "vcpus": 1, "disk": 1, **values}
        created: str = self.good("admin", "POST", "/flavors", {"flavor": flavor})["flavor"]["id"]
        return created

    def network(self, who: str = "alice", cidr: str = "10.0.0.0/24", name: str = "private", **values: Any) -> str:
        """A network with a subnet: its id."""
        network: str = self._neutron(who, "network", name=name)["id"]
        version = 6 if ":" in cidr else 4
        self._neutron(who, "subnet", network_id=network, ip_version=version, cidr=cidr, **values)
        return network

    def _neutron(self, who: str, kind: str, **values: Any) -> Any:
        status, answer, _ = self.neutron.call(
            "POST", f"/v2.0/{kind.replace('_', '-')}s", {kind: values}, {"X-Auth-Token": who}
        )
        assert status == 201, answer
        return answer[kind]

    # what the cloud does

    def add_host(self, host: str = "h1", vcpus: int = 1000, **details: Any) -> None:
        inventory = {"address": "192.0.2.1", "cpu_model": "max", "hypervisor_version": 7002022, "details": {}}
        with self.db.transaction() as tx:
            beat(tx, "nova-compute", host, Heartbeat(clock.now(), {"inventory": inventory, **details}))
            stock = {VCPU: Inventory(vcpus), MEMORY_MB: Inventory(1000000), DISK_GB: Inventory(100000)}
            placement.set_inventory(tx, host, stock)

    def place(self) -> None:
        """One pass of nova-scheduler."""
        self.scheduler.resync()
        self.scheduler.run_once()

    def report(self, server_id: str, power: str, **seen: Any) -> None:
        """The server's host says how it is; of the present wish unless ``generation`` says otherwise."""
        with self.db.transaction() as tx:
            row = tx.find(sa.select(servers.c.generation).where(servers.c.id == server_id))
            host = tx.value(sa.select(server_hosts.c.host).where(server_hosts.c.server_id == server_id))
            assert row is not None
            report = {"generation": row.generation, "reached": power == "on", **seen}
            hosts.record(tx, host, {server_id: Seen(power=power, **report)})

    def verbs(self, server_id: str) -> tuple[int, ...]:
        """What the host has yet to carry out."""
        waiting = sa.and_(server_actions.c.verb, server_actions.c.finished_at.is_(None))
        statement = sa.select(server_actions.c.id).where(server_actions.c.server_id == server_id, waiting)
        with self.db.read() as tx:
            return tuple(row.id for row in tx.all(statement))

    def running(self, who: str = "alice", **wish: Any) -> str:
        """A server that is on."""
        server_id = self.create(who, **wish)
        self.place()
        self.report(server_id, "on")
        return server_id

    def notified(self, event_type: str) -> list[Any]:
        with self.db.read() as tx:
            statement = sa.select(notifications).where(notifications.c.event_type == event_type)
            return [row.payload for row in tx.all(statement)]

    @contextmanager
    def counting(self) -> Iterator[Callable[[], int]]:
        """How many queries were sent within the block."""
        sent: list[str] = []

        def note(*args: Any) -> None:
            if args[2].lstrip().lower().startswith("select"):
                sent.append(args[2])

        event.listen(self.db.engine, "before_cursor_execute", note)
        try:
            yield lambda: len(sent)
        finally:
            event.remove(self.db.engine, "before_cursor_execute", note)
