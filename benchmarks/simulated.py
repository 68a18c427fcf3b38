"""Boots and long lists: real controller services and agents, on hosts made of dictionaries."""

import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import msgspec

from benchmarks import meter, node
from benchmarks.client import side_by_side
from benchmarks.figures import Figure, figure, repeated
from benchmarks.session import Cost, Session, wait_until
from cumulet.core.config import Config
from cumulet.host import usage
from cumulet.services import SERVICES

HOSTS = 10
SINGLE, CROWD = 20, 100
CROWDS = 3
SPACE_SECONDS = 0.3  # between servers whose CPU is counted: more than one takes
CONTROLLERS = [service.name for service in SERVICES if not service.agent]
LISTS = frozenset({"servers_list_100_ms", "servers_list_1000_ms", "ports_list_1000_ms"})
BOOTS = frozenset({"boots_sim_100_per_s", "deletes_sim_100_per_s"})


def measure(names: Collection[str], config: Config) -> Iterator[Figure]:
    """The cloud is prepared and stopped."""
    node.start(config, CONTROLLERS)
    hosts = subprocess.Popen([sys.executable, "-m", "cumulet.sim.fleet", str(HOSTS)])
    try:
        session = Session(config)
        session.login()
        servers = Servers(session)
        yield from _boots(names, config, servers, hosts.pid)
        yield from _crowds(names, servers)
        yield from _lists(names, servers, Cost(session, lambda: meter.everything(config.run)))
    finally:
        hosts.kill()
        hosts.wait()


class Servers:
    """Makes servers on one network, and counts them."""

    def __init__(self, session: Session) -> None:
        self.session = session
        project = session.project_id
        limits = {"instances": -1, "cores": -1, "ram": -1}
        session.ask("compute", "PUT", f"/os-quota-sets/{project}", {"quota_set": limits})
        session.ask("network", "PUT", f"/v2.0/quotas/{project}", {"quota": {"port": -1}})
        wait_until(lambda: len(self._hosts()) == HOSTS, 30.0, 0.1, "hosts")
        network = session.ask("network", "POST", "/v2.0/networks", {"network": {"name": "wide"}})["network"]["id"]
        subnet = {"network_id": network, "cidr": "10.32.0.0/16", "ip_version": 4}
        session.ask("network", "POST", "/v2.0/subnets", {"subnet": subnet})
        image = {"name": "empty", "disk_format": "raw", "container_format": "bare"}
        image_id = session.ask("image", "POST", "/v2/images", image)["id"]
        data = session.request("image", "PUT", f"/v2/images/{image_id}/file", bytes(1 << 20))
        session.send("image", data)
        flavor = {"name": "bench", "vcpus": 1, "ram": 64, "disk": 1, "id": "bench"}
        session.ask("compute", "POST", "/flavors", {"flavor": flavor})
        self._wish = {
            "name": "sim",
            "imageRef": image_id,
            "flavorRef": "bench",
            "networks": [{"uuid": network}],
        }

    def _hosts(self) -> list[Any]:
        found: list[Any] = self.session.ask("compute", "GET", "/os-hypervisors")["hypervisors"]
        return found

    def create_request(self, number: int = 1) -> bytes:
        wish = {**self._wish, "min_count": number} if number > 1 else self._wish
        return self.session.request("compute", "POST", "/servers", {"server": wish})

    def create(self) -> str:
        created = self.session.send("compute", self.create_request()).json()
        return str(created["server"]["id"])

    def is_active(self, server_id: str) -> bool:
        server = self.session.ask("compute", "GET", f"/servers/{server_id}")["server"]
        assert server["status"] != "ERROR", server.get("fault")
        return bool(server["status"] == "ACTIVE")

    def ids(self, query: str = "") -> list[str]:
        return [one["id"] for one in self.session.ask("compute", "GET", f"/servers?{query}")["servers"]]

    def wait_active(self, number: int) -> None:
        wait_until(lambda: len(self.ids("status=ACTIVE")) >= number, 120.0, 0.02, f"{number} active servers")

    def delete_requests(self, ids: Sequence[str]) -> list[bytes]:
        return [self.session.request("compute", "DELETE", f"/servers/{server_id}") for server_id in ids]

    def delete_all(self) -> float:
        """Seconds until nothing is left of any."""
        requests = self.delete_requests(self.ids())
        started = time.perf_counter()
        side_by_side(self.session.port("compute"), requests)
        wait_until(lambda: not self.ids("limit=1"), 300.0, 0.02, "end of the servers")
        return time.perf_counter() - started


