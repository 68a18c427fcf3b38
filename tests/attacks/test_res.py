"""A server that is deleted is gone: in each state, at each moment of its making (RES-1, RES-2, API-4)."""

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from cumulet.core.errors import Retry, Terminal
from cumulet.neutron.model import device_name
from cumulet.sim.world import IMAGE, World

MEMORY = Path("/dev/shm")
Reach = Callable[[World, str], None]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """One cloud for all: each test must leave it clean, or the next one fails too."""
    with TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as place:
        yield World(Path(place))


def delete(world: World, server: str, again: bool = False) -> None:
    status, data, _ = world.nova.call("DELETE", f"/v2.1/servers/{server}", headers={"X-Auth-Token": "alice"})
    assert status == 204 or (again and status == 404), data


def turn(world: World, *names: str, rounds: int = 1) -> None:
    """A little time: one pass of each loop, or of those that are named only."""
    for _ in range(rounds):
        for loop in world.loops:
            if not names or loop.reconciler.name in names:
                loop.resync()
                loop.run_once()
        world.now += 0.1


def check_gone(world: World, server: str, ports: list[str]) -> None:
    """Nothing of it anywhere: rows, claims, guests, disks, taps, devices on the switch, leases, floating IPs."""
    world.settle()
    assert world.status(server) == "gone"
    assert world.left_over() == []
    for host in world.hosts.values():
        for port in ports:
            assert device_name(port) not in host.switch.devices
        assert not host.hypervisor.running
    for url, key in (("/v2.0/ports", "ports"), ("/v2.0/floatingips", "floatingips")):
        for one in world.call(world.neutron, "GET", url)[key]:
            assert server != one.get("device_id")
            assert one.get("port_id") not in ports
    leases = "".join(
        net.read.get("hosts", "") for host in world.hosts.values() for net in host.dhcp.networks.values()
    )
    assert leases.count("\n") <= 1, "the DHCP server itself, and nobody else"


def ports_of(world: World, server: str) -> list[str]:
    return [port["id"] for port in world.call(world.neutron, "GET", f"/v2.0/ports?device_id={server}")["ports"]]


def host_of(world: World, server: str) -> Any:
    return next((host for host in world.hosts.values() if server in host.hypervisor.machines), None)


# ── states ───────────────────────────────────────────────────────────────────────────────────────────────────


def active(world: World, server: str) -> None:
    world.settle()
    assert world.status(server) == "ACTIVE"


def unplaced(world: World, server: str) -> None:
    assert world.status(server) == "BUILD"


def placed(world: World, server: str) -> None:
    turn(world, "place")


def failing(method: str, error: Exception, expected: str) -> Reach:
    def reach(world: World, server: str) -> None:
        for host in world.hosts.values():
            host.hypervisor.fail_next(method, *[error] * 3)
        turn(world, rounds=4)
        assert world.status(server) == expected
        for host in world.hosts.values():
            host.hypervisor._failures.clear()

    return reach


def unwired(world: World, server: str) -> None:
    """The switch is away, so the server waits for its ports; it comes back after the order to delete."""
    for host in world.hosts.values():
        host.switch.away = True
    turn(world, rounds=4)
    assert world.status(server) == "BUILD"


def stopped(world: World, server: str) -> None:
    active(world, server)
    world.act(server, "os-stop")
    world.settle()
    assert world.status(server) == "SHUTOFF"


def stopping(world: World, server: str) -> None:
    active(world, server)
    host_of(world, server).hypervisor.deaf.add(server)
    world.act(server, "os-stop")
    turn(world, "servers", rounds=2)


def starting(world: World, server: str) -> None:
    stopped(world, server)
    world.act(server, "os-start")


def rebooting(kind: str, rounds: int) -> Reach:
    def reach(world: World, server: str) -> None:
        active(world, server)
        world.act(server, "reboot", {"type": kind})
        turn(world, "servers", rounds=rounds)

    return reach


def ended(state: str) -> Reach:
    def reach(world: World, server: str) -> None:
        active(world, server)
        host_of(world, server).hypervisor.end_guest(server, state)
        turn(world, rounds=2)

    return reach


def attaching(world: World, server: str) -> None:
    active(world, server)
    body = {"interfaceAttachment": {"net_id": world.base["network"]}}
    world.call(world.nova, "POST", f"/v2.1/servers/{server}/os-interface", body)


def detaching(world: World, server: str) -> None:
    active(world, server)
    world.call(world.nova, "DELETE", f"/v2.1/servers/{server}/os-interface/{ports_of(world, server)[0]}")


def with_floating(world: World, server: str) -> None:
    active(world, server)
    wish = {"floating_network_id": world.base["public"], "port_id": ports_of(world, server)[0]}
    world.call(world.neutron, "POST", "/v2.0/floatingips", {"floatingip": wish})
    world.settle()


def portless(world: World, server: str) -> None:
    """Its port was deleted behind its back."""
    active(world, server)
    world.call(world.neutron, "DELETE", f"/v2.0/ports/{ports_of(world, server)[0]}")
    turn(world, rounds=2)


def powerless(world: World, server: str) -> None:
    active(world, server)
    for host in world.hosts.values():
        host.cut_power()


def twice(world: World, server: str) -> None:
    """Deleted already, halfway; the second order finds the first one."""
    active(world, server)
    delete(world, server)
    turn(world, "servers")


