"""nova-compute against a simulated host and a controller made of dictionaries.

The life of one server is run once to count its lasting effects; then it is run again and again, each time with
the agent killed just before or just after another one of them.  It must always end up the same.
"""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from cumulet.core.client import Controller
from cumulet.core.config import Config
from cumulet.core.errors import Retry, Terminal
from cumulet.core.reconcile import Loop
from cumulet.core.schema import encode
from cumulet.host.boot import read_boot_id
from cumulet.nova.compute.agent import ComputeAgent
from cumulet.nova.compute.console import console_app
from cumulet.nova.compute.file_gifts import Gifts, take_file
from cumulet.nova.compute.screens import Screens
from cumulet.nova.model import Diagnostics, Domain, Fetch, ImageSource, Inventory, Nic, Seen, ServerIntent, Verb
from cumulet.sim.effects import Crash, Effects
from cumulet.sim.guests import INVENTORY, Latency
from cumulet.sim.hypervisor import SimHypervisor
from tests.nova.consoles import serving

NO_SCREENS = Screens(lambda text: "", lambda server_id: socket.socket())
IMAGE = ImageSource("image", "qcow2", 1000, 1 << 30, "0" * 128, "ticket")


class CountedHypervisor(SimHypervisor):
    def __init__(self, effects: Effects, **options: Any) -> None:
        super().__init__(**options)
        self.effects, self.looks = effects, 0

    def look_at(self, server_id: str) -> Domain:
        self.looks += 1
        return super().look_at(server_id)

    @contextmanager
    def effect(self, name: str) -> Iterator[None]:
        with self.effects.effect(name):
            yield


class FakeConductor:
    """The controller's rules in dictionaries; ``nova.hosts`` is the real one."""

    def __init__(self, effects: Effects) -> None:
        self.effects = effects
        self.servers: dict[str, ServerIntent] = {}
        self.gone: list[str] = []
        self.told: list[Seen] = []
        self.wired: set[str] = set()
        self.inventory: Inventory | None = None
        self.down = False

    def read(self) -> Mapping[str, ServerIntent]:
        if self.down:
            raise Retry("nova-conductor does not answer")
        return {key: self._with_wires(server) for key, server in self.servers.items()}

    def report(self, server_id: str, seen: Seen) -> None:
        if server_id not in self.servers:
            return
        self.told.append(seen)
        with self.effects.effect(f"report {server_id} {seen.power}"):
            self._record(self.servers[server_id], seen)

    def config_drive(self, server_id: str) -> Mapping[str, bytes]:
        return {"openstack/latest/meta_data.json": server_id.encode()}

    def find_inventory(self) -> Inventory | None:
        return self.inventory

    def report_inventory(self, inventory: Inventory) -> None:
        with self.effects.effect("report the inventory"):
            self.inventory = inventory

    def _record(self, server: ServerIntent, seen: Seen) -> None:
        if seen.power == "absent" and server.absent and seen.generation == server.generation:
            del self.servers[server.id]
            self.gone.append(server.id)
            return
        done = seen.reached and server.start_generation <= seen.generation
        self.servers[server.id] = replace(
            server,
            seen=replace(seen, verbs_done=(), verb_faults={}),
            verbs=tuple(verb for verb in server.verbs if verb.id not in seen.verbs_done),
            start_generation=0 if done else server.start_generation,
            launched=server.launched or seen.power == "on",
        )

    def _with_wires(self, server: ServerIntent) -> ServerIntent:
        return replace(server, nics=tuple(replace(nic, wired=nic.port_id in self.wired) for nic in server.nics))