def _boots(names: Collection[str], config: Config, servers: Servers, hosts_pid: int) -> Iterator[Figure]:
    if not {"boot_sim_s", "boot_sim_cpu_s"} & set(names):
        return
    yield figure("first_boot_sim_s", [_boot(servers)])
    for _ in range(3):
        _boot(servers)
    yield figure("boot_sim_s", repeated(SINGLE, lambda: _boot(servers)))
    if "boot_sim_cpu_s" in names:
        pids = [*meter.everything(config.run), hosts_pid]
        yield figure("boot_sim_cpu_s", repeated(3, lambda: _boot_cpu(servers, pids)))
    servers.delete_all()


def _boot(servers: Servers) -> float:
    """Seconds from the request until a client sees ACTIVE."""
    started = time.perf_counter()
    server_id = servers.create()
    wait_until(lambda: servers.is_active(server_id), 30.0, 0.004, "active server")
    took = time.perf_counter() - started
    time.sleep(SPACE_SECONDS)  # until the agents rest
    return took


def _boot_cpu(servers: Servers, pids: Sequence[int]) -> float:
    """CPU seconds of one boot, of all services and agents together; nobody polls meanwhile."""
    before = usage.cpu(pids)
    made = []
    for _ in range(SINGLE):
        made.append(servers.create())
        time.sleep(SPACE_SECONDS)
    used = usage.cpu(pids) - before
    wait_until(lambda: all(map(servers.is_active, made)), 10.0, 0.1, "active servers")
    return used / SINGLE


def _crowds(names: Collection[str], servers: Servers) -> Iterator[Figure]:
    if not BOOTS & set(names):
        return
    boots, deletes = [], []
    for _ in range(CROWDS):
        started = time.perf_counter()
        side_by_side(servers.session.port("compute"), [servers.create_request()] * CROWD)
        servers.wait_active(CROWD)
        boots.append(CROWD / (time.perf_counter() - started))
        time.sleep(1.0)
        deletes.append(CROWD / servers.delete_all())
        time.sleep(1.0)
    yield figure("boots_sim_100_per_s", boots)
    yield figure("deletes_sim_100_per_s", deletes)


def _lists(names: Collection[str], servers: Servers, cost: Cost) -> Iterator[Figure]:
    if not LISTS & set(names):
        return
    detail = servers.session.request("compute", "GET", "/servers/detail")
    _fill(servers, 100)
    if "servers_list_100_ms" in names:
        yield from cost.repeated("servers_list_100_ms", "compute", detail)
    if LISTS - {"servers_list_100_ms"} & set(names):
        _fill(servers, 1000)
    if "servers_list_1000_ms" in names:
        yield from cost.repeated("servers_list_1000_ms", "compute", detail)
    if "ports_list_1000_ms" in names:
        ports = servers.session.request("network", "GET", "/v2.0/ports?device_owner=compute:nova")
        count = len(msgspec.json.decode(servers.session.send("network", ports).body)["ports"])
        assert count == 1000, f"{count} ports"
        yield from cost.repeated("ports_list_1000_ms", "network", ports)


def _fill(servers: Servers, number: int) -> None:
    """Have that many servers."""
    missing = number - len(servers.ids())
    while missing > 0:
        some = min(missing, 100)
        servers.session.send("compute", servers.create_request(some))
        missing -= some
    servers.wait_active(number)
    time.sleep(3.0)
