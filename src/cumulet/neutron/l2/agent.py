"""neutron-openvswitch-agent: wires this host's ports to their networks.

A pass reads the whole intent of the host, looks at the whole switch, plans (pure), and applies the difference.
There is one key for the wiring as a whole and one for each port, whose outcome says what that port waits for.
Nothing has to be remembered: local VLANs are in the tags on the switch, flows carry digests of themselves, and
what the controller believes is in the intent.

What may fail: Open vSwitch or the controller is away (nothing is touched; frames go on as they went), a device is
not there yet (its port waits; the switch's own watch wakes the loop), one port is not expressible (it stays cut
off, the others are wired).  A controller that suddenly knows none of many wired ports is not believed; and one with
another database than that by which a port was wired cannot cut it off: such strangers stay as they are.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from cumulet.core.config import Config
from cumulet.core.errors import Retry, Terminal
from cumulet.core.reconcile import Outcome, Reconciler
from cumulet.core.service import HostEnv, Service
from cumulet.host.boot import read_boot_id
from cumulet.neutron.l2.plan import (
    Base,
    Look,
    Wiring,
    find_base,
    list_lost,
    list_strangers,
    plan_wiring,
    with_strangers,
)
from cumulet.neutron.l2.switch import OvsSwitch
from cumulet.neutron.model import WireIntent, WireSeen

LOG = logging.getLogger(__name__)
T = TypeVar("T")
SWITCH = "switch"
"""The key of the wiring as a whole: there also when the host has no port."""
SPACING_SECONDS, GATHERING_SECONDS = 0.1, 1.0
"""Each new member of a security group concerns all hosts that let its members in, each new host of a network all
that have it: many new ones cost one pass.  What happens at the switch does not wait: a device that appears is a
guest that wants to start."""


class Switch(Protocol):
    """The host's virtual switch.  Each method may be repeated; ``Retry`` says that the switch is away."""

    def look(self) -> Look:
        """The whole switch, changing nothing."""

    def apply(self, change: Base | Wiring) -> None:
        """Change only what differs.  No port passes a frame before all of its flows are there."""

    def recall(self) -> WireIntent:
        """What it was last wired by; empty if that is not known."""

    def watch(self, on_change: Callable[[], None]) -> Callable[[], None]:
        """Call ``on_change`` when the switch may have changed, until what is returned is called."""


class Controller(Protocol):
    """neutron-server, as ``core.client.Controller`` reaches it."""

    def get(self, path: str, kind: type[T]) -> T: ...
    def post(self, path: str, body: Any) -> None: ...


@dataclass(frozen=True)
class Wanted:
    """One key of a pass, with the whole document that it is part of."""

    intent: WireIntent
    generation: int = 0


