"""A controller's database with hosts, a network and servers, as the APIs would have written them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

import cumulet.glance.tables
import cumulet.keystone.tables  # noqa: F401  one metadata for all
from cumulet.core import clock
from cumulet.core.bus import LocalBus
from cumulet.core.config import Config
from cumulet.core.context import Context
from cumulet.core.controller import ControllerEnv
from cumulet.core.db import Database, Transaction
from cumulet.core.errors import Unauthorized
from cumulet.core.heartbeat import Heartbeat, agent_id, beat
from cumulet.core.reconcile import Loop
from cumulet.core.secrets import Secrets, host_token
from cumulet.core.tables import agents, notifications
from cumulet.neutron import public as neutron
from cumulet.neutron.model import PortWish
from cumulet.neutron.tables import networks, port_bindings, subnets
from cumulet.nova.scheduler import Scheduler
from cumulet.nova.tables import server_actions, server_hosts, servers
from cumulet.placement import public as placement
from cumulet.placement.model import DISK_GB, MEMORY_MB, VCPU, Inventory
from tests import databases

ALICE = Context("req-1", user_id="alice", project_id="p1", roles=frozenset({"member"}))
SECRETS = Secrets("admin", "host secret", "metadata secret", "registry secret")
FLAVOR = {
    "id": "1",
    "name": "tiny",
    "vcpus": 1,
    "ram": 512,
    "disk": 1,
    "ephemeral": 0,
    "swap": 0,
    "extra_specs": {},
}
IMAGE = {"id": "image", "disk_format": "qcow2", "size": 1000, "virtual_size": 1 << 30, "sha512": "0" * 128}


class Hints(LocalBus):
    """Remembers what was hinted."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[str, str]] = []

    def hint(self, topic: str, key: str) -> None:
        self.sent.append((topic, key))
        super().hint(topic, key)


class WatchedDatabase(Database):
    """Calls ``after_read`` and ``after_write`` when a transaction is over: the moment for others to interfere."""

    after_read: Callable[[], None] | None = None
    after_write: Callable[[], None] | None = None

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        with super().read() as tx:
            yield tx
        if self.after_read:
            self.after_read()

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        with super().transaction() as tx:
            yield tx
        if self.after_write and tx.wrote:
            self.after_write()


def refuse(token: str) -> Context:
    raise Unauthorized("no users here")


