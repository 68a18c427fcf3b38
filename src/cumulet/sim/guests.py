"""The guests of a simulated host: what lies and runs there, and what the world does to them.

A test makes calls fail, ends guests, cuts the power; nova-compute knows of none of it, and calls what
``sim.hypervisor`` makes of this.  ``effect`` surrounds every lasting change, so that a test can count them all and
die just before or just after any one, in the middle of a method too.  Time is virtual: ``Latency`` says what the
real thing takes, and ``pause`` is called with it.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from cumulet.nova.model import Domain, Inventory, ServerIntent, Verb
from cumulet.sim.machine import Machine

INVENTORY = Inventory(
    vcpus=4,
    memory_mb=8192,
    disk_gb=100,
    virt_type="qemu",
    hypervisor_version=9000000,
    cpu_model="sim",
    address="sim",
)


@dataclass(frozen=True)
class Latency:
    """Seconds that each method takes; ``stop`` is the guest's own time, during which ``stop`` is called again."""

    make_disk: float = 0.0
    plug: float = 0.0
    define: float = 0.0
    start: float = 0.0
    stop: float = 0.0
    destroy: float = 0.0


class SimGuests:
    """Failure knobs: ``fail_next``, ``refused_images``, ``deaf`` (guests that hear no shutdown request)."""

    def __init__(
        self,
        inventory: Inventory = INVENTORY,
        *,
        latency: Latency | None = None,
        clock: Callable[[], float] = lambda: 0.0,
        pause: Callable[[float], None] = lambda seconds: None,
        stop_seconds: float = 60.0,
        on_tap: Callable[[str], None] = lambda port_id: None,
        is_wired: Callable[[str], bool] = lambda port_id: True,
        upload: Callable[[Verb], None] = lambda verb: None,
        others: Mapping[str, "SimGuests"] | None = None,
    ) -> None:
        self.machines: dict[str, Machine] = {}
        self.taps: dict[str, str] = {}  # port id → server id
        self.boots = 1
        self.refused_images: dict[str, str] = {}  # image id → why
        self.deaf: set[str] = set()  # servers
        self._failures: dict[str, list[Exception]] = {}
        self._inventory, self._latency = inventory, latency or Latency()
        self._clock, self._pause, self._stop_seconds = clock, pause, stop_seconds
        self._on_tap, self._is_wired, self._upload = on_tap, is_wired, upload
        self._wake: Callable[[str], None] = lambda server_id: None
        self._others = {} if others is None else others  # by host: where disks come from

    @property
    def boot_id(self) -> str:
        return f"boot-{self.boots}"

    @contextmanager
    def effect(self, name: str) -> Iterator[None]:
        """A seam: around every lasting change."""
        yield

    def fail_next(self, method: str, *errors: Exception) -> None:
        """The next calls of ``method`` raise these, before they have changed anything."""
        self._failures.setdefault(method, []).extend(errors)

    def end_guest(self, server_id: str, state: str = "off") -> None:
        """The guest shuts itself down ('off') or dies ('crashed')."""
        self._end(server_id, state)

    def cut_power(self) -> None:
        """The host goes dark and boots again: nothing runs, no tap is left, what is on disk stays."""
        self.boots += 1
        self.taps.clear()
        self.lose_process()
        for machine in self.machines.values():
            machine.state = "suspended" if machine.state == "suspended" else "off"
            machine.stop_at = None

    def break_off(self, server_id: str) -> None:
        """What is on its way, to or from this host, does not come through; the guest runs on where it was."""
        for machine in (host.machines.get(server_id) for host in self._others.values()):
            if machine:
                machine.break_off()

    def lose_process(self) -> None:
        """nova-compute has died, and with it every connection to another host."""
        for server_id, machine in self.machines.items():
            if machine.progress or machine.state == "incoming":
                self.break_off(server_id)

    def change_inventory(self, inventory: Inventory) -> None:
        self._inventory = inventory

    @property
    def running(self) -> list[str]:
        return sorted(key for key, machine in self.machines.items() if machine.state == "on")

    def _domain(self, server_id: str, taps: frozenset[str]) -> Domain:
        machine = self.machines.get(server_id)
        if machine is None:
            return Domain(taps=taps)
        return machine.domain(taps)

    def _machine(self, server_id: str) -> Machine:
        return self.machines.setdefault(server_id, Machine())

    def _boot(self, machine: Machine, server: ServerIntent) -> None:
        self._check_alone(server.id)
        machine.state, machine.stop_at, machine.written = "on", None, True
        machine.boots, machine.memory_mb = machine.boots + 1, server.memory_mb
        machine.starts += 1
        machine.console += f"{server.name} boots, time {machine.starts}\n".encode()

    def _check_alone(self, server_id: str) -> None:
        for other in self._others.values():
            rival = other.machines.get(server_id)
            assert other is self or rival is None or rival.state != "on", "a server runs on two hosts"

    def _end(self, server_id: str, state: str) -> None:
        machine = self.machines[server_id]
        with self.effect(f"{server_id} is {state}"):
            machine.state, machine.stop_at = state, None
        self._wake(server_id)

    def _begin(self, method: str, seconds: float) -> None:
        """Take the method's time, and fail if it is to fail."""
        if seconds:
            self._pause(seconds)
        errors = self._failures.get(method)
        if errors:
            raise errors.pop(0)

    def _check_wired(self, port_ids: frozenset[str]) -> None:
        for port_id in port_ids:
            assert self._is_wired(port_id), f"a guest got port {port_id} before it was wired"
