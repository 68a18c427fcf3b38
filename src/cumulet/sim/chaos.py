"""A campaign against a simulated cloud: processes die while users ask for everything, and nothing may be lost.

Each round asks for some things.  On the way one process dies before or after a lasting change of its own, whichever
comes then, or a host loses its power, or stays away while its servers are evacuated, or all hints are lost, or
nothing happens.  Then time passes until everything is as it was promised; what is not so after ten minutes of the
simulated clock is ``stuck`` or ``lost``, and what hosts and tables hold of things that nobody has is ``leaked``.

The same seed gives the same campaign: ids are made from it, too.
"""

import secrets
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

from cumulet.core.http import App
from cumulet.sim.effects import Crash, Impossible
from cumulet.sim.promises import Promises, Unanswered, broken, everything, get, list_servers
from cumulet.sim.report import Report
from cumulet.sim.users import Users
from cumulet.sim.world import IMAGE, OTHER_IMAGE, World

HOSTS = ("h1", "h2", "h3")
PATIENCE_SECONDS, STEP_SECONDS = 600.0, 1.0
SOON = 12
"""A process dies at one of so many next effects."""


class Campaign:
    def __init__(self, place: Path, seed: int) -> None:
        self.random, self.report = Random(seed), Report(seed)
        self.world = World(place, HOSTS)
        self.world.on_death = self._died
        self.world.boot()
        self.cloud = SimCloud(self.world, self._died)
        self.users = Users(self.cloud, self.random)
        self.users.promises.others = everything(self.cloud)
        self._written: dict[str, int] = {}  # server → how many boots its disk has seen
        self._just_asked: list[str] = []
        self._laws: list[str] = []

    def play(self, rounds: int, tell: Callable[[Report], None] = lambda report: None) -> Report:
        for _ in range(rounds):
            self._round()
            tell(self.report)
        self.users.leave()
        self._recover()
        return self.report

    def _round(self) -> None:
        self.report.rounds += 1
        self.world.beat_all()
        self.world.bus.cut = self.random.random() < 0.2
        self._just_asked = []
        for _ in range(self.random.randint(1, 4)):
            if self.random.random() < 0.5:
                when = self.random.choice(("before", "after"))
                self.world.effects.crash_at = (len(self.world.effects.log) + self.random.randrange(SOON), when)
            self._just_asked.append(self.users.act())
            self.report.requests += 1
            if self.random.random() < 0.05:
                self._cut_power(self.random.choice(HOSTS))
            if self.random.random() < 0.05 and not self.world.dead:
                self._lose(self.random.choice(self._destinations() or HOSTS))
            for _ in range(self.random.randint(0, 3)):
                self._pass(self.random.choice((0.1, 1.0, 10.0)))
        if self.world.dead:
            self.world.start_agents()
        self._recover()
        self.world.effects.crash_at = None

    def _recover(self) -> None:
        """Until all is as promised.  Whatever is not so in the end is counted, and put right for the next round."""
        since = self.world.now
        while (found := self._problems()) and self.world.now - since < PATIENCE_SECONDS:
            self._pass(STEP_SECONDS)
        if not found:
            self.users.rest()
            self._written = dict(self._disks())
        self.report.add(self.world.now - since, [*found, *self._laws], self._just_asked)
        self._laws.clear()

    def _problems(self) -> list[str]:
        promises = self.users.promises
        return [*broken(self.cloud, promises), *self._unwritten(), *leaked(self.world, promises)]

    def _unwritten(self) -> Iterator[str]:
        """What was written and is lost."""
        promises, disks = self.users.promises, dict(self._disks())
        for image, server in promises.images.items():
            if server in promises.servers and not self.world.has_data(image):
                yield f"lost: image {image} of server {server}"
        for server in promises.servers:
            if server not in self.users.renewed and disks.get(server, 0) < self._written.get(server, 0):
                yield f"lost: writes of server {server}"

    def _disks(self) -> Iterator[tuple[str, int]]:
        """How many boots the disk of each server has seen, on the host that the server is on."""
        for one in list_servers(self.cloud):
            host = self.world.hosts.get(one["OS-EXT-SRV-ATTR:host"] or "")
            machine = host.hypervisor.machines.get(one["id"]) if host else None
            yield one["id"], machine.boots if machine else 0

    def _pass(self, seconds: float) -> None:
        """Every process does what is due, in some order; who dies is started again."""
        order = list(zip(self.world.loops, self.world.owners, strict=True))
        self.random.shuffle(order)
        for loop, owner in order:
            try:
                loop.run_once()
            except Crash:
                self._died(owner)
            except Impossible as law:
                self._laws.append(f"impossible: {law}")
        self.world.now += seconds

    def _died(self, process: str) -> None:
        self.report.deaths += 1
        self.world.restart(process)

    def _cut_power(self, name: str) -> None:
        self.report.power_cuts += 1
        self.users.promises.power_cut = 2
        self.world.hosts[name].cut_power()
        for owner in sorted({owner for owner in self.world.owners if owner.endswith(f"@{name}")}):
            self.world.restart(owner)

    def _destinations(self) -> list[str]:
        """Hosts that servers are on their way to."""
        moves = get(self.cloud, "compute", "/os-migrations", True)["migrations"]
        return sorted(
            {one["dest_compute"] for one in moves if one["status"] in ("migrating", "preparing", "running")}
        )

    def _lose(self, name: str) -> None:
        """A host goes dark, somebody says so, and its servers are wanted elsewhere."""
        self.report.power_cuts += 1
        self.users.promises.power_cut = 2
        self.world.hosts[name].cut_power()
        self.world.stop_agents(name)
        self._just_asked += [f"{name} is lost", *self.users.evacuate(name)]


