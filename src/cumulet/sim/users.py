"""Users of a simulated cloud: they ask for this and that, remember what was promised, and look whether it is so.

A request that dies on the way is repeated, as a client does.  What was acknowledged counts: from then on the cloud
owes it.  What it answers with 4xx (something else is under way) was not promised.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

from cumulet.core.http import App
from cumulet.sim.effects import Crash
from cumulet.sim.world import IMAGE, OTHER_IMAGE, World

HEADERS = {"X-Auth-Token": "alice", "OpenStack-API-Version": "compute 2.67"}
MOST_SERVERS, MOST_NETWORKS, MOST_ADDRESSES = 8, 3, 4
HARD, SOFT = {"type": "HARD"}, {"type": "SOFT"}
POWER: dict[str, tuple[tuple[str, Any, str], ...]] = {
    "ACTIVE": (
        ("os-stop", None, "SHUTOFF"),
        ("pause", None, "PAUSED"),
        ("suspend", None, "SUSPENDED"),
        ("reboot", SOFT, "ACTIVE"),
        ("reboot", HARD, "ACTIVE"),
        ("rebuild", {"imageRef": OTHER_IMAGE}, "ACTIVE"),
    ),
    "SHUTOFF": (("os-start", None, "ACTIVE"), ("rebuild", {"imageRef": IMAGE}, "SHUTOFF")),
    "PAUSED": (("unpause", None, "ACTIVE"), ("reboot", HARD, "ACTIVE")),
    "SUSPENDED": (("resume", None, "ACTIVE"), ("reboot", HARD, "ACTIVE")),
}
"""What may be asked of a server in a state, and the state that is promised."""


@dataclass
class Promises:
    """``servers``: id → status; ``ports``: server → how many; ``images``: id → server; ``networks``: ids, as keys;
    ``addresses``: floating IP → the server it leads to, or None.  In the order in which they were made.
    """

    servers: dict[str, str] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)
    networks: dict[str, None] = field(default_factory=dict)
    addresses: dict[str, str | None] = field(default_factory=dict)
    unsure: dict[str, str] = field(default_factory=dict)  # server → what it may be if an order got through
    power_cut: bool = False  # lately: a guest that stood still is off then, and stays off

    def holds(self, server: str, status: str) -> bool:
        """Whether the server may be so."""
        promised = self.servers[server]
        return status in (promised, self.unsure.get(server)) or (
            self.power_cut and (promised, status) == ("PAUSED", "SHUTOFF")
        )


class Users:
    """``died`` is told which service died of a request, and starts it again."""

    def __init__(self, world: World, random: Random, died: Callable[[str], None]) -> None:
        self.world, self.random, self._died = world, random, died
        self.promises = Promises()
        self._names = 0
        self._repeated = False  # whether the last request died on its first try

    def act(self) -> str:
        """One request of some kind; what it was."""
        wish = self.random.choice(
            (self._boot, self._boot, self._power, self._power, self._power, self._delete, self._snapshot,
             self._move, self._attach, self._detach, self._network, self._no_network, self._address, self._point,
             self._no_address)
        )  # fmt: skip
        return wish() or "nothing"

    def rest(self) -> None:
        """All is as it may be: from now on each server is to stay as it is."""
        for one in self.world.call(self.world.nova, "GET", "/v2.1/servers/detail")["servers"]:
            if self.promises.holds(one["id"], one["status"]):
                self.promises.servers[one["id"]] = one["status"]
        self.promises.power_cut = False
        self.promises.unsure.clear()

    # ── servers ──────────────────────────────────────────────────────────────────────────────────────────────

    def _boot(self) -> str:
        if len(self.promises.servers) >= MOST_SERVERS:
            return ""
        self._names += 1
        wish = {
            "name": f"vm{self._names}",
            "imageRef": IMAGE,
            "flavorRef": "1",
            "networks": [{"uuid": self.world.base["network"]}],
        }
        server = self._once(f"/v2.1/servers?name=^vm{self._names}$", "/v2.1/servers", "servers", "server", wish)
        if server:
            self.promises.servers[server], self.promises.ports[server] = "ACTIVE", 1
        return f"boot vm{self._names}"

    def _power(self) -> str:
        server = self._some(self.promises.servers)
        known = self._nova("GET", f"/v2.1/servers/{server}")[1] if server else {}
        choices = POWER.get(known.get("server", {}).get("status", ""), ())
        if not choices:
            return ""
        action, value, promised = self.random.choice(choices)
        status = self._nova("POST", f"/v2.1/servers/{server}/action", {action: value})[0]
        if status in (200, 202):
            self.promises.servers[server] = promised
        elif self._repeated:  # the first try may be why the second one was refused
            self.promises.unsure[server] = promised
        return f"{action} {server}"

    def _delete(self) -> str:
        server = self._some(self.promises.servers)
        if server and self._nova("DELETE", f"/v2.1/servers/{server}")[0] in (204, 404):
            del self.promises.servers[server], self.promises.ports[server]
            for address, there in self.promises.addresses.items():
                self.promises.addresses[address] = None if there == server else there
        return f"delete {server}" if server else ""

    def _snapshot(self) -> str:
        server = self._some(self.promises.servers)
        if not server:
            return ""
        wish = {"createImage": {"name": "snapshot"}}
        status, answer = self._nova("POST", f"/v2.1/servers/{server}/action", wish)
        if status == 202:
            self.promises.images[answer["image_id"]] = server
        return f"snapshot {server}"

    def _move(self) -> str:
        """An administrator moves it as it runs; its user sees nothing of it in the end."""
        server = self._some(self.promises.servers)
        wish = {"os-migrateLive": {"host": None, "block_migration": "auto"}}
        if server:
            self._nova("POST", f"/v2.1/servers/{server}/action", wish, "admin")
        return f"move {server}" if server else ""

    def _attach(self) -> str:
        server = self._some(self.promises.servers)
        url, before = f"/v2.1/servers/{server}/os-interface", self.promises.ports.get(server, 0)
        if not server or before > 2:
            return ""
        wish = {"interfaceAttachment": {"net_id": self.world.base["network"]}}
        if self._nova("POST", url, wish)[0] in (200, 400, 409):
            self.promises.ports[server] = self._count(server)
        return f"attach {server}"

    def _detach(self) -> str:
        server = self._some(self.promises.servers)
        url = f"/v2.1/servers/{server}/os-interface"
        found: list[Any] = self._nova("GET", url)[1].get("interfaceAttachments", []) if server else []
        taken = set(self.promises.addresses.values())
        if len(found) < 2 or server in taken:
            return ""
        self._nova("DELETE", f"{url}/{found[-1]['port_id']}")
        self.promises.ports[server] = self._count(server)
        return f"detach {server}"

    def _count(self, server: str) -> int:
        """How many interfaces the API says that the server has (or is to have)."""
        return len(self._nova("GET", f"/v2.1/servers/{server}/os-interface")[1]["interfaceAttachments"])

    # ── networks ─────────────────────────────────────────────────────────────────────────────────────────────

    def _network(self) -> str:
        if len(self.promises.networks) >= MOST_NETWORKS:
            return ""
        self._names += 1
        name = f"net{self._names}"
        network = self._once(f"/v2.0/networks?name={name}", "/v2.0/networks", "networks", "network", {"name": name})
        if network:
            self.promises.networks[network] = None
            cidr = f"10.{self._names % 200 + 10}.0.0/24"
            wish = {"network_id": network, "cidr": cidr, "ip_version": 4}
            self._once(f"/v2.0/subnets?network_id={network}", "/v2.0/subnets", "subnets", "subnet", wish)
        return f"network {name}"

    def _no_network(self) -> str:
        network = self._some(self.promises.networks)
        if network and self._neutron("DELETE", f"/v2.0/networks/{network}")[0] in (204, 404):
            del self.promises.networks[network]
        return f"delete network {network}" if network else ""

    def _address(self) -> str:
        if len(self.promises.addresses) >= MOST_ADDRESSES:
            return ""
        self._names += 1
        wish = {"floating_network_id": self.world.base["public"], "description": f"fip{self._names}"}
        url = f"/v2.0/floatingips?description=fip{self._names}"
        address = self._once(url, "/v2.0/floatingips", "floatingips", "floatingip", wish)
        if address:
            self.promises.addresses[address] = None
        return "floating IP"

    def _point(self) -> str:
        """At another server, or at none."""
        address = self._some(self.promises.addresses)
        taken = set(self.promises.addresses.values())
        free = [server for server in self.promises.servers if server not in taken]
        server = self._some(free) if self.random.random() < 0.7 else ""
        if not address:
            return ""
        port = None
        if server:
            found = self._neutron("GET", f"/v2.0/ports?device_id={server}")[1]["ports"]
            port = found[0]["id"] if found else None
        wish = {"floatingip": {"port_id": port}}
        if self._neutron("PUT", f"/v2.0/floatingips/{address}", wish)[0] == 200:
            self.promises.addresses[address] = server if port else None
        return f"floating IP {address} to {server or 'nobody'}"

    def _no_address(self) -> str:
        address = self._some(self.promises.addresses)
        if address and self._neutron("DELETE", f"/v2.0/floatingips/{address}")[0] in (204, 404):
            del self.promises.addresses[address]
        return f"delete floating IP {address}" if address else ""

    # ── asking ───────────────────────────────────────────────────────────────────────────────────────────────

    def _some(self, things: Any) -> str:
        """One of them; '' if there is none.  In an order that does not change from run to run."""
        return str(self.random.choice(list(things))) if things else ""

    def _once(self, look: str, url: str, many: str, one: str, wish: dict[str, Any]) -> str:
        """Make it, unless an earlier try did that; its id, '' if it was refused."""
        app = "nova" if url.startswith("/v2.1") else "neutron"
        while True:
            found = self._ask(app, "GET", look)[1][many]
            if found:
                return str(found[0]["id"])
            try:
                status, answer = self._try(app, "POST", url, {one: wish})
            except Crash:
                continue
            return str(answer[one]["id"]) if status < 300 else ""

    def _nova(self, method: str, url: str, body: Any = None, user: str = "alice") -> tuple[int, Any]:
        return self._ask("nova", method, url, body, user)

    def _neutron(self, method: str, url: str, body: Any = None) -> tuple[int, Any]:
        return self._ask("neutron", method, url, body)

    def _ask(self, app: str, method: str, url: str, body: Any = None, user: str = "alice") -> tuple[int, Any]:
        """Until there is an answer."""
        self._repeated = False
        while True:
            try:
                return self._try(app, method, url, body, user)
            except Crash:
                self._repeated = True

    def _try(self, app: str, method: str, url: str, body: Any, user: str = "alice") -> tuple[int, Any]:
        service: App = getattr(self.world, app)
        try:
            status, answer, _ = service.call(method, url, body, {**HEADERS, "X-Auth-Token": user})
        except Crash:
            self._died(service.name)
            raise
        assert status < 500, f"{method} {url}: {status} {answer}"
        return status, answer


# ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────


def broken(world: World, promises: Promises) -> Iterator[str]:
    """What was promised and is not so: ``lost`` if it is not there, ``stuck`` if it is not as it should be."""
    shown = {one["id"]: one for one in world.call(world.nova, "GET", "/v2.1/servers/detail")["servers"]}
    for server, status in promises.servers.items():
        if server not in shown:
            yield f"lost: server {server}"
            continue
        found = shown[server]
        shown_as, task = found["status"], found["OS-EXT-STS:task_state"]
        if task or not promises.holds(server, shown_as):
            yield f"stuck: server {server} is {shown_as} ({task}), not {status}"
        yield from _broken_ports(world, server, status, promises.ports[server])
    yield from (f"stuck: server {server} is not gone" for server in shown.keys() - promises.servers.keys())
    for image, server in promises.images.items():
        if server in promises.servers and not world.has_data(image):
            yield f"lost: image {image} of server {server}"
    yield from _broken_networks(world, promises)


def _broken_ports(world: World, server: str, status: str, number: int) -> Iterator[str]:
    ports = world.call(world.neutron, "GET", f"/v2.0/ports?device_id={server}")["ports"]
    if len(ports) != number:
        yield f"lost: server {server} has {len(ports)} ports, not {number}"
    for port in ports:
        if status == "ACTIVE" and port["status"] != "ACTIVE":
            yield f"stuck: port {port['id']} of an ACTIVE server is {port['status']}"


def _broken_networks(world: World, promises: Promises) -> Iterator[str]:
    kept = {world.base["network"], world.base["public"]}
    networks = {one["id"] for one in world.call(world.neutron, "GET", "/v2.0/networks")["networks"]} - kept
    yield from (f"lost: network {one}" for one in promises.networks if one not in networks)
    yield from (f"stuck: network {one} is not gone" for one in networks if one not in promises.networks)
    addresses = {one["id"]: one for one in world.call(world.neutron, "GET", "/v2.0/floatingips")["floatingips"]}
    for address, server in promises.addresses.items():
        found = addresses.pop(address, None)
        if found is None:
            yield f"lost: floating IP {address}"
        elif (found["port_details"] or {}).get("device_id") != server:
            yield f"lost: floating IP {address} does not lead to {server}"
        elif (found["status"] == "ACTIVE") != (server is not None):
            yield f"stuck: floating IP {address} is {found['status']}"
    yield from (f"stuck: floating IP {address} is not gone" for address in addresses)


def leaked(world: World, promises: Promises) -> Iterator[str]:
    """What hosts and tables hold of things that nobody has any more."""
    ports = {
        port["id"]
        for server in promises.servers
        for port in world.call(world.neutron, "GET", f"/v2.0/ports?device_id={server}")["ports"]
    }
    seen: dict[str, str] = {}
    for host in world.hosts.values():
        for server in host.hypervisor.machines:
            if server not in promises.servers or server in seen:
                yield f"leaked: machine {server} on {host.name}"
            seen[server] = host.name
        yield from (f"leaked: tap {port} on {host.name}" for port in host.hypervisor.taps.keys() - ports)
        for server, machine in host.hypervisor.machines.items():
            if machine.copies:
                yield f"leaked: copies of the disk of {server} on {host.name}"
    yield from (f"leaked: row of {table}" for table in world.rows_of_others(promises.servers))
