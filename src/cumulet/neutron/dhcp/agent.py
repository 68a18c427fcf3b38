"""neutron-dhcp-agent: make this host serve addresses as the intent says, and report what it serves.

One key per network.  A network without an intent is left alone: only a tombstone takes it away.
"""

from collections.abc import Mapping
from typing import Protocol

from cumulet.core.client import Controller
from cumulet.core.reconcile import Later, Reconciler
from cumulet.core.service import HostEnv, Service
from cumulet.neutron.model import DhcpIntent, DhcpSeen

LOOK_SECONDS = 10.0
"""dnsmasq may die by itself; nobody tells."""
SPACING_SECONDS = 0.1
"""Each port of a network changes what dnsmasq has to know: many that are made one after another cost one pass."""


class DhcpHost(Protocol):
    """The host's DHCP servers.  Each method may be called again with no further effect."""

    def look(self) -> frozenset[str]:
        """The ids of the networks of which this host has something."""

    def ensure(self, intent: DhcpIntent) -> tuple[str, ...]:
        """Serve the network as wanted; returns what of its configuration was refused, and why."""

    def remove(self, network_id: str) -> None: ...


class DhcpAgent:
    def __init__(self, controller: Controller, host: str, dhcp: DhcpHost) -> None:
        self._controller, self._host, self._dhcp = controller, host, dhcp
        self._here: frozenset[str] = frozenset()

    def reconciler(self) -> Reconciler[DhcpIntent]:
        return Reconciler(
            "dhcp",
            self.read,
            self.reconcile,
            before=self.before,
            topics=(f"neutron.dhcp.{self._host}",),
            resync_seconds=LOOK_SECONDS,
            spacing=SPACING_SECONDS,
        )

    def read(self) -> Mapping[str, DhcpIntent]:
        return self._controller.get(f"/hosts/{self._host}/dhcp", dict[str, DhcpIntent])

    def before(self, _: Mapping[str, DhcpIntent]) -> None:
        self._here = self._dhcp.look()

    def reconcile(self, intent: DhcpIntent) -> Later | None:
        fault = ""
        if not intent.absent:
            fault = "; ".join(self._dhcp.ensure(intent))
        elif intent.network_id in self._here:
            self._dhcp.remove(intent.network_id)
        if intent.absent or intent.seen_generation != intent.generation:
            seen = DhcpSeen(intent.generation, not intent.absent, fault)
            self._controller.post(f"/hosts/{self._host}/dhcp", {intent.network_id: seen})
        return None

    def details(self) -> dict[str, object]:
        return {"networks": len(self._here)}


def build(env: HostEnv) -> Service:
    from cumulet.neutron.dhcp.driver import DnsmasqHost

    agent = DhcpAgent(env.neutron, env.host, DnsmasqHost(env.config))
    return Service(loops=[agent.reconciler()], details=agent.details)
