"""One host of a simulated cloud: hypervisor, switch, DHCP servers and routers, all made of dictionaries."""

from collections.abc import Callable

from cumulet.nova.model import Verb
from cumulet.sim.effects import Effects
from cumulet.sim.hypervisor import SimHypervisor
from cumulet.sim.network import SimDhcp, SimRouters
from cumulet.sim.switch import SimSwitch


class SimHost:
    """A tap that the hypervisor makes is a device of the switch, as the kernel has it."""

    def __init__(
        self, name: str, effects: Effects, upload: Callable[[Verb], None], others: dict[str, SimHypervisor]
    ) -> None:
        self.name = name
        self.switch = SimSwitch()
        self.hypervisor = SimHypervisor(on_tap=self._on_tap, is_wired=self._is_wired, upload=upload, others=others)
        others[name] = self.hypervisor
        self.dhcp = SimDhcp(self.switch)
        self.routers = SimRouters(self.switch)
        for part in (self.switch, self.hypervisor, self.dhcp, self.routers):
            part.effect = effects.effect  # type: ignore[method-assign]

    def _on_tap(self, port_id: str) -> None:
        if port_id in self.hypervisor.taps:
            self.switch.add_device(port_id)
        else:
            self.switch.remove_device(port_id)

    def _is_wired(self, port_id: str) -> bool:
        return self.switch.is_wired(port_id)

    def cut_power(self) -> None:
        """The host goes dark and boots again."""
        for part in (self.hypervisor, self.dhcp, self.routers):
            part.cut_power()
        self.switch.devices.clear()
        self.switch.restart()

    def left_over(self) -> list[object]:
        """Everything on this host that belongs to a server, a network or a router."""
        places = (self.hypervisor.machines, self.hypervisor.taps, *self.switch.holdings())
        return [place for place in (*places, *self.dhcp.holdings(), *self.routers.holdings()) if place]