class Cloud:
    def __init__(self) -> None:
        self.bus, self.config = Hints(), Config()
        self.config.compute.overhead_memory_mb = 0
        self.config.compute.reserved_memory_mb = 0
        self.db = WatchedDatabase(databases.url(), self.bus)
        self.statements: list[str] = []
        databases.make_tables(self.db.engine)
        event.listen(self.db.engine, "before_cursor_execute", lambda *a: self.statements.append(a[2]))
        self._add_network()

    @property
    def env(self) -> ControllerEnv:
        return ControllerEnv(self.config, self.db, self.bus, SECRETS, refuse)

    def selects(self) -> list[str]:
        """The queries since ``statements`` was cleared."""
        return [text for text in self.statements if text.lstrip().upper().startswith("SELECT")]

    def host_headers(self, host: str) -> dict[str, str]:
        return {"X-Cumulet-Host": host, "X-Cumulet-Host-Token": host_token(SECRETS.host_secret, host)}

    def add_host(self, name: str, vcpus: int = 4, memory_mb: int = 4096, disk_gb: int = 100) -> None:
        with self.db.transaction() as tx:
            beat(tx, "nova-compute", name, Heartbeat(clock.now(), {}))
            stock = {
                VCPU: Inventory(vcpus, ratio=16.0),
                MEMORY_MB: Inventory(memory_mb),
                DISK_GB: Inventory(disk_gb),
            }
            placement.set_inventory(tx, name, stock)

    def change_agent(self, host: str, **values: Any) -> None:
        with self.db.transaction() as tx:
            tx.write(sa.update(agents).where(agents.c.id == agent_id("nova-compute", host)).values(values))

    def add_server(self, server_id: str, *, with_port: bool = True, **changes: Any) -> str:
        now = clock.now()
        row = {
            "id": server_id,
            "project_id": ALICE.project_id,
            "user_id": ALICE.user_id,
            "name": server_id,
            "hostname": server_id,
            "created_at": now,
            "updated_at": now,
            "flavor": FLAVOR,
            "vcpus": 1,
            "memory_mb": 512,
            "root_gb": 1,
            "image_id": "image",
            "image": IMAGE,
            "reservation_id": "r-1",
            "power": "on",
            "request_id": "req-1",
        }
        with self.db.transaction() as tx:
            tx.write(servers.insert(), {**row, **changes})
            if with_port:
                neutron.create_server_ports(tx, ALICE, server_id, server_id, [PortWish(network_id="net")], [])
        self.add_action(server_id, "create", 1)
        return server_id

    def add_action(self, server_id: str, action: str, generation: int, **changes: Any) -> None:
        row = {
            "server_id": server_id,
            "action": action,
            "request_id": "req-1",
            "user_id": ALICE.user_id,
            "project_id": ALICE.project_id,
            "started_at": clock.now(),
            "generation": generation,
        }
        with self.db.transaction() as tx:
            tx.write(server_actions.insert(), {**row, **changes})

    def order(self, server_id: str, action: str, *, verb: bool = False, **values: Any) -> int:
        """What nova-api does: another wish, one generation on, and a row of history."""
        generation = int(self.server(server_id).generation) + 1
        with self.db.transaction() as tx:
            tx.write(sa.update(servers).where(servers.c.id == server_id).values(generation=generation, **values))
        self.add_action(server_id, action, generation, verb=verb)
        return generation

    def delete(self, server_id: str) -> int:
        return self.order(server_id, "delete", deleted_at=clock.now())

    def place(self, seed: int = 1) -> Loop[Any]:
        loop = Loop(Scheduler(self.db, self.config, seed).reconciler())
        loop.run_once()
        return loop

    def wire(self) -> None:
        """What the L2 agent's report does."""
        with self.db.transaction() as tx:
            tx.write(sa.update(port_bindings).values(wired_generation=port_bindings.c.generation))

    def server(self, server_id: str) -> Any:
        with self.db.read() as tx:
            return tx.find(sa.select(servers).where(servers.c.id == server_id))

    def hosts(self, server_id: str | None = None) -> list[Any]:
        statement = sa.select(server_hosts).order_by(server_hosts.c.server_id)
        if server_id:
            statement = statement.where(server_hosts.c.server_id == server_id)
        return self.all(statement)

    def actions(self, server_id: str) -> list[Any]:
        key = server_actions.c.server_id == server_id
        return self.all(sa.select(server_actions).where(key).order_by(server_actions.c.id))

    def events(self) -> list[str]:
        told = sa.select(notifications).order_by(notifications.c.created_at)
        return [row.event_type for row in self.all(told) if row.event_type.startswith("compute.")]

    def all(self, statement: Any) -> list[Any]:
        with self.db.read() as tx:
            return list(tx.all(statement))

    def _add_network(self) -> None:
        now = clock.now()
        common = {"project_id": "p1", "created_at": now, "updated_at": now}
        network = {"id": "net", "mtu": 1450, "kind": "vxlan", "segmentation_id": 1, **common}
        subnet = {
            "id": "subnet",
            "network_id": "net",
            "ip_version": 4,
            "cidr": "10.0.0.0/16",
            "gateway_ip": "10.0.0.1",
            "pools": [{"start": "10.0.0.2", "end": "10.0.255.254"}],
            **common,
        }
        with self.db.transaction() as tx:
            tx.write(networks.insert(), network)
            tx.write(subnets.insert(), subnet)