class World:
    """One host, its controller and its switch's agent, with a clock and a crash button."""

    def __init__(self, *, hints: bool = True, config: Config | None = None, **options: Any) -> None:
        self.effects, self.hints, self.now = Effects(), hints, 0.0
        self.conductor = FakeConductor(self.effects)
        self.hypervisor = CountedHypervisor(
            self.effects, clock=lambda: self.now, is_wired=lambda port: port in self.conductor.wired, **options
        )
        self.config = config or Config()
        self.boot()

    def boot(self) -> None:
        """(Re)start nova-compute: all memory is lost."""
        self.agent = ComputeAgent(
            self.conductor, self.hypervisor, self.config, boot_id=self.hypervisor.boot_id, workers=1
        )
        self.loops: list[Loop[Any]] = [Loop(one, clock=lambda: self.now) for one in self.agent.reconcilers()]
        if self.hints:
            self.hypervisor.listen(self.loops[0].wake)

    def wire(self) -> None:
        """What the L2 agent does."""
        taps = set(self.hypervisor.taps)
        if taps != self.conductor.wired:
            self.conductor.wired = taps
            if self.hints:
                self.loops[0].wake("*")

    def change(self, server_id: str = "s", **changes: Any) -> None:
        """What nova-api does: another wish, one generation on."""
        server = self.conductor.servers.get(server_id)
        if server is None:
            return
        generation = server.generation + 1
        if changes.pop("start", False):
            changes |= {"power": "on", "start_generation": generation}
        self.conductor.servers[server_id] = replace(server, generation=generation, **changes)
        if self.hints:
            self.loops[0].wake(server_id)

    def create(self, server_id: str = "s", **changes: Any) -> None:
        plain = ServerIntent(
            server_id, "p", "vm", 1, 512, 1, IMAGE, "on", False, 1, (nic(f"{server_id}-1"),), start_generation=1
        )
        self.conductor.servers[server_id] = replace(plain, **changes)

    def run_once(self, step: float = 31.0) -> None:
        for loop in self.loops:
            loop.run_once()
        self.wire()
        self.now += step

    def settle(self, step: float = 31.0, rounds: int = 40) -> None:
        """Let time pass until nothing changes any more; a loop that never rests is a failure."""
        quiet = 0
        for _ in range(rounds):
            before = len(self.effects.log)
            self.run_once(step)
            quiet = quiet + 1 if len(self.effects.log) == before else 0
            if quiet == 3:
                return
        raise AssertionError(f"does not settle: {self.effects.log[-10:]}")

    def survive(self) -> None:
        """Settle, restarting the agent whenever it crashes."""
        while True:
            try:
                return self.settle()
            except Crash:
                self.boot()

    def seen(self, server_id: str = "s") -> Seen:
        seen = self.conductor.servers[server_id].seen
        assert seen is not None
        return seen

    def left_over(self) -> list[object]:
        return [thing for thing in (self.hypervisor.machines, self.hypervisor.taps) if thing]


def nic(port_id: str) -> Nic:
    return Nic(port_id, "fa:16:3e:00:00:01", 1450, "net", False)


# ── the generated crash tests ────────────────────────────────────────────────────────────────────────────────


def life(world: World) -> None:
    """Everything that can happen to a server, in order; each time the world has to come to rest."""
    machine = world.hypervisor.machines
    world.create(config_drive=True)
    world.survive()
    assert world.seen().power == "on"
    world.change(verbs=(Verb(1, "reboot"),), start=True)
    world.survive()
    assert (world.seen().power, world.conductor.servers["s"].verbs) == ("on", ())
    world.change(nics=(nic("s-1"), nic("s-2")))
    world.survive()
    assert machine["s"].nics == {"s-1", "s-2"}
    world.change(nics=(nic("s-2"),))
    world.survive()
    assert machine["s"].nics == set(world.hypervisor.taps) == {"s-2"}
    world.change(power="off")
    world.survive()
    assert world.seen().power == "off"
    world.change(start=True)
    world.survive()
    assert world.seen().power == "on"
    end_guest(world)
    world.survive()
    assert (world.seen().power, machine["s"].state) == ("off", "off")
    world.change(start=True)
    world.survive()
    assert world.seen().power == "on"
    world.hypervisor.cut_power()
    world.boot()
    world.survive()
    assert world.seen().power == "on"


def end_guest(world: World) -> None:
    try:
        world.hypervisor.end_guest("s")
    except Crash:
        world.boot()
        world.hypervisor.end_guest("s")


def end(world: World) -> None:
    world.change(absent=True, nics=(), verbs=())
    world.survive()
    assert world.conductor.gone == ["s"]
    assert world.left_over() == []


def effects_of_one_life() -> list[str]:
    world = World()
    life(world)
    end(world)
    return world.effects.log


EFFECTS = effects_of_one_life()


@pytest.mark.parametrize("hints", [True, False])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", range(len(EFFECTS)))
def test_crash(number: int, when: str, hints: bool) -> None:
    world = World(hints=hints)
    world.effects.crash_at = (number, when)
    life(world)
    end(world)
    assert world.effects.crash_at is None, "never reached"
    assert world.effects.log.count("disk s") == 1