def diskless(world: World, server: str) -> None:
    stopped(world, server)
    host_of(world, server).hypervisor.machines[server].disk = None


STATES: dict[str, Reach] = {
    "unplaced": unplaced, "placed": placed, "active": active, "stopped": stopped, "stopping": stopping,
    "starting": starting, "soft reboot ordered": rebooting("SOFT", 0), "hard reboot ordered": rebooting("HARD", 0),
    "rebooting": rebooting("HARD", 1), "crashed": ended("crashed"), "shut down by its guest": ended("off"),
    "attaching a port": attaching, "detaching a port": detaching, "with a floating IP": with_floating,
    "its port is gone": portless, "after a power cut": powerless, "being deleted": twice,
    "its disk is gone": diskless, "no disk yet": failing("make_disk", Retry("later"), "BUILD"),
    "no tap yet": failing("plug", Retry("later"), "BUILD"),
    "no domain yet": failing("define", Retry("later"), "BUILD"),
    "not started": failing("start", Retry("later"), "BUILD"), "not wired": unwired,
    "error of its image": failing("make_disk", Terminal("bad image"), "ERROR"),
    "error at its start": failing("start", Terminal("cannot"), "ERROR"),
    "a bug": failing("plug", ValueError("x"), "BUILD"),
}  # fmt: skip
MEANWHILE = ("its host is dead for a while", "destroy fails twice and all processes die")


def tidy(world: World, before: set[str]) -> None:
    """Failures that nobody met are forgotten; addresses that were made are free, and go."""
    for host in world.hosts.values():
        host.hypervisor._failures.clear()
        host.hypervisor.deaf.clear()
    for one in world.call(world.neutron, "GET", "/v2.0/floatingips")["floatingips"]:
        if one["id"] not in before:
            assert one["port_id"] is None
            world.call(world.neutron, "DELETE", f"/v2.0/floatingips/{one['id']}")
    world.settle()


@pytest.mark.parametrize("meanwhile", MEANWHILE)
@pytest.mark.parametrize("state", STATES)
def test_deleted_in_each_state(world: World, state: str, meanwhile: str) -> None:
    before = {one["id"] for one in world.call(world.neutron, "GET", "/v2.0/floatingips")["floatingips"]}
    server = world.create_server("vm")
    STATES[state](world, server)
    ports = ports_of(world, server)
    dead = []
    if meanwhile == "destroy fails twice and all processes die":
        for host in world.hosts.values():
            host.hypervisor.fail_next("destroy", Retry("busy"), OSError("busy"))
    if meanwhile == "its host is dead for a while":
        dead = [loop for loop in world.loops if any(t.endswith((".h1", ".h2")) for t in loop.reconciler.topics)]
        world.loops = [loop for loop in world.loops if loop not in dead]
    delete(world, server, again=state == "being deleted")
    delete(world, server, again=True)
    for host in world.hosts.values():
        host.switch.away = False
    if not dead:
        turn(world)
        world.boot()
    if dead:
        turn(world, rounds=3)
        if host_of(world, server) is not None:
            assert world.status(server) != "gone", "what its host may still run is not released"
        world.loops += dead
    check_gone(world, server, ports)
    tidy(world, before)


def test_no_room_then_deleted(world: World) -> None:
    flavor = {"name": "huge", "ram": 40000, "vcpus": 1, "disk": 1, "id": "9"}
    world.call(world.nova, "POST", "/v2.1/flavors", {"flavor": flavor}, "admin")
    server = world.create_server("vm", flavorRef="9")
    world.settle()
    assert world.status(server) == "ERROR"
    ports = ports_of(world, server)
    delete(world, server)
    check_gone(world, server, ports)


# ── each moment of its making, and of what follows ───────────────────────────────────────────────────────────


@pytest.mark.parametrize("act", ["make", "os-stop", "reboot"])
def test_deleted_after_each_effect(world: World, act: str) -> None:
    """The order comes between any two lasting changes, of the database or of a host."""

    def interrupt() -> None:
        for one in world.call(world.nova, "GET", "/v2.1/servers")["servers"]:
            delete(world, one["id"])

    tried = 0
    while True:
        server = "" if act == "make" else world.create_server("vm")
        world.settle()
        world.effects.log.clear()
        world.effects.interrupt_at, world.effects.interrupt = tried, interrupt
        if server:
            world.act(server, act, {"type": "HARD"} if act == "reboot" else None)
        else:
            server = world.create_server("vm")
        world.settle()
        if world.effects.interrupt_at is not None:
            break  # there is no such moment: all were tried
        check_gone(world, server, [])
        tried += 1
    world.effects.interrupt_at = None
    assert tried > (5 if act == "make" else 1)
    delete(world, server)
    check_gone(world, server, [])


def test_a_users_own_port_comes_back_whole(world: World) -> None:
    """What nova did not make it does not take away: its port is free and can be used again."""
    port = world._make("port", {"network_id": world.base["network"]})
    for _ in range(2):
        server = world.create_server("vm", networks=[{"port": port}], imageRef=IMAGE)
        world.settle()
        assert world.status(server) == "ACTIVE"
        delete(world, server)
        world.settle()
        shown = world.call(world.neutron, "GET", f"/v2.0/ports/{port}")["port"]
        assert (shown["device_id"], shown["device_owner"], shown["status"]) == ("", "", "DOWN")
        assert world.left_over() == []
    world.call(world.neutron, "DELETE", f"/v2.0/ports/{port}")
