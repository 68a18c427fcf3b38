"""neutron-l3-agent: make this host route as the intent says, and report what is in place.

One key per router, each a namespace of its own: what one router's owner asks for can break that router only.
A router without an intent is left alone: only a tombstone takes it away.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from cumulet.core.client import Controller
from cumulet.core.reconcile import Later, Reconciler
from cumulet.core.service import HostEnv, Service
from cumulet.neutron.l3.rivals import Rivals
from cumulet.neutron.model import RouterIntent, RouterSeen


@dataclass(frozen=True)
class Placed:
    """What ``ensure`` brought about.  ``again_seconds``: when to be called again, to repeat announcements."""

    floating: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    again_seconds: float = 0.0


class RouterHost(Protocol):
    """The host's routers.  Each method may be called again with no further effect."""

    def look(self) -> frozenset[str]:
        """The ids of the routers of which this host has something."""

    def ensure(self, intent: RouterIntent) -> Placed:
        """Route as wanted."""

    def remove(self, router_id: str) -> None: ...


class L3Agent:
    """``announced`` is called when a router's addresses have been announced on its links."""

    def __init__(
        self,
        controller: Controller,
        host: str,
        routers: RouterHost,
        resync_seconds: float = 30.0,
        announced: Callable[[], None] = lambda: None,
    ) -> None:
        self._controller, self._host, self._routers = controller, host, routers
        self._resync_seconds, self._announced = resync_seconds, announced
        self._here: frozenset[str] = frozenset()

    def reconciler(self) -> Reconciler[RouterIntent]:
        return Reconciler(
            "routers",
            self.read,
            self.reconcile,
            before=self.before,
            topics=(f"neutron.routers.{self._host}",),
            resync_seconds=self._resync_seconds,
            events=False,
        )

    def read(self) -> Mapping[str, RouterIntent]:
        return self._controller.get(f"/hosts/{self._host}/routers", dict[str, RouterIntent])

    def before(self, _: Mapping[str, RouterIntent]) -> None:
        self._here = self._routers.look()

    def reconcile(self, intent: RouterIntent) -> Later | None:
        placed = Placed()
        if not intent.absent:
            placed = self._routers.ensure(intent)
        elif intent.id in self._here:
            self._routers.remove(intent.id)
        if intent.absent or intent.seen_generation != intent.generation:
            running = intent.admin_up and not intent.absent
            seen = RouterSeen(intent.generation, running, "; ".join(placed.refused), placed.floating)
            self._controller.post(f"/hosts/{self._host}/routers", {intent.id: seen})
        if placed.again_seconds:
            self._announced()
        return Later(placed.again_seconds, "announce once more") if placed.again_seconds else None

    def details(self) -> dict[str, object]:
        return {"routers": len(self._here)}


def build(env: HostEnv) -> Service:
    from cumulet.neutron.l3.driver import KernelRouters
    from cumulet.neutron.l3.voices import KernelVoices

    resync_seconds, voices = env.config.agents.resync_seconds, KernelVoices(env.config)
    agent = L3Agent(env.neutron, env.host, KernelRouters(env.config), resync_seconds, voices.listen)
    rivals = Rivals(env.neutron, env.host, voices, resync_seconds)

    def start(wake: Callable[[str], None]) -> None:
        def hear(router_id: str) -> None:
            rivals.hear(router_id)
            wake(router_id)

        voices.start(hear)

    return Service(
        loops=[agent.reconciler(), rivals.reconciler()], start=start, stop=voices.stop, details=agent.details
    )