def test_a_life_without_a_crash_starts_a_machine_no_more_often_than_ordered() -> None:
    starts = [name for name in EFFECTS if name.startswith(("start", "reboot"))]
    assert starts == ["start s", "reboot s", "start s", "start s", "start s"]
    assert [name for name in EFFECTS if "report s" in name].count("report s on") == 8


# ── the user changes their mind in the middle of somebody's work ─────────────────────────────────────────────


CHANGES: dict[str, dict[str, Any]] = {
    "deleted": {"absent": True, "nics": (), "verbs": ()},
    "stopped": {"power": "off"},
    "another nic": {"nics": (nic("s-2"),)},
    "no nic": {"nics": ()},
}


@pytest.mark.parametrize("hints", [True, False])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("number", range(EFFECTS.index("report s on") + 1))
def test_changed_in_the_middle_of_a_boot(number: int, change: str, hints: bool) -> None:
    world = World(hints=hints)
    world.create(config_drive=True)
    world.effects.interrupt_at = number
    world.effects.interrupt = lambda: world.change(**CHANGES[change])
    world.settle()
    assert world.effects.interrupt_at is None, "never reached"
    if change == "deleted":
        assert (world.conductor.gone, world.left_over()) == (["s"], [])
        return
    wanted = {port.port_id for port in world.conductor.servers["s"].nics}
    assert world.hypervisor.machines["s"].nics == wanted == set(world.hypervisor.taps)
    assert world.seen().power == ("off" if change == "stopped" else "on")
    assert world.seen().generation == 2


# ── single stories ───────────────────────────────────────────────────────────────────────────────────────────


def test_an_idle_host_costs_one_read_and_one_look() -> None:
    world = World()
    for number in range(20):
        world.create(f"s{number}")
    world.settle()
    looks = world.hypervisor.looks
    world.settle()
    assert world.hypervisor.looks == looks


def test_a_guest_that_ends_itself_is_reported_at_once_and_left_off() -> None:
    world = World()
    world.create()
    world.settle()
    world.hypervisor.end_guest("s", "crashed")
    world.run_once(0.0)
    assert world.seen() == Seen(1, "crashed", boot_id="boot-1", reached=True)
    world.boot()
    world.settle()
    assert world.hypervisor.machines["s"].starts == 1
    world.change(nics=(nic("s-1"), nic("s-2")))
    world.settle()
    assert world.hypervisor.machines["s"].starts == 1, "another nic is no order to start"


def test_a_machine_somebody_removed_comes_back_with_its_disk() -> None:
    world = World()
    world.create()
    world.settle()
    machine = world.hypervisor.machines["s"]
    machine.defined, machine.state, machine.nics = False, "off", frozenset()
    world.settle()
    assert (world.seen().power, world.effects.log.count("disk s")) == ("on", 1)


def test_a_lost_disk_is_a_fault_and_never_a_new_disk() -> None:
    world = World()
    world.create()
    world.settle()
    world.hypervisor.machines.clear()
    world.settle()
    assert world.seen().fault == "The server's disk is not on its host any more."
    assert world.effects.log.count("disk s") == 1
    end(world)


def test_a_refused_image_is_told_once_and_the_server_can_be_deleted() -> None:
    world = World()
    world.hypervisor.refused_images["image"] = "the image is not what it says"
    world.create()
    world.settle()
    assert world.seen().fault == "the image is not what it says"
    assert world.loops[0].failures["s"].kind == "terminal"
    assert world.effects.log.count("report s absent") == 1
    end(world)


def test_what_may_pass_is_tried_again_and_shown_as_waiting() -> None:
    world = World()
    world.hypervisor.fail_next("make_disk", Retry("glance does not answer"), Retry("glance does not answer"))
    world.create()
    world.run_once(5.0)
    assert world.seen().waiting == "glance does not answer"
    assert "glance does not answer" in world.loops[0].failures["s"].reason
    world.settle()
    assert (world.seen().power, world.seen().waiting, world.loops[0].failures) == ("on", "", {})


def test_it_waits_for_the_switch() -> None:
    world = World()
    world.create()
    world.loops[0].run_once()
    assert world.seen() == Seen(1, "off", waiting="ports to be wired", boot_id="boot-1")
    assert world.hypervisor.running == []
    world.settle()
    assert world.hypervisor.running == ["s"]


