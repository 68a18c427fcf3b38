"""A whole cloud in one process, with a clock and a crash button.

Real code all the way down to the host: real APIs, transactions, loops and agents; only the hypervisor, the switch,
dnsmasq and the routers are made of dictionaries (``cumulet.sim``).  Every lasting change, of the database or of a
host, is an *effect*: they are counted, and the process that makes one can die just before or just after it.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa

from cumulet.core import clock as time
from cumulet.core import heartbeat
from cumulet.core.bus import LocalBus
from cumulet.core.config import Config, Console, Node
from cumulet.core.context import Context
from cumulet.core.controller import ControllerEnv
from cumulet.core.db import Database, Transaction
from cumulet.core.errors import Terminal, Unauthorized
from cumulet.core.http import App
from cumulet.core.reconcile import Loop, Reconciler
from cumulet.core.secrets import Secrets, host_token, service_token
from cumulet.core.tables import agents, metadata
from cumulet.glance import tables as glance_tables
from cumulet.keystone import tables as _keystone_tables  # noqa: F401 - part of the schema
from cumulet.neutron import app as neutron
from cumulet.neutron import tables as neutron_tables
from cumulet.neutron.dhcp.agent import DhcpAgent
from cumulet.neutron.l2.agent import L2Agent
from cumulet.neutron.l3.agent import L3Agent
from cumulet.nova import app as nova
from cumulet.nova import conductor, consoleauth, scheduler
from cumulet.nova import tables as nova_tables
from cumulet.nova.compute.agent import ComputeAgent, HttpConductor
from cumulet.nova.console_tokens import API, PROXY, ConsoleTokens
from cumulet.nova.model import Verb
from cumulet.placement import tables as placement_tables
from cumulet.sim.effects import Crash, Effects, Impossible
from cumulet.sim.host import SimHost
from cumulet.sim.hypervisor import SimHypervisor
from cumulet.sim.in_process import InProcess

T = TypeVar("T")
IMAGE = "11111111-1111-4111-8111-111111111111"
OTHER_IMAGE = "22222222-2222-4222-8222-222222222222"
SERVICES: dict[str, Any] = {
    "neutron-server": neutron,
    "nova-scheduler": scheduler,
    "nova-conductor": conductor,
    "nova-consoleauth": consoleauth,
}
"""Controller services with loops; nova-api has none."""
SECRETS = Secrets("admin", "host", "metadata", "registry")
TOKENS = {
    "admin": Context(user_id="root", project_id="p0", roles=frozenset({"admin", "manager", "member", "reader"})),
    "alice": Context(user_id="alice", project_id="p1", roles=frozenset({"member", "reader"})),
    "bob": Context(user_id="bob", project_id="p2", roles=frozenset({"member", "reader"})),
}


class CountedDatabase(Database):
    """A database whose commits are effects.  Signs of life are not: they are no part of a pass."""

    def __init__(self, url: str, bus: LocalBus, effects: Effects) -> None:
        super().__init__(url, bus)
        self._effects, self.writes = effects, 0

    def before_commit(self, tx: Transaction) -> None:
        if tx.wrote:
            self._effects.before("commit")

    def after_commit(self, tx: Transaction) -> None:
        if tx.wrote:
            self.writes += 1
            self._effects.after("commit")


class World:
    """``on_death``: called with the name of a service that died of a host's request; without it, all die."""

    console = ""  # the token of the last console that was asked for
    on_death: Callable[[str], None] | None = None
    dead = ""  # the host whose processes are down

    def __init__(
        self, place: Path, hosts: tuple[str, ...] = ("h1", "h2"), hints: bool = True, url: str = ""
    ) -> None:
        self.effects = Effects()
        self.effects.quiet = True
        self.bus = LocalBus(cut=not hints)
        self.config = Config(
            node=Node(name="h1", state_dir=str(place)),
            console=Console(token_seconds=86400),  # by the real clock, which a world of another day must not feel
            etc_dir=str(place),
        )
        self.now = 0.0
        self.db = CountedDatabase(url or f"sqlite:///{place}/cloud.sqlite", self.bus, self.effects)
        hypervisors: dict[str, SimHypervisor] = {}
        self.hosts = {name: SimHost(name, self.effects, self._upload, hypervisors) for name in hosts}
        self.base: dict[str, str] = {}
        self._furnish()
        self.effects.log.clear()
        self.effects.quiet = False

    # ── processes ────────────────────────────────────────────────────────────────────────────────────────────

    def stop_agents(self, host: str) -> None:
        """All of a host's processes are dead, and its nova-compute is known to be."""
        self.dead = host
        self._force_down(host, True)
        self.boot()

    def start_agents(self) -> None:
        """The dead host's processes come back."""
        dead, self.dead = self.dead, ""
        self._force_down(dead, False)
        self.boot()

    def _force_down(self, host: str, down: bool) -> None:
        quiet, self.effects.quiet = self.effects.quiet, True
        with self.db.transaction() as tx:
            where = sa.and_(agents.c.binary == "nova-compute", agents.c.host == host)
            tx.write(sa.update(agents).where(where).values(forced_down=down))
        self.effects.quiet = quiet

    def boot(self) -> None:
        """(Re)start every process: all memory is lost; the database and the hosts are not."""
        self.bus.clear()
        env = ControllerEnv(self.config, self.db, self.bus, SECRETS, _authenticate)
        services = {name: part.build(env) for name, part in SERVICES.items()}
        consoles: App = services["nova-consoleauth"].app
        self.console_tokens = _to_consoleauth(consoles, PROXY)
        self.nova = nova.build_app(env, console_tokens=_to_consoleauth(consoles, API))
        self.neutron: App = services["neutron-server"].app
        conductor_app: App = services["nova-conductor"].app
        self.loops: list[Loop[Any]] = []
        self.owners: list[str] = []
        self._signs: dict[str, dict[str, Any]] = {}  # host → what its nova-compute tells with its signs of life
        for name, service in services.items():
            self._add(name, service.loops)
        for host in self.hosts.values():
            host.hypervisor.lose_process()
        for host in [host for host in self.hosts.values() if host.name != self.dead]:
            for name, reconcilers in self._agents(host, conductor_app).items():
                self._add(f"{name}@{host.name}", reconcilers)
        self.beat_all()
        self._listen()

    def restart(self, process: str) -> None:
        """(Re)start one process: its memory is lost, the others go on as they are."""
        before = self.loops, self.owners
        self.boot()
        self.loops = [new if owner == process else old for new, old, owner in zip(self.loops, *before, strict=True)]
        self.bus.clear()
        self._listen()

    def _listen(self) -> None:
        for loop, owner in zip(self.loops, self.owners, strict=True):
            loop.listen(self.bus)
            agent, _, host = owner.partition("@")
            if agent == "neutron-openvswitch-agent":
                self.hosts[host].switch.watch(loop.wake)

    def _agents(self, host: SimHost, conductor_app: App) -> dict[str, list[Reconciler[Any]]]:
        name = host.name
        token = host_token(SECRETS.host_secret, name)
        to_nova = InProcess(conductor_app, name, token, self.on_death)
        to_neutron = InProcess(self.neutron, name, token, self.on_death)
        compute = ComputeAgent(
            HttpConductor(to_nova, name),
            host.hypervisor,
            self.config,
            boot_id=host.hypervisor.boot_id,
            topic=f"nova.hosts.{name}",
            workers=1,
        )
        l2 = L2Agent(to_neutron, name, host.switch, self.config, host.hypervisor.boot_id)
        dhcp = DhcpAgent(to_neutron, name, host.dhcp)
        l3 = L3Agent(to_neutron, name, host.routers)
        self._signs[name] = compute.details()
        return {
            "nova-compute": compute.reconcilers(),
            "neutron-openvswitch-agent": [l2.reconciler()],
            "neutron-dhcp-agent": [dhcp.reconciler()],
            "neutron-l3-agent": [l3.reconciler()],
        }

    def beat_all(self) -> None:
        """Every agent says that it lives."""
        quiet, self.effects.quiet = self.effects.quiet, True
        with self.db.transaction() as tx:
            for host, details in self._signs.items():
                for binary in ("neutron-openvswitch-agent", "neutron-dhcp-agent", "neutron-l3-agent"):
                    heartbeat.beat(tx, binary, host, heartbeat.Heartbeat(time.now(), {}))
                heartbeat.beat(tx, "nova-compute", host, heartbeat.Heartbeat(time.now(), details))
        self.effects.quiet = quiet

    def _add(self, process: str, reconcilers: Sequence[Reconciler[Any]]) -> None:
        loops = [Loop(_strict(one), clock=lambda: self.now) for one in reconcilers if one.name != "history"]
        self.loops += loops
        self.owners += [process] * len(loops)

    # ── time ─────────────────────────────────────────────────────────────────────────────────────────────────

    def settle(self, step: float = 31.0, rounds: int = 60) -> None:
        """Let time pass until nothing changes in three passes; a cloud that never rests is a failure."""
        quiet = 0
        for _ in range(rounds):
            before = self._writes()
            for loop in self.loops:
                loop.run_once()
            self.now += step
            quiet = quiet + 1 if self._writes() == before else 0
            if quiet == 3:
                return
        raise AssertionError(f"does not settle: {self.effects.log[-10:]} {self.failures()}")

    def run_until(self, done: Callable[[], bool], step: float = 0.1, rounds: int = 40) -> None:
        """Let a little time pass, again and again, until ``done``."""
        for _ in range(rounds):
            for loop in self.loops:
                loop.run_once()
            if done():
                return
            self.now += step
        raise AssertionError(f"not done: {self.failures()}")

    def survive(self, work: Callable[[], T]) -> T:
        """Do ``work``; when everything dies on the way, start everything again and repeat, as a user would."""
        while True:
            try:
                return work()
            except Crash:
                self.boot()

    def failures(self) -> dict[str, str]:
        return {key: f.reason for loop in self.loops for key, f in loop.failures.items()}

    def _writes(self) -> int:
        return len(self.effects.log) if not self.effects.quiet else self.db.writes

    # ── what users do ────────────────────────────────────────────────────────────────────────────────────────

    def call(self, app: App, method: str, url: str, body: Any = None, user: str = "alice") -> Any:
        headers = {"X-Auth-Token": user, "OpenStack-API-Version": "compute 2.67"}
        status, data, _ = app.call(method, url, body, headers)
        assert status < 300, f"{method} {url}: {status} {data}"
        return data

    def create_server(self, name: str = "vm", **more: Any) -> str:
        """Ask for a server; a repeat after a crash finds the one that was made."""
        for server in self.call(self.nova, "GET", "/v2.1/servers")["servers"]:
            if server["name"] == name:
                return str(server["id"])
        wish = {
            "name": name,
            "imageRef": IMAGE,
            "flavorRef": "1",
            "networks": [{"uuid": self.base["network"]}],
            **more,
        }
        return str(self.call(self.nova, "POST", "/v2.1/servers", {"server": wish})["server"]["id"])

    def act(self, server: str, action: str, value: Any = None, user: str = "alice") -> None:
        self.call(self.nova, "POST", f"/v2.1/servers/{server}/action", {action: value}, user)

    def status(self, server: str) -> str:
        """The server's status, or 'gone'."""
        headers = {"X-Auth-Token": "alice"}
        status, data, _ = self.nova.call("GET", f"/v2.1/servers/{server}", headers=headers)
        return str(data["server"]["status"]) if status == 200 else "gone"

    def port_of(self, server: str) -> dict[str, Any]:
        found: dict[str, Any] = self.call(self.neutron, "GET", f"/v2.0/ports?device_id={server}")["ports"][0]
        return found

    def left_over(self) -> list[object]:
        """Everything that belongs to servers and should be gone when none is left."""
        machines = [
            place for host in self.hosts.values() for place in (host.hypervisor.machines, host.hypervisor.taps)
        ]
        return [*self.rows_of_others(()), *(thing for thing in machines if thing)]

    def rows_of_others(self, servers: Collection[str]) -> list[str]:
        """The tables that hold something of servers other than these, or of images that will get no data."""
        images, ports, moves = glance_tables.images.c, neutron_tables.ports.c, nova_tables.migrations.c
        moving = sa.select(moves.uuid).where(moves.server_id.in_(list(servers)), moves.finished_at.is_(None))
        claims = placement_tables.allocations.c.consumer_id
        queries = {
            "images": sa.select(images.id).where(images.stored_at.is_(None), images.deleted_at.is_(None)),
            "servers": _others(nova_tables.servers.c.id, servers, nova_tables.servers.c.gone_at.is_(None)),
            "server_hosts": _others(nova_tables.server_hosts.c.server_id, servers),
            "console_tokens": _others(nova_tables.console_tokens.c.server_id, servers),
            "allocations": _others(claims, servers, claims.not_in(moving)),
            "ports": _others(ports.device_id, servers, ports.device_owner.like("compute:%")),
        }
        with self.db.read() as tx:
            return [name for name, query in queries.items() if tx.all(query)]

    def has_data(self, image: str) -> bool:
        images = glance_tables.images.c
        with self.db.read() as tx:
            there = sa.select(images.id).where(images.id == image, images.stored_at.is_not(None))
            return tx.find(there) is not None

    def _upload(self, verb: Verb) -> None:
        """What glance does with the data of a server's disk: it is stored, or the image is gone."""
        images, data = glance_tables.images, {"size": 1000, "virtual_size": 1000, "checksum": "0", "sha512": "0"}
        image = images.c.id == verb.args["image_id"]
        with self.db.transaction() as tx:
            if not tx.find(sa.select(images.c.id).where(image, images.c.deleted_at.is_(None))):
                raise Terminal(f"image {verb.args['image_id']} was deleted")
            waiting = sa.and_(image, images.c.stored_at.is_(None))
            tx.write(sa.update(images).where(waiting).values(stored_at=time.now(), **data))

    # ── what is there at the beginning ───────────────────────────────────────────────────────────────────────

    def _furnish(self) -> None:
        metadata.create_all(self.db.engine)
        self.boot()
        self._image()
        self.settle()
        self.base = self._base_network()
        self.settle()

    def _image(self) -> None:
        now = time.now()
        image = {
            "id": IMAGE, "name": "cirros", "owner": "p0", "visibility": "public", "disk_format": "qcow2",
            "container_format": "bare", "size": 1000, "virtual_size": 1000, "checksum": "0", "sha512": "0",
            "created_at": now, "updated_at": now, "stored_at": now,
        }  # fmt: skip
        with self.db.transaction() as tx:
            tx.write(glance_tables.images.insert(), [image, {**image, "id": OTHER_IMAGE}])
        flavor = {"name": "m1.tiny", "ram": 512, "vcpus": 1, "disk": 1, "id": "1"}
        for one in (flavor, {**flavor, "name": "m1.small", "ram": 1024, "disk": 2, "id": "2"}):
            self.call(self.nova, "POST", "/v2.1/flavors", {"flavor": one}, user="admin")

    def _base_network(self) -> dict[str, str]:
        """A public network, and Alice's network with a router."""
        made: dict[str, str] = {}
        public = {"name": "public", "router:external": True, "provider:network_type": "flat",
                  "provider:physical_network": "public"}  # fmt: skip
        made["public"] = self._make("network", public, "admin")
        self._make("subnet", {"network_id": made["public"], "cidr": "172.24.4.0/24", "ip_version": 4,
                              "enable_dhcp": False}, "admin")  # fmt: skip
        made["network"] = self._make("network", {"name": "private"})
        made["subnet"] = self._make(
            "subnet", {"network_id": made["network"], "cidr": "10.0.0.0/24", "ip_version": 4}
        )
        made["router"] = self._make(
            "router", {"name": "r", "external_gateway_info": {"network_id": made["public"]}}
        )
        path = f"/v2.0/routers/{made['router']}/add_router_interface"
        self.call(self.neutron, "PUT", path, {"subnet_id": made["subnet"]})
        return made

    def _make(self, kind: str, wish: dict[str, Any], user: str = "alice") -> str:
        return str(self.call(self.neutron, "POST", f"/v2.0/{kind}s", {kind: wish}, user)[kind]["id"])


def _strict(reconciler: Reconciler[Any]) -> Reconciler[Any]:
    """What hosts insist on is no failure among others."""
    each, every = reconciler.reconcile, reconciler.reconcile_all
    return replace(reconciler, reconcile=each and _insisting(each), reconcile_all=every and _insisting(every))


def _insisting(work: Callable[[Any], T]) -> Callable[[Any], T]:
    def insist(intent: Any) -> T:
        try:
            return work(intent)
        except AssertionError as error:
            raise Impossible(str(error)) from error

    return insist


def _others(column: sa.Column[Any], servers: Collection[str], *more: sa.ColumnElement[bool]) -> sa.Select[Any]:
    return sa.select(column).where(column.not_in(list(servers)), *more)


def _to_consoleauth(app: App, service: str) -> ConsoleTokens:
    return ConsoleTokens(InProcess(app, service, service_token(SECRETS.host_secret, service)))


def _authenticate(token: str) -> Context:
    if token not in TOKENS:
        raise Unauthorized("The request you have made requires authentication.")
    return TOKENS[token]
