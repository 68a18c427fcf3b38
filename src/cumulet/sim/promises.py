"""What a cloud has promised its users, and whether it is so.

What was acknowledged counts: from then on the cloud owes it.  It is looked at through the public APIs alone, so
that a simulated cloud and a real one are judged by the same words: ``lost`` is what is not there, ``stuck`` what is
not as it should be.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


class Unanswered(Exception):
    """A request died on its way, or on the way back: it may have been carried out."""


class Cloud(Protocol):
    """A cloud as its users and its administrator see it.

    ``network`` and ``public``: ids of the network that servers get, and of the one outside.  ``images``: ids of two
    (or of the same).  ``sizes``: flavors of one and the same disk, name → id.
    """

    network: str
    public: str
    images: tuple[str, str]
    sizes: Mapping[str, str]

    def ask(self, service: str, method: str, url: str, body: Any = None, admin: bool = False) -> tuple[int, Any]:
        """Status and answer.  ``service``: compute or network.  Unanswered if there was no answer."""


@dataclass
class Promises:
    """``servers``: id → status; ``sizes``: server → the flavors that it may have; ``before``: server on trial → its
    status when that is over, and its flavor if it goes back; ``ports``: server → how many; ``images``: id → server;
    ``networks``: ids, as keys; ``addresses``: floating IP → the server it leads to, or None.  In the order in which
    they were made.  ``others``: ids of what was there before, and is not looked at.
    """

    servers: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    before: dict[str, tuple[str, str]] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)
    networks: dict[str, None] = field(default_factory=dict)
    addresses: dict[str, str | None] = field(default_factory=dict)
    unsure: dict[str, str] = field(default_factory=dict)  # server → what it may be if an order got through
    ordered: set[str] = field(default_factory=set)  # servers of which something was asked lately
    others: frozenset[str] = frozenset()
    power_cut: int = 0  # in so many of the next rounds it may show: a guest that stood still is off, and stays off

    def holds(self, server: str, status: str) -> bool:
        """Whether the server may be so."""
        may_be = {self.servers[server], self.unsure.get(server)}
        if self.power_cut > 0 and server in self.ordered and "VERIFY_RESIZE" in may_be:
            may_be.add(self.before[server][0])  # its destination was lost, and it has fallen back
        memory_lost = "PAUSED" in may_be or ("SUSPENDED" in may_be and server in self.ordered)
        return status in may_be or (self.power_cut > 0 and memory_lost and status == "SHUTOFF")

    def has_fallen_back(self, server: str, status: str, size: str) -> bool:
        """Whether it is as it was before a move that a power cut has brought to nothing."""
        lost = self.power_cut > 0 and server in self.ordered and self.servers[server] == "VERIFY_RESIZE"
        return lost and self.before[server] == (status, size)

    def forget(self, server: str) -> None:
        """It is to be gone."""
        for kept in (self.servers, self.sizes, self.before, self.ports, self.unsure):
            kept.pop(server, None)
        for address, there in self.addresses.items():
            self.addresses[address] = None if there == server else there


def list_servers(cloud: Cloud) -> list[dict[str, Any]]:
    """All of them, in detail, as the administrator sees them."""
    found: list[dict[str, Any]] = get(cloud, "compute", "/servers/detail?all_tenants=1", True)["servers"]
    return found


def get(cloud: Cloud, service: str, url: str, admin: bool = False) -> Any:
    status, answer = cloud.ask(service, "GET", url, admin=admin)
    assert status == 200, f"GET {url}: {status} {answer}"
    return answer


def everything(cloud: Cloud) -> frozenset[str]:
    """Ids of all servers, networks and floating IPs."""
    networks, addresses = (get(cloud, "network", f"/v2.0/{kind}")[kind] for kind in ("networks", "floatingips"))
    return frozenset(one["id"] for one in (*list_servers(cloud), *networks, *addresses))


def broken(cloud: Cloud, promises: Promises) -> Iterator[str]:
    """What was promised and is not so."""
    shown = {one["id"]: one for one in list_servers(cloud) if one["id"] not in promises.others}
    ports: dict[str, list[Any]] = {}
    for port in get(cloud, "network", "/v2.0/ports")["ports"]:
        ports.setdefault(port["device_id"], []).append(port)
    for server, status in promises.servers.items():
        if server not in shown:
            yield f"lost: server {server}"
            continue
        found = shown[server]
        shown_as, task, size = found["status"], found["OS-EXT-STS:task_state"], found["flavor"]["original_name"]
        if task or not promises.holds(server, shown_as):
            yield f"stuck: server {server} is {shown_as} ({task}), not {status}"
        if size not in promises.sizes[server] and not promises.has_fallen_back(server, shown_as, size):
            yield f"lost: server {server} has flavor {size}, not {promises.sizes[server]}"
        yield from _broken_ports(server, status, promises.ports[server], ports.get(server, []))
    yield from (f"stuck: server {server} is not gone" for server in shown.keys() - promises.servers.keys())
    yield from _broken_networks(cloud, promises)


def _broken_ports(server: str, status: str, number: int, ports: list[Any]) -> Iterator[str]:
    if len(ports) != number:
        yield f"lost: server {server} has {len(ports)} ports, not {number}"
    for port in ports:
        if status == "ACTIVE" and port["status"] != "ACTIVE":
            yield f"stuck: port {port['id']} of an ACTIVE server is {port['status']}"


def _broken_networks(cloud: Cloud, promises: Promises) -> Iterator[str]:
    networks = {one["id"] for one in get(cloud, "network", "/v2.0/networks")["networks"]} - promises.others
    yield from (f"lost: network {one}" for one in promises.networks if one not in networks)
    yield from (f"stuck: network {one} is not gone" for one in networks if one not in promises.networks)
    found_ips = get(cloud, "network", "/v2.0/floatingips")["floatingips"]
    addresses = {one["id"]: one for one in found_ips if one["id"] not in promises.others}
    for address, server in promises.addresses.items():
        found = addresses.pop(address, None)
        if found is None:
            yield f"lost: floating IP {address}"
        elif (found["port_details"] or {}).get("device_id") != server:
            yield f"lost: floating IP {address} does not lead to {server}"
        elif (found["status"] == "ACTIVE") != (server is not None):
            yield f"stuck: floating IP {address} is {found['status']}"
    yield from (f"stuck: floating IP {address} is not gone" for address in addresses)