@pytest.mark.parametrize("deaf", [False, True])
def test_a_guest_has_its_time_to_shut_down(deaf: bool) -> None:
    world = World(latency=Latency(stop=5.0), stop_seconds=20.0)
    world.create()
    world.settle()
    if deaf:
        world.hypervisor.deaf.add("s")
    world.change(power="off")
    started = world.now
    while world.seen().power != "off":
        world.run_once(0.5)
        assert world.now < started + 60
    assert world.now - started == pytest.approx(21.0 if deaf else 6.0, abs=2.0)


def test_a_verb_that_cannot_be_done_is_told_and_not_repeated() -> None:
    world = World()
    world.create()
    world.settle()
    world.conductor.told.clear()
    world.change(verbs=(Verb(5, "rescue"), Verb(6, "reboot")), start=True)
    world.settle()
    assert world.conductor.told[0].verbs_done == (5, 6)
    assert world.conductor.told[0].verb_faults == {"5": "this host cannot rescue a server"}
    assert world.hypervisor.machines["s"].starts == 2


def test_without_a_controller_nothing_is_touched() -> None:
    world = World()
    world.create()
    world.settle()
    world.change(absent=True)
    world.conductor.down = True
    world.settle()
    assert world.hypervisor.running == ["s"]
    assert "does not answer" in world.loops[0].read_failure


def test_an_unknown_machine_is_shown_and_left_alone() -> None:
    world = World()
    world.create()
    world.settle()
    del world.conductor.servers["s"]
    world.settle()
    assert world.hypervisor.running == ["s"]
    assert world.agent.details()["unknown"] == ["s"]


def test_too_many_at_once_are_not_destroyed() -> None:
    config = Config()
    config.compute.destroy_limit = 3
    world = World(config=config)
    for number in range(5):
        world.create(f"s{number}")
    world.settle()
    for number in range(5):
        world.change(f"s{number}", absent=True, nics=())
    world.create("new")
    world.settle()
    assert len(world.hypervisor.running) == 6
    assert "would destroy 5 servers at once" in world.agent.details()["stopped"]
    assert "destroy_limit" in world.seen("s0").waiting
    config.compute.destroy_limit = 5
    world.settle()
    assert world.hypervisor.running == ["new"]
    assert "stopped" not in world.agent.details()


def test_the_inventory_is_told_at_the_start_and_on_change() -> None:
    world = World()
    world.settle()
    assert world.conductor.inventory == INVENTORY
    assert world.effects.log == ["report the inventory"]
    world.hypervisor.change_inventory(replace(INVENTORY, memory_mb=4096))
    world.settle()
    assert world.conductor.inventory is not None
    assert world.conductor.inventory.memory_mb == 4096
    world.conductor.inventory = None
    world.settle()
    assert world.conductor.inventory is not None, "a controller that forgot is told again"
    assert world.agent.details()["inventory"]["memory_mb"] == 4096


def test_many_servers_side_by_side() -> None:
    """Four workers, real threads."""
    effects = Effects()
    conductor = FakeConductor(effects)
    hypervisor = SimHypervisor(on_tap=conductor.wired.add, pause=time.sleep, latency=Latency(start=0.001))
    world = World()
    for number in range(100):
        world.create(f"s{number}")
    conductor.servers = world.conductor.servers
    agent = ComputeAgent(conductor, hypervisor, Config(), boot_id="b")
    loop = Loop(agent.reconcilers()[0])
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        deadline = time.monotonic() + 20
        while len(hypervisor.running) < 100 and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        loop.stop()
        thread.join()
    assert len(hypervisor.running) == 100
    assert all(machine.starts == 1 for machine in hypervisor.machines.values())


# ── the console and the boot id ──────────────────────────────────────────────────────────────────────────────


