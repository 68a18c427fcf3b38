"""What ``cumulet sim`` runs in its machine: the controller, the hosts, the servers; then it measures.

Servers are ordered through nova's API and come up as any others: scheduled, wired, started, reported.  One project
has a thousand of them, the others a hundred each; the servers of a project are on one network, and let each other
in.  Figures of the controller are those of all processes that a controller node has; the hosts' process is counted
apart.
"""

import argparse
import io
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
import sqlalchemy as sa

from cumulet.cli import credentials, record, status
from cumulet.cli.cloud import Cloud, Json
from cumulet.cli.database import reading
from cumulet.core import config as configuration
from cumulet.core.config import Config
from cumulet.core.tables import agents
from cumulet.host import usage
from cumulet.nova.tables import server_hosts

LARGE_PROJECT, PER_ORDER = 1000, 100
MOST_PENDING = 400
"""Servers that are ordered and not on yet: more only wait in the queue."""
REST_SECONDS = 35.0
"""After which agents have passed once more and rest."""
START_SECONDS, STALL_SECONDS = 120.0, 300.0
LISTS = 20
UNLIMITED = {"instances": -1, "cores": -1, "ram": -1}


class Figures(msgspec.Struct):
    """``cores`` are CPU seconds per second."""

    hosts: int
    servers: int
    fill_s: float = 0.0  # from the first order until all servers were on
    idle_cores: float = 0.0
    hosts_idle_cores: float = 0.0
    boot_100_s: float = 0.0
    list_1000_ms: float = 0.0  # CPU of nova-api for GET /servers/detail in a project
    listed: int = 0  # servers in that list
    controller_mb: float = 0.0
    database_mb: float = 0.0


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser("cumulet sim")
    parser.add_argument("hosts", type=int)
    parser.add_argument("servers", type=int)
    parser.add_argument("idle", type=float)
    parser.add_argument("--once", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(words)
    simulation = Simulation(configuration.load(), options.json)
    with simulation.running(options.hosts):
        figures = simulation.measure(options.hosts, options.servers, options.idle)
        if options.json:
            print(msgspec.json.encode(figures).decode(), flush=True)
        if not options.once:
            simulation.tell("it runs until Ctrl-C")
            signal.pause()
    return 0


class Simulation:
    def __init__(self, config: Config, quiet: bool) -> None:
        self._config, self._quiet = config, quiet
        self._hosts: subprocess.Popen[bytes] | None = None

    def tell(self, text: str) -> None:
        if not self._quiet:
            print(f"  {text}", flush=True)

    @contextmanager
    def running(self, hosts: int) -> Iterator[None]:
        """The controller and ``hosts`` hosts; they end with this machine."""
        subprocess.Popen([sys.executable, "-m", "cumulet.cli.main", "node"], stdin=subprocess.DEVNULL, cwd="/")
        self._wait(self._healthy, START_SECONDS, "healthy controller")
        credentials.write(self._config)
        self._hosts = subprocess.Popen([sys.executable, "-m", "cumulet.sim.fleet", str(hosts)])
        try:
            self._wait(lambda: self._living_hosts() == hosts, START_SECONDS + hosts / 10, "hosts")
            self.tell(f"{hosts} hosts are up")
            yield
        finally:
            self._hosts.kill()

    def measure(self, hosts: int, servers: int, idle: float) -> Figures:
        """``idle``: how long the cloud is watched while it has nothing to do."""
        found = Figures(hosts, servers)
        projects = self._furnish(servers)
        found.fill_s = self._fill(projects, servers)
        self.tell(f"{servers} servers are on after {found.fill_s:.0f} s")
        time.sleep(min(REST_SECONDS, idle))
        found.idle_cores, found.hosts_idle_cores = self._idle(idle)
        self.tell(f"idle: {found.idle_cores:.2f} cores; the hosts: {found.hosts_idle_cores:.2f}")
        found.list_1000_ms, found.listed = self._list(projects[0])
        self.tell(f"a list of {found.listed} servers: {found.list_1000_ms:.1f} ms of CPU")
        found.boot_100_s = self._boot(projects[-1], servers)
        self.tell(f"{PER_ORDER} servers more: {found.boot_100_s:.1f} s")
        found.controller_mb = usage.memory_mb(self._controller().values())
        found.database_mb = sum(file.stat().st_size for file in (self._config.state / "db").iterdir()) / (1 << 20)
        self.tell(f"controller: {found.controller_mb:.0f} MB, its database {found.database_mb:.0f} MB")
        return found

    # ── making ───────────────────────────────────────────────────────────────────────────────────────────────

    def _furnish(self, servers: int) -> list[tuple[Cloud, Json]]:
        """Projects for so many servers and one more, with what one needs to order them."""
        admin = Cloud(self._config)
        users = admin.get("identity", "/users?name=admin")["users"]
        roles = admin.get("identity", "/roles?name=admin")["roles"]
        image = {"name": "empty", "disk_format": "raw", "container_format": "bare", "visibility": "public"}
        image_id = admin.post("image", "/v2/images", image)["id"]
        admin.put("image", f"/v2/images/{image_id}/file", io.BytesIO(bytes(1 << 20)))
        admin.post(
            "compute", "/flavors", {"flavor": {"name": "sim", "vcpus": 1, "ram": 64, "disk": 1, "id": "sim"}}
        )
        return [
            self._project(admin, f"project{number}", users[0]["id"], roles[0]["id"], image_id)
            for number in range(_turn(servers) + 1)
        ]

    def _project(self, admin: Cloud, name: str, user: str, role: str, image: str) -> tuple[Cloud, Json]:
        project = admin.post("identity", "/projects", {"project": {"name": name}})["project"]["id"]
        admin.put("identity", f"/projects/{project}/users/{user}/roles/{role}", None)
        admin.put("compute", f"/os-quota-sets/{project}", {"quota_set": UNLIMITED})
        admin.put("network", f"/v2.0/quotas/{project}", {"quota": {"port": -1}})
        cloud = Cloud(self._config, project=name)
        network = cloud.post("network", "/v2.0/networks", {"network": {"name": "wide"}})["network"]["id"]
        subnet = {"network_id": network, "cidr": "10.32.0.0/16", "ip_version": 4}
        cloud.post("network", "/v2.0/subnets", {"subnet": subnet})
        wish = {"name": "sim", "imageRef": image, "flavorRef": "sim", "networks": [{"uuid": network}]}
        return cloud, wish

    def _fill(self, projects: list[tuple[Cloud, Json]], servers: int) -> float:
        started, ordered = time.monotonic(), 0
        while ordered < servers:
            cloud, wish = projects[_turn(ordered)]
            count = min(PER_ORDER, servers - ordered)
            cloud.post("compute", "/servers", {"server": {**wish, "min_count": count}})
            ordered += count
            target = ordered - MOST_PENDING if ordered < servers else servers
            self._wait(lambda target=target: self._on() >= target, STALL_SECONDS, f"{target} servers")  # type: ignore[misc]
            if ordered % (10 * PER_ORDER) == 0:
                self.tell(f"{self._on()} of {servers} servers are on")
        return time.monotonic() - started

    # ── measuring ────────────────────────────────────────────────────────────────────────────────────────────

    def _idle(self, seconds: float) -> tuple[float, float]:
        """Cores that the controller and the hosts use while nobody asks for anything."""
        assert self._hosts
        controller, hosts = list(self._controller().values()), [self._hosts.pid]
        before, started = (usage.cpu(controller), usage.cpu(hosts)), time.monotonic()
        time.sleep(seconds)
        took = time.monotonic() - started
        return (usage.cpu(controller) - before[0]) / took, (usage.cpu(hosts) - before[1]) / took

    def _list(self, project: tuple[Cloud, Json]) -> tuple[float, int]:
        """CPU milliseconds of nova-api for one list, and the servers in it; it does nothing else meanwhile."""
        cloud, api = project[0], self._controller()["nova-api"]
        count = len(cloud.get("compute", "/servers/detail")["servers"])
        before = usage.cpu_of(api)
        for _ in range(LISTS):
            cloud.get("compute", "/servers/detail")
        return (usage.cpu_of(api) - before) * 1000 / LISTS, count

    def _boot(self, project: tuple[Cloud, Json], servers: int) -> float:
        """Seconds from the order until all are on."""
        cloud, wish = project
        started = time.monotonic()
        cloud.post("compute", "/servers", {"server": {**wish, "min_count": PER_ORDER}})
        self._wait(lambda: self._on() >= servers + PER_ORDER, STALL_SECONDS, "servers more")
        return time.monotonic() - started

    # ── looking ──────────────────────────────────────────────────────────────────────────────────────────────

    def _controller(self) -> dict[str, int]:
        """Its processes, by name."""
        state = record.read_state(self._config)
        assert state
        return {"cumulet-node": state.pid} | {member.name: member.pid for member in state.members}

    def _healthy(self) -> bool:
        return status.running(self._config) and all(line.healthy for line in status.healths(self._config))

    def _on(self) -> int:
        return self._count(sa.select(sa.func.count()).where(server_hosts.c.seen_power == "on"))

    def _living_hosts(self) -> int:
        return self._count(sa.select(sa.func.count()).where(agents.c.binary == "neutron-openvswitch-agent"))

    def _count(self, query: sa.Select[int]) -> int:
        with reading(self._config) as tx:
            return int(tx.value(query) or 0)

    def _wait(self, done: Callable[[], bool], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            if time.monotonic() > deadline:
                sys.exit(f"no {what} after {seconds:.0f} s")
            time.sleep(0.05)


def _turn(ordered: int) -> int:
    """Whose turn it is after so many servers: the first project's for the first thousand, then the next one's."""
    return max(0, ordered - LARGE_PROJECT + PER_ORDER) // PER_ORDER


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
