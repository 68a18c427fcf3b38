"""neutron-server as the L2 agent sees it, made of dictionaries."""

from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from cumulet.core.errors import Retry
from cumulet.neutron.model import Rule, Segment, WireIntent, WirePort

T = TypeVar("T")
ANY4, ANY6 = Rule("egress", 4), Rule("egress", 6)


@dataclass
class FakeController:
    """What it is asked for comes from these; reports are written into the ports, as the real one does."""

    ports: dict[str, WirePort] = field(default_factory=dict)
    segments: dict[str, Segment] = field(default_factory=dict)
    rules: dict[str, tuple[Rule, ...]] = field(default_factory=dict)
    members: dict[str, tuple[str, ...]] = field(default_factory=dict)
    reports: list[dict[str, int]] = field(default_factory=list)
    away: bool = False
    cloud: str = ""

    def get(self, path: str, kind: type[T]) -> T:
        self._check()
        ports, segments = tuple(self.ports.values()), dict(self.segments)
        intent = WireIntent(ports, segments, dict(self.rules), dict(self.members), self.cloud)
        return msgspec.json.decode(msgspec.json.encode(intent), type=kind)

    def post(self, path: str, body: Any) -> None:
        self._check()
        self.reports.append(dict(body.wired))
        for port_id, generation in body.wired.items():
            if port_id in self.ports:
                self.change(port_id, wired_generation=generation, wired_in=body.boot_id)

    def add(self, port: WirePort) -> WirePort:
        self.ports[port.id] = port
        return port

    def change(self, port_id: str, **fields: Any) -> None:
        self.ports[port_id] = msgspec.structs.replace(self.ports[port_id], **fields)

    def _check(self) -> None:
        if self.away:
            raise Retry("neutron-server does not answer")


def a_port(port_id: str, network_id: str, mac: str, *ips: str, **fields: Any) -> WirePort:
    more: dict[str, Any] = {"device_owner": "compute:nova", "generation": 1, "wired_generation": 0} | fields
    return WirePort(id=port_id, network_id=network_id, mac=mac, ips=ips, **more)