def get(app: Any, path: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
    """One request to an ASGI application."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    url, _, query = path.partition("?")
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": url,
        "root_path": "",
        "query_string": query.encode(),
        "headers": [(key.lower().encode(), value.encode()) for key, value in headers.items()],
    }
    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


def test_the_console_is_for_the_controller_only() -> None:
    logs = {"s": b"one\ntwo\nthree\n"}
    controller = Controller("nova-conductor", "http://127.0.0.1:1", "h1", "token")
    app = console_app(controller.has_token, lambda server_id: logs.get(server_id, b""), NO_SCREENS)
    good = {"X-Cumulet-Host": "h1", "X-Cumulet-Host-Token": "token"}
    assert get(app, "/servers/s/console", good) == (200, b"one\ntwo\nthree\n")
    assert get(app, "/servers/s/console?length=2", good) == (200, b"three\n")
    assert get(app, "/servers/s/console?length=0", good) == (200, b"")
    assert get(app, "/servers/s/console?length=-1", good) == (200, b"one\ntwo\nthree\n")
    assert get(app, "/servers/other/console", good) == (200, b"")
    assert get(app, "/servers/s/console?length=x", good)[0] == 400
    assert get(app, "/servers/..%2f..%2fetc/console", good)[0] == 404
    assert get(app, "/healthcheck", {}) == (200, b"OK")
    for bad in ({}, {**good, "X-Cumulet-Host-Token": "guess"}, {**good, "X-Cumulet-Host": "h2"}):
        assert get(app, "/servers/s/console", bad)[0] == 401


def test_the_console_of_a_hypervisor_that_does_not_answer_is_a_503() -> None:
    def read_log(server_id: str) -> bytes:
        raise (Retry if server_id == "s" else Terminal)("libvirt does not answer")

    app = console_app(lambda host, token: True, read_log, NO_SCREENS)
    assert get(app, "/servers/s/console", {}) == (503, b"libvirt does not answer")


def test_diagnostics_are_for_the_controller_only() -> None:
    used = Diagnostics((7,), 512, 100, (), ())

    def diagnose(server_id: str) -> Diagnostics | None:
        if server_id == "lost":
            raise Retry("libvirt does not answer")
        return used if server_id == "s" else None

    controller = Controller("nova-conductor", "http://127.0.0.1:1", "h1", "token")
    app = console_app(controller.has_token, lambda server_id: b"", NO_SCREENS, diagnose)
    good = {"X-Cumulet-Host": "h1", "X-Cumulet-Host-Token": "token"}
    assert get(app, "/servers/s/diagnostics", good) == (200, encode(used))
    assert get(app, "/servers/off/diagnostics", good)[0] == 404
    assert get(app, "/servers/lost/diagnostics", good) == (503, b"libvirt does not answer")
    assert get(app, "/servers/s/diagnostics", {**good, "X-Cumulet-Host-Token": "guess"})[0] == 401


def test_the_boot_id_changes_with_the_kernel_and_with_the_node(tmp_path: Path) -> None:
    kernel = tmp_path / "boot_id"
    kernel.write_text("one\n")
    first = read_boot_id(tmp_path, kernel)
    assert read_boot_id(tmp_path, kernel) == first
    (tmp_path / "guests.epoch").write_text("2")
    second = read_boot_id(tmp_path, kernel)
    kernel.write_text("two\n")
    assert len({first, second, read_boot_id(tmp_path, kernel)}) == 3


def test_files_are_for_who_has_the_ticket(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(b"the disk")
    tickets = {"s": "ticket", "stays": ""}

    def ticket_of(server_id: str) -> str:
        if server_id == "unknown":
            raise Retry("nova-conductor does not answer")
        return tickets.get(server_id, "")

    gifts = Gifts(ticket_of, lambda server_id, name: disk if name == "disk" else None)
    app = console_app(lambda host, token: False, lambda server_id: b"", NO_SCREENS, gifts=gifts)
    with serving(app) as port:
        fetch = Fetch("h1", "127.0.0.1", port, "ticket")
        taken: list[bytes] = []
        assert take_file(fetch, "s", "disk", taken.append)
        assert b"".join(taken) == b"the disk"
        for name in ("base", "console.log", "..%2fdisk"):
            assert not take_file(fetch, "s", name, taken.append)
        for server, shown in (("s", ""), ("s", "guess"), ("stays", ""), ("other", ""), ("other", "ticket")):
            with pytest.raises(Retry, match="answers 403"):
                take_file(replace(fetch, ticket=shown), server, "disk", taken.append)
        with pytest.raises(Retry, match="answers 503"):
            take_file(fetch, "unknown", "disk", taken.append)
    with pytest.raises(Retry, match="broke off"):
        take_file(fetch, "s", "disk", taken.append)
    with pytest.raises(Retry, match="has not said where"):
        take_file(replace(fetch, address=""), "s", "disk", taken.append)