class L2Agent:
    """One host's; ``reconciler`` is what its loop runs."""

    def __init__(
        self, controller: Controller, host: str, switch: Switch, config: Config, boot_id: str = ""
    ) -> None:
        self._controller, self._host, self._switch, self._boot_id = controller, host, switch, boot_id
        self._unwire_limit = config.network.unwire_limit
        self._resync_seconds = config.agents.resync_seconds
        self._strangers: dict[str, str] = {}
        self._planned: tuple[WireIntent, Look, Wiring] | None = None

    def reconciler(self) -> Reconciler[Wanted]:
        return Reconciler(
            "ports",
            self.read,
            reconcile_all=self.reconcile_all,
            topics=(f"neutron.ports.{self._host}",),
            resync_seconds=self._resync_seconds,
            spacing=SPACING_SECONDS,
            gathering=GATHERING_SECONDS,
            prompt=frozenset({SWITCH}),
        )

    def read(self) -> Mapping[str, Wanted]:
        intent = self._controller.get(f"/hosts/{self._host}/ports", WireIntent)
        return {SWITCH: Wanted(intent)} | {port.id: Wanted(intent, port.generation) for port in intent.ports}

    def reconcile_all(self, due: Mapping[str, Wanted]) -> Mapping[str, Outcome]:
        """Wire everything, whichever keys are due: the flows of a bridge are one set."""
        told = next(iter(due.values())).intent
        look = self._switch.look()
        intent = self._with_strangers(told, look)
        lost = list_lost(intent, look)
        if len(lost) > self._unwire_limit:
            raise Retry(
                f"{len(lost)} wired ports of this host are no longer in the intent, which is more than "
                f"network.unwire_limit ({self._unwire_limit}) in one pass: nothing is touched. If it is meant, "
                f"raise the limit; the first of them: {', '.join(sorted(one.port_id for one in lost)[:5])}"
            )
        if base := find_base(intent, look):
            self._switch.apply(base)
            look = self._switch.look()
        wiring = self._plan(intent, look)
        self._switch.apply(wiring)
        outcomes: dict[str, Outcome] = {key: Retry(reason) for key, reason in wiring.reasons.items()}
        if not look.complete:
            outcomes[SWITCH] = Retry("the bridges of this host are not complete")
        return outcomes | self._report(told, wiring)

    def strangers(self) -> list[str]:
        """Ports of another cloud, which are left as they are."""
        return sorted(self._strangers)

    def _with_strangers(self, intent: WireIntent, look: Look) -> WireIntent:
        """Retry if there is a stranger of whom nothing is known but that it is wired."""
        strangers = list_strangers(intent, look)
        if strangers != self._strangers and strangers:
            LOG.warning("wired by another database, left as they are: %s", ", ".join(sorted(strangers)))
        self._strangers = strangers
        if not strangers:
            return intent
        found = with_strangers(intent, strangers, self._switch.recall(), look)
        if unknown := sorted(strangers.keys() - {port.id for port in found.ports}):
            raise Retry(
                f"{len(unknown)} ports of this host were wired by another database than the controller's, and "
                "nothing is known of them: nothing is touched until their devices go; the first of them: "
                f"{', '.join(unknown[:5])}"
            )
        return found

    def _plan(self, intent: WireIntent, look: Look) -> Wiring:
        """A plan is pure: for the same document and an equal look it is the one that was made before."""
        if self._planned is None or self._planned[0] is not intent or self._planned[1] != look:
            self._planned = (intent, look, plan_wiring(intent, look, self._strangers))
        return self._planned[2]

    def _report(self, intent: WireIntent, wiring: Wiring) -> dict[str, Outcome]:
        """Tell the controller what differs from what it believes."""
        in_force = {port.id: wiring.wired.get(port.id, 0) for port in intent.ports}
        news = {
            port.id: in_force[port.id]
            for port in intent.ports
            if (port.wired_generation, port.wired_in) != (in_force[port.id], self._boot_id)
        }
        if not news:
            return {}
        try:
            self._controller.post(f"/hosts/{self._host}/ports", WireSeen(news, self._boot_id))
        except (Retry, Terminal) as reason:
            return {key: Retry(f"not reported: {reason}") for key in news}
        LOG.info("%d ports wired, %d not", sum(map(bool, news.values())), sum(not one for one in news.values()))
        return {}


def build(env: HostEnv) -> Service:
    switch = OvsSwitch(env.config)
    agent = L2Agent(env.neutron, env.host, switch, env.config, read_boot_id(env.config.run))
    stops: list[Callable[[], None]] = []

    def stop() -> None:
        for end in stops:
            end()

    return Service(
        loops=(agent.reconciler(),),
        start=lambda wake: stops.append(switch.watch(lambda: wake(SWITCH))),
        stop=stop,
        details=lambda: _details(env.config, switch) | {"strangers": agent.strangers()},
    )


def _details(config: Config, switch: OvsSwitch) -> dict[str, Any]:
    """What the controller must know of this agent: where its tunnels end."""
    return {
        "tunnel_address": config.network.tunnel_address,
        "tunnel_types": ["vxlan"] if config.network.tunnel_address else [],
        "datapath_type": switch.datapath,
    }
