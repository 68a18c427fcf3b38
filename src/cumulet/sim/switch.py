"""A switch made of dictionaries: the promises of ``neutron.l2.agent.Switch``, and knobs to make it fail.

It keeps flows as text and understands one thing about them: a device passes frames when a flow of br-int admits
its port, and only then.  Flows die with the simulated ovs-vswitchd, tags and devices do not.  ``effect`` surrounds
every lasting change, so that a test can die just before or just after any one.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from cumulet.core.errors import Retry
from cumulet.neutron.l2.flows import EX, INT, TUN
from cumulet.neutron.l2.plan import UNWIRED, Base, Device, Look, Tag, Wiring
from cumulet.neutron.model import WireIntent, device_name

_ADMITS = re.compile(r"table=0,priority=100,in_port=(\d+),")


@dataclass
class SimSwitch:
    """``away``: nothing answers.  ``tunnel_address``: as in the configuration."""

    tunnel_address: str = ""
    devices: dict[str, Device] = field(default_factory=dict)  # by name
    tunnels: dict[str, int] = field(default_factory=dict)
    flows: dict[str, frozenset[str]] = field(default_factory=dict)  # by bridge
    built: bool = False
    away: bool = False
    wired_by: WireIntent = field(default_factory=WireIntent)
    _numbers: Iterator[int] = field(default_factory=lambda: iter(range(10, 1 << 15)))
    _on_change: Callable[[], None] = field(default=lambda: None)

    @contextmanager
    def effect(self, name: str) -> Iterator[None]:
        """A seam: around every lasting change."""
        yield

    # ── what the agent calls ─────────────────────────────────────────────────────────────────────────────────

    def look(self) -> Look:
        self._check()
        tunnelled = self.built and bool(self.tunnel_address)
        return Look(
            datapath="netdev",
            complete=self.built,
            devices=tuple(self.devices[name] for name in sorted(self.devices)),
            to_tunnels=2 if tunnelled else 0,
            from_int=1 if tunnelled else 0,
            to_external=1 if self.built else 0,
            tunnels=dict(self.tunnels),
            tunnel_address=self.tunnel_address,
        )

    def apply(self, change: Base | Wiring) -> None:
        self._check()
        if isinstance(change, Base):
            self._build(change)
            return
        self.wired_by = change.by
        for name, tag in sorted(change.tags.items()):
            self._tag(name, tag)
        for bridge, wanted in sorted(change.flows.items()):
            if self.flows.get(bridge, frozenset()) != frozenset(wanted):
                with self.effect(f"flows of {bridge}"):
                    self.flows[bridge] = frozenset(wanted)
        for name in sorted(change.untags):
            self._tag(name, UNWIRED)
        for peer in sorted(self.tunnels.keys() - change.tunnels):
            with self.effect(f"no tunnel to {peer}"):
                del self.tunnels[peer]

    def recall(self) -> WireIntent:
        return self.wired_by

    def watch(self, on_change: Callable[[], None]) -> Callable[[], None]:
        self._on_change = on_change
        return self._end_watch

    # ── what other agents do to it ───────────────────────────────────────────────────────────────────────────

    def add_device(self, port_id: str) -> None:
        """A tap, or the outer end of a veth, was plugged; it is cut off until its flows are there."""
        name = device_name(port_id)
        if name not in self.devices:
            self.devices[name] = Device(name, port_id, next(self._numbers))
            self._on_change()

    def remove_device(self, port_id: str) -> None:
        if self.devices.pop(device_name(port_id), None):
            self._on_change()

    def has_device(self, port_id: str) -> bool:
        return device_name(port_id) in self.devices

    def is_wired(self, port_id: str) -> bool:
        """Whether a frame that the port sends is let in, if only to be judged by the filter."""
        device = self.devices.get(device_name(port_id))
        return device is not None and device.number in self.admitted()

    # ── what the world does to it ────────────────────────────────────────────────────────────────────────────

    def restart(self) -> None:
        """ovs-vswitchd was killed and is back: no flows, and every port may have another number."""
        self.flows.clear()
        for name, device in self.devices.items():
            self.devices[name] = replace(device, number=next(self._numbers))
        self._on_change()

    def holdings(self) -> list[object]:
        """What belongs to ports; empty when none is left."""
        return [dict(self.devices), self.admitted()]

    def admitted(self) -> set[int]:
        """The port numbers whose frames br-int lets in."""
        found = (_ADMITS.match(flow) for flow in self.flows.get(INT, ()))
        return {int(match.group(1)) for match in found if match}

    def _build(self, base: Base) -> None:
        if not self.built:
            with self.effect("bridges"):
                self.built = True
                self.flows |= {bridge: frozenset() for bridge in (INT, EX, TUN) if bridge not in self.flows}
        for peer in sorted(base.tunnels - self.tunnels.keys()):
            with self.effect(f"tunnel to {peer}"):
                self.tunnels[peer] = next(self._numbers)

    def _tag(self, name: str, tag: Tag) -> None:
        device = self.devices.get(name)
        if device and device.marks != tag:
            with self.effect(f"tag {name} {tag.tag}"):
                self.devices[name] = replace(device, tag=tag.tag, network_id=tag.network_id, cloud=tag.cloud)

    def _check(self) -> None:
        if self.away:
            raise Retry("the switch does not answer")

    def _end_watch(self) -> None:
        self._on_change = lambda: None
