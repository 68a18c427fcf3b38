"""The agents of some hosts in one process, on hosts of dictionaries: ``python -m benchmarks.simulated_hosts N``.

Agents, loops, hints and HTTP are the real ones; only what the agents do to their host is not.
"""

import sys
import threading
import time
from typing import Any

from cumulet.core import clock, log, secrets
from cumulet.core import config as configuration
from cumulet.core.bus import SocketBus
from cumulet.core.client import Controller
from cumulet.core.config import Config
from cumulet.core.heartbeat import Heartbeat
from cumulet.core.reconcile import Loop, Reconciler
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
NETWORK_AGENTS = ("neutron-openvswitch-agent", "neutron-dhcp-agent", "neutron-l3-agent")


class Host:
    """One host and its agents."""

    def __init__(self, config: Config, known: secrets.Secrets, name: str) -> None:
        token = secrets.host_token(known.host_secret, name)
        self.name = name
        self.nova = _client("nova-conductor", config, name, token)
        self.neutron = _client("neutron-server", config, name, token)
        self.switch = SimSwitch()
        self.hypervisor = SimHypervisor(INVENTORY, on_tap=self._on_tap, is_wired=self.switch.is_wired)
        self.compute = ComputeAgent(
            HttpConductor(self.nova, name),
            self.hypervisor,
            config,
            boot_id=self.hypervisor.boot_id,
            topic=f"nova.hosts.{name}",
        )
        self.wires = L2Agent(self.neutron, name, self.switch, config)
        self.dhcp = DhcpAgent(self.neutron, name, SimDhcp(self.switch))
        self.l3 = L3Agent(self.neutron, name, SimRouters(self.switch))

    def loops(self) -> list[Reconciler[Any]]:
        agents = (self.wires, self.dhcp, self.l3)
        return [*self.compute.reconcilers(), *(agent.reconciler() for agent in agents)]

    def start(self, bus: SocketBus) -> None:
        """Each loop a thread, as in the agents' own processes; the switch wakes its agent only."""
        for reconciler in self._reconcilers():
            loop = Loop(reconciler)
            loop.listen(bus)
            if reconciler.name == "ports":
                self.switch.watch(lambda loop=loop: loop.wake(SWITCH))  # type: ignore[misc]
            threading.Thread(target=loop.run, name=f"{self.name} {reconciler.name}", daemon=True).start()

    def _reconcilers(self) -> list[Reconciler[Any]]:
        agents = (self.wires, self.dhcp, self.l3)
        return [*self.compute.reconcilers(), *(agent.reconciler() for agent in agents)]

    def beat(self, since: str) -> None:
        self.nova.post(f"/hosts/{self.name}/heartbeat/nova-compute", Heartbeat(since, self.compute.details()))
        for binary in NETWORK_AGENTS:
            self.neutron.post(f"/hosts/{self.name}/heartbeat/{binary}", Heartbeat(since, {}))

    def _on_tap(self, port_id: str) -> None:
        if port_id in self.hypervisor.taps:
            self.switch.add_device(port_id)
        else:
            self.switch.remove_device(port_id)


def _client(service: str, config: Config, host: str, token: str) -> Controller:
    return Controller(service, f"http://{config.api.controller}:{BY_NAME[service].port}", host, token)


def main(count: int) -> None:
    config = configuration.load()
    log.setup("simulated-hosts", config.logs)
    known = secrets.load(config.etc)
    bus = SocketBus(config.run / "bus")
    hosts = [Host(config, known, f"sim{number:03}") for number in range(count)]
    since = clock.now()
    for host in hosts:
        host.beat(since)
        host.start(bus)
    while True:
        time.sleep(config.agents.heartbeat_seconds)
        for host in hosts:
            host.beat(since)


if __name__ == "__main__":
    main(int(sys.argv[1]))
