"""Many hosts in one process, and their agents: ``python -m cumulet.sim.fleet HOSTS``.

Agents, loops, hints, signs of life and HTTP with a token for each host are the real ones; only what the agents do
to their host is not (``cumulet.sim``).  A host of one's own has a process for each agent and a thread for each of
its loops.  Here a few threads share all of them: each host belongs to one, which runs whatever of it is due, so a
host has one connection to a service, and not one for each loop.

Every host computes; the first ``NETWORK_NODES`` also serve DHCP and routers.
"""

import heapq
import random
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from ipaddress import IPv4Address
from typing import Any

from cumulet.core import clock, log, secrets
from cumulet.core import config as configuration
from cumulet.core.bus import EVERYTHING, SocketBus
from cumulet.core.client import Controller
from cumulet.core.config import Config
from cumulet.core.heartbeat import Heartbeat
from cumulet.core.reconcile import Loop, Reconciler
from cumulet.core.run import signs_of_life
from cumulet.neutron.dhcp.agent import DhcpAgent
from cumulet.neutron.l2.agent import SWITCH, L2Agent
from cumulet.neutron.l3.agent import L3Agent
from cumulet.nova.compute.agent import ComputeAgent, HttpConductor
from cumulet.nova.model import Inventory
from cumulet.services import BY_NAME
from cumulet.sim.hypervisor import SimHypervisor
from cumulet.sim.network import SimDhcp, SimRouters
from cumulet.sim.switch import SimSwitch

INVENTORY = Inventory(512, 1 << 20, 100_000, "qemu", 9_000_000, "sim", "sim")
NETWORK_NODES = 10
TUNNELS = IPv4Address("10.128.0.1")
"""Where the first one's tunnels end."""
THREADS = 4
LONGEST_WAIT = 60.0


class Crew:
    """One thread that runs many loops, each when its next pass is due."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, SharedLoop]] = []
        self._changed = threading.Condition()
        self._count = 0

    def call(self, loop: "SharedLoop") -> None:
        """Have the loop looked at when it is due; as often as one likes."""
        at = time.monotonic() + loop.seconds_to_next()
        with self._changed:
            if at < loop.called_for:
                loop.called_for = at
                self._count += 1
                heapq.heappush(self._due, (at, self._count, loop))
                self._changed.notify()

    def run(self) -> None:
        """The body of the thread."""
        while True:
            loop = self._next()
            loop.run_once()
            self.call(loop)

    def _next(self) -> "SharedLoop":
        with self._changed:
            while True:
                wait = self._due[0][0] - time.monotonic() if self._due else LONGEST_WAIT
                if wait > 0:
                    self._changed.wait(wait)
                    continue
                at, _, loop = heapq.heappop(self._due)
                if at == loop.called_for:  # not called for an earlier time since
                    loop.called_for = float("inf")
                    return loop


class SharedLoop(Loop[Any]):
    """A loop that has no thread of its own."""

    def __init__(self, reconciler: Reconciler[Any], crew: Crew) -> None:
        super().__init__(reconciler)
        self.called_for = float("inf")  # the crew's
        self._crew = crew

    def wake(self, key: str = EVERYTHING) -> None:
        super().wake(key)
        self._crew.call(self)


class Host:
    """One host and its agents; they are called ``sim00000`` and so on."""

    def __init__(self, config: Config, known: secrets.Secrets, number: int) -> None:
        self.name = name = f"sim{number:05}"
        tunnel_address = str(TUNNELS + number)
        token = secrets.host_token(known.host_secret, name)
        self._nova = _client("nova-conductor", config, name, token)
        self._neutron = _client("neutron-server", config, name, token)
        self._switch = SimSwitch(tunnel_address=tunnel_address)
        self._hypervisor = SimHypervisor(INVENTORY, on_tap=self._on_tap, is_wired=self._switch.is_wired)
        self._compute = ComputeAgent(
            HttpConductor(self._nova, name),
            self._hypervisor,
            config,
            boot_id=self._hypervisor.boot_id,
            topic=f"nova.hosts.{name}",
            workers=1,
        )
        self.agents: dict[str, list[Reconciler[Any]]] = {
            "nova-compute": self._compute.reconcilers(),
            "neutron-openvswitch-agent": [L2Agent(self._neutron, name, self._switch, config).reconciler()],
        }
        if number < NETWORK_NODES:
            dhcp = DhcpAgent(self._neutron, name, SimDhcp(self._switch))
            l3 = L3Agent(self._neutron, name, SimRouters(self._switch))
            self.agents |= {"neutron-dhcp-agent": [dhcp.reconciler()], "neutron-l3-agent": [l3.reconciler()]}

    def start(self, bus: SocketBus, crew: Crew, heartbeat_seconds: float) -> None:
        """All its loops; the switch wakes its agent only."""
        since = clock.now()
        for binary, reconcilers in self.agents.items():
            loops = [SharedLoop(one, crew) for one in reconcilers]
            for loop in loops:
                loop.listen(bus)
                if loop.reconciler.name == "ports":
                    self._switch.watch(lambda loop=loop: loop.wake(SWITCH))  # type: ignore[misc]
            signs = signs_of_life(self._beat(binary), self._details(binary), loops, since, heartbeat_seconds)
            for loop in (*loops, SharedLoop(signs, crew)):
                crew.call(loop)

    def _beat(self, binary: str) -> Callable[[Heartbeat], None]:
        controller = self._nova if binary == "nova-compute" else self._neutron
        return partial(controller.post, f"/hosts/{self.name}/heartbeat/{binary}")

    def _details(self, binary: str) -> Callable[[], dict[str, Any]]:
        if binary == "nova-compute":
            return self._compute.details
        return lambda: {"tunnel_address": self._switch.tunnel_address, "tunnel_types": ["vxlan"]}

    def _on_tap(self, port_id: str) -> None:
        if port_id in self._hypervisor.taps:
            self._switch.add_device(port_id)
        else:
            self._switch.remove_device(port_id)


def _client(service: str, config: Config, host: str, token: str) -> Controller:
    return Controller(service, config.controller_urls(BY_NAME[service].port), host, token)


def main(count: int) -> None:
    """Run ``count`` hosts until this process is ended; they come one after another, as after a power cut."""
    config = configuration.load()
    log.setup("simulated-hosts", config.logs)
    known, bus = secrets.load(config.etc), SocketBus(config.run / "bus")
    crews = [Crew() for _ in range(THREADS)]
    for crew in crews:
        threading.Thread(target=crew.run, daemon=True).start()
    for number in range(count):
        Host(config, known, number).start(bus, crews[number % THREADS], config.agents.heartbeat_seconds)
        time.sleep(random.uniform(0, config.agents.heartbeat_seconds / count))
    while True:
        time.sleep(LONGEST_WAIT)


if __name__ == "__main__":
    main(int(sys.argv[1]))