class SimCloud:
    """What users see of the world.  ``died`` is told which service died of a request, and starts it again."""

    images: tuple[str, str] = (IMAGE, OTHER_IMAGE)

    def __init__(self, world: World, died: Callable[[str], None]) -> None:
        self._world, self._died = world, died
        self.network, self.public = world.base["network"], world.base["public"]
        other = {"name": "m1.other", "ram": 768, "vcpus": 1, "disk": 1, "id": "3"}
        world.call(world.nova, "POST", "/v2.1/flavors", {"flavor": other}, "admin")
        self.sizes: Mapping[str, str] = {"m1.tiny": "1", "m1.other": "3"}

    def ask(self, service: str, method: str, url: str, body: Any = None, admin: bool = False) -> tuple[int, Any]:
        app: App = self._world.nova if service == "compute" else self._world.neutron
        path = f"/v2.1{url}" if service == "compute" else url
        headers = {"X-Auth-Token": "admin" if admin else "alice", "OpenStack-API-Version": "compute 2.67"}
        try:
            status, answer, _ = app.call(method, path, body, headers)
        except Crash:
            self._died(app.name)
            raise Unanswered from None
        assert status < 500, f"{method} {url}: {status} {answer}"
        return status, answer


def leaked(world: World, promises: Promises) -> Iterator[str]:
    """What hosts and tables hold of things that nobody has any more."""
    ports = {
        port["id"]
        for server in promises.servers
        for port in world.call(world.neutron, "GET", f"/v2.0/ports?device_id={server}")["ports"]
    }
    seen: set[str] = set()
    for host in world.hosts.values():
        for server, machine in host.hypervisor.machines.items():
            on_trial = promises.holds(server, "VERIFY_RESIZE") if server in promises.servers else False
            if server not in promises.servers or (server in seen and not on_trial):
                yield f"leaked: machine {server} on {host.name}"
            if machine.copies or (machine.before and not on_trial):
                yield f"leaked: copies of the disk of {server} on {host.name}"
            seen.add(server)
        yield from (f"leaked: tap {port} on {host.name}" for port in host.hypervisor.taps.keys() - ports)
    yield from (f"leaked: row of {table}" for table in world.rows_of_others(promises.servers))


@contextmanager
def repeatable(seed: int) -> Iterator[None]:
    """Ids, MAC addresses, numbers of networks and the scheduler's choices come from the seed."""
    random, real = Random(seed), (uuid.uuid4, secrets.randbits, secrets.randbelow)
    uuid.uuid4 = lambda: uuid.UUID(int=random.getrandbits(128), version=4)
    secrets.randbits = lambda k: random.getrandbits(k)
    secrets.randbelow = lambda exclusive_upper_bound: random.randrange(exclusive_upper_bound)
    try:
        yield
    finally:
        uuid.uuid4, secrets.randbits, secrets.randbelow = real
