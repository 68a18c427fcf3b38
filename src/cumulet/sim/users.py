"""Users of a cloud that is being broken: they ask for this and that, and remember what was promised.

A request that dies on the way is repeated, as a client does.  What is answered with 4xx (something else is under
way) was not promised.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from cumulet.sim.promises import Cloud, Promises, Unanswered, list_servers

HARD, SOFT = {"type": "HARD"}, {"type": "SOFT"}
DONE = (200, 202, 204)
TRIES = 4
IMAGE, AS_BEFORE = "image", "as before"
POWER: dict[str, tuple[tuple[str, Any, str], ...]] = {
    "ACTIVE": (
        ("os-stop", None, "SHUTOFF"),
        ("pause", None, "PAUSED"),
        ("suspend", None, "SUSPENDED"),
        ("reboot", SOFT, "ACTIVE"),
        ("reboot", HARD, "ACTIVE"),
        ("rebuild", IMAGE, "ACTIVE"),
    ),
    "SHUTOFF": (("os-start", None, "ACTIVE"), ("rebuild", IMAGE, "SHUTOFF")),
    "PAUSED": (("unpause", None, "ACTIVE"), ("reboot", HARD, "ACTIVE")),
    "SUSPENDED": (("resume", None, "ACTIVE"), ("reboot", HARD, "ACTIVE")),
    "VERIFY_RESIZE": (("confirmResize", None, AS_BEFORE), ("revertResize", None, AS_BEFORE)),
}
"""What may be asked of a server in a state, and the state that is promised."""


@dataclass(frozen=True)
class Most:
    """How much the users have at the same time."""

    servers: int = 8
    networks: int = 3
    addresses: int = 4


class Users:
    def __init__(self, cloud: Cloud, random: Random, most: Most | None = None) -> None:
        self.cloud, self.random, self.most = cloud, random, most or Most()
        self.promises = Promises()
        self.wishes: tuple[Callable[[], str], ...] = (
            self._boot, self._boot, self._power, self._power, self._power, self._move, self._move, self._go,
            self._delete, self._snapshot, self._attach, self._detach, self._network, self._no_network,
            self._address, self._point, self._no_address,
        )  # fmt: skip
        self.renewed: set[str] = set()  # servers whose disks may have lost what was written lately
        self._names = 0
        self._repeated = False  # whether the last request died on its first try

    def act(self) -> str:
        """One request of some kind; what it was.  Most kinds need something that is there."""
        for _ in range(TRIES):
            said = self.random.choice(self.wishes)()
            if said:
                return said
        return "nothing"

    def rest(self) -> None:
        """All is as it may be: from now on each server is to stay as it is."""
        for one in list_servers(self.cloud):
            mine = one["id"] in self.promises.servers  # others may have some in a lab
            if mine and self.promises.holds(one["id"], one["status"]):
                self.promises.servers[one["id"]] = one["status"]
                self.promises.sizes[one["id"]] = (one["flavor"]["original_name"],)
        self.renewed.clear()
        self.promises.ordered.clear()
        self.promises.power_cut -= 1  # a host that is just back may not have told yet
        self.promises.unsure.clear()

    def leave(self) -> None:
        """Nobody wants anything any more."""
        for server in list(self.promises.servers):
            self._delete(server)
        for address in list(self.promises.addresses):
            self._no_address(address)
        for network in list(self.promises.networks):
            self._no_network(network)

    # ── servers ──────────────────────────────────────────────────────────────────────────────────────────────

    def _boot(self) -> str:
        if len(self.promises.servers) >= self.most.servers:
            return ""
        self._names += 1
        size = next(iter(self.cloud.sizes))
        wish = {
            "name": f"vm{self._names}",
            "imageRef": self.cloud.images[0],
            "flavorRef": self.cloud.sizes[size],
            "networks": [{"uuid": self.cloud.network}],
        }
        server = self._once(f"/servers?name=^vm{self._names}$", "/servers", "servers", "server", wish)
        if server:
            self.promises.servers[server], self.promises.ports[server] = "ACTIVE", 1
            self.promises.sizes[server] = (size,)
        return f"boot vm{self._names}"

    def _power(self) -> str:
        server = self._some(self.promises.servers)
        choices = POWER.get(self._shown(server)["status"], ()) if server else ()
        if not choices:
            return ""
        value: Any
        action, value, promised = self.random.choice(choices)
        if value == IMAGE:
            value = {"imageRef": self.random.choice(self.cloud.images)}
        size = ""
        if promised == AS_BEFORE:
            promised, size = self.promises.before[server]
        self._order(server, action, value, promised, size=size if action == "revertResize" else "")
        return f"{action} {server}"

    def _move(self) -> str:
        """To another host, perhaps as another flavor; it is on trial then."""
        server = self._some(self.promises.servers)
        shown: Any = self._shown(server) if server else {"status": ""}
        if shown["status"] not in ("ACTIVE", "SHUTOFF"):
            return ""
        now = shown["flavor"]["original_name"]
        self.promises.before[server] = shown["status"], now
        if self.random.random() < 0.3:
            self._order(server, "migrate", None, "VERIFY_RESIZE", admin=True)
            return f"migrate {server}"
        size = self._some([name for name in self.cloud.sizes if name != now])
        self._order(server, "resize", {"flavorRef": self.cloud.sizes[size]}, "VERIFY_RESIZE", size=size)
        return f"resize {server} to {size}"

    def _go(self) -> str:
        """To another host as it is; in the end nothing of it is to be seen."""
        server = self._some(self.promises.servers)
        status = self._shown(server)["status"] if server else ""
        if status not in ("ACTIVE", "PAUSED"):
            return ""
        wish = {"host": None, "block_migration": "auto"}
        self._order(server, "os-migrateLive", wish, status, admin=True)
        return f"live-migrate {server}"

    def evacuate(self, host: str) -> list[str]:
        """The administrator says of a host that it is dead, and wants its servers elsewhere; what was asked."""
        asked = []
        for one in list_servers(self.cloud):
            server = one["id"]
            there = one["OS-EXT-SRV-ATTR:host"] == host and one["status"] in ("ACTIVE", "SHUTOFF")
            if there and server in self.promises.servers:
                self._order(server, "evacuate", {}, one["status"], admin=True)
                asked.append(f"evacuate {server}")
        return asked

    def _order(
        self, server: str, action: str, value: Any, promised: str, admin: bool = False, size: str = ""
    ) -> None:
        """A server shall be ``promised``, and of this flavor if one is named."""
        promises, body = self.promises, {action: value}
        promises.ordered.add(server)
        if action in ("evacuate", "revertResize"):
            self.renewed.add(server)
        status = self._ask("compute", "POST", f"/servers/{server}/action", body, admin)[0]
        if status < 300:
            promises.servers[server] = promised
            promises.sizes[server] = (size,) if size else promises.sizes[server]
        elif self._repeated:  # the first try may be why the second one was refused
            promises.unsure[server] = promised
            promises.sizes[server] = (*promises.sizes[server], size)

    def _delete(self, server: str = "") -> str:
        server = server or self._some(self.promises.servers)
        if server and self._nova("DELETE", f"/servers/{server}")[0] in (*DONE, 404):
            self.promises.forget(server)
        return f"delete {server}" if server else ""

    def _snapshot(self) -> str:
        server = self._some(self.promises.servers)
        if not server:
            return ""
        wish = {"createImage": {"name": "snapshot"}}
        status, answer = self._nova("POST", f"/servers/{server}/action", wish)
        if status in DONE:
            self.promises.images[answer["image_id"]] = server
        return f"snapshot {server}"

    def _attach(self) -> str:
        server = self._some(self.promises.servers)
        url, before = f"/servers/{server}/os-interface", self.promises.ports.get(server, 0)
        if not server or before > 2:
            return ""
        wish = {"interfaceAttachment": {"net_id": self.cloud.network}}
        if self._nova("POST", url, wish)[0] in (*DONE, 400, 409):
            self.promises.ports[server] = self._count(server)
        return f"attach {server}"

    def _detach(self) -> str:
        server = self._some(self.promises.servers)
        url = f"/servers/{server}/os-interface"
        found: list[Any] = self._nova("GET", url)[1].get("interfaceAttachments", []) if server else []
        taken = set(self.promises.addresses.values())
        if len(found) < 2 or server in taken:
            return ""
        self._nova("DELETE", f"{url}/{found[-1]['port_id']}")
        self.promises.ports[server] = self._count(server)
        return f"detach {server}"

    def _count(self, server: str) -> int:
        """How many interfaces the API says that the server has (or is to have)."""
        return len(self._nova("GET", f"/servers/{server}/os-interface")[1]["interfaceAttachments"])

    # ── networks ─────────────────────────────────────────────────────────────────────────────────────────────

    def _network(self) -> str:
        if len(self.promises.networks) >= self.most.networks:
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

    def _no_network(self, network: str = "") -> str:
        network = network or self._some(self.promises.networks)
        if network and self._neutron("DELETE", f"/v2.0/networks/{network}")[0] in (*DONE, 404):
            del self.promises.networks[network]
        return f"delete network {network}" if network else ""

    def _address(self) -> str:
        if len(self.promises.addresses) >= self.most.addresses:
            return ""
        self._names += 1
        wish = {"floating_network_id": self.cloud.public, "description": f"fip{self._names}"}
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
        if self._neutron("PUT", f"/v2.0/floatingips/{address}", wish)[0] in DONE:
            self.promises.addresses[address] = server if port else None
        return f"floating IP {address} to {server or 'nobody'}"

    def _no_address(self, address: str = "") -> str:
        address = address or self._some(self.promises.addresses)
        if address and self._neutron("DELETE", f"/v2.0/floatingips/{address}")[0] in (*DONE, 404):
            del self.promises.addresses[address]
        return f"delete floating IP {address}" if address else ""

    # ── asking ───────────────────────────────────────────────────────────────────────────────────────────────

    def _some(self, things: Any) -> str:
        """One of them; '' if there is none.  In an order that does not change from run to run."""
        return str(self.random.choice(list(things))) if things else ""

    def _shown(self, server: str) -> Any:
        """The server as the API shows it; without a status if it is not there."""
        return self._nova("GET", f"/servers/{server}")[1].get("server", {"status": ""})

    def _once(self, look: str, url: str, many: str, one: str, wish: dict[str, Any]) -> str:
        """Make it, unless an earlier try did that; its id, '' if it was refused."""
        service = "compute" if url.startswith("/servers") else "network"
        while True:
            found = self._ask(service, "GET", look)[1][many]
            if found:
                return str(found[0]["id"])
            try:
                status, answer = self.cloud.ask(service, "POST", url, {one: wish})
            except Unanswered:
                continue
            return str(answer[one]["id"]) if status < 300 else ""

    def _nova(self, method: str, url: str, body: Any = None) -> tuple[int, Any]:
        return self._ask("compute", method, url, body)

    def _neutron(self, method: str, url: str, body: Any = None) -> tuple[int, Any]:
        return self._ask("network", method, url, body)

    def _ask(self, service: str, method: str, url: str, body: Any = None, admin: bool = False) -> tuple[int, Any]:
        """Until there is an answer."""
        self._repeated = False
        while True:
            try:
                return self.cloud.ask(service, method, url, body, admin)
            except Unanswered:
                self._repeated = True
