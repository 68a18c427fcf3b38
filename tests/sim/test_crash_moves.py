"""As ``test_crash``, for servers that move: everything dies before or after every lasting change.

The simulated hosts insist that no server runs on two of them, and that no disk is fetched from under a guest.
"""

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from msgspec.structs import replace

from cumulet.core.tables import agents
from cumulet.nova.model import STORE
from cumulet.nova.tables import migrations
from cumulet.sim.effects import Crash
from cumulet.sim.guests import INVENTORY
from cumulet.sim.machine import Machine
from cumulet.sim.world import World
from tests.sim.copies import Prepared
from tests.sim.test_crash import Operation, act, delete, effects_of, find, gone, run

ADMIN = {"X-Auth-Token": "admin", "OpenStack-API-Version": "compute 2.67"}
BIGGER = {"flavorRef": "2"}
OVER = ("completed", "cancelled", "error")


def running(world: World) -> None:
    """A server on the first host, so that each run has the same effects."""
    _change(world, "h2", {"enabled": False})
    world.create_server()
    world.settle()
    _change(world, "h2", {"enabled": True})


def alone_on_its_host(world: World) -> None:
    """The only host that may take anything is the server's own."""
    running(world)
    _change(world, "h2", {"enabled": False})


def _change(world: World, host: str, values: dict[str, Any]) -> None:
    with world.db.transaction() as tx:
        where = sa.and_(agents.c.binary == "nova-compute", agents.c.host == host)
        tx.write(sa.update(agents).where(where).values(values))


def moved(prepare: Callable[[World], None], action: str, value: Any = None) -> Callable[[World], None]:
    """After another operation."""

    def prepared(world: World) -> None:
        prepare(world)
        world.act(find(world), action, value, user="admin")
        world.settle()

    return prepared


def as_admin(action: str, value: Any = None) -> Callable[[World], None]:
    def ask(world: World) -> None:
        url = f"/v2.1/servers/{find(world)}/action"
        status, data, _ = world.nova.call("POST", url, {action: value}, ADMIN)
        assert status in (200, 202, 204, 409), data

    return ask


def machines(world: World) -> dict[str, Machine]:
    """The server, as each host has it."""
    server = find(world)
    parts = {name: host.hypervisor.machines.get(server) for name, host in world.hosts.items()}
    return {name: one for name, one in parts.items() if one}


def sized(
    status: str, memory_mb: int, boots: int, copies: int, hosts: int, state: str = "on"
) -> Callable[[World], None]:
    """One host runs it with so much memory, from a disk that has seen so many boots; the others are quiet."""

    def check(world: World) -> None:
        server = find(world)
        shown = world.call(world.nova, "GET", f"/v2.1/servers/{server}", user="admin")["server"]
        assert (shown["status"], shown["OS-EXT-STS:task_state"]) == (status, None)
        found = machines(world)
        assert len(found) == hosts
        here = found[shown["OS-EXT-SRV-ATTR:host"]]
        assert [one.state for one in found.values() if one is not here] == ["off"] * (hosts - 1)
        assert (here.state, here.memory_mb, here.boots) == (state, memory_mb, boots)
        assert sum(one.before is not None for one in found.values()) == copies
        assert shown["flavor"]["ram"] == (memory_mb or shown["flavor"]["ram"])
        (port,) = world.call(world.neutron, "GET", f"/v2.0/ports?device_id={server}", user="admin")["ports"]
        assert port["binding:host_id"] == shown["OS-EXT-SRV-ATTR:host"]
        assert {p for host in world.hosts.values() for p in host.hypervisor.taps} == {port["id"]}

    return check


def live(world: World) -> dict[str, Any]:
    """The server's latest migration."""
    found: dict[str, Any] = world.call(world.nova, "GET", "/v2.1/os-migrations", user="admin")["migrations"][0]
    return found


def cancel(world: World) -> None:
    """Unless it is over."""
    url = f"/v2.1/servers/{find(world)}/migrations/{live(world)['id']}"
    status, data, _ = world.nova.call("DELETE", url, headers=ADMIN)
    assert status in (202, 400, 409), data


def set_out_and_back(world: World) -> None:
    """Ordered once, and cancelled while it is sent."""
    if not world.call(world.nova, "GET", "/v2.1/os-migrations", user="admin")["migrations"]:
        send(world)
    world.run_until(lambda: goes(world) or live(world)["status"] in OVER, step=0.5, rounds=400)
    cancel(world)


def goes(world: World) -> bool:
    return any(one.progress for one in machines(world).values())


def runs_on(*statuses: str) -> Callable[[World], None]:
    """As it was, without a boot, on one of the hosts."""

    def check(world: World) -> None:
        sized("ACTIVE", 512, 1, 0, 1)(world)
        assert live(world)["status"] in statuses
        assert (live(world)["status"] == "completed") == ("h2" in machines(world))

    return check


def on_a_dead_host(world: World) -> None:
    """Its host has lost power, and an administrator has said so."""
    running(world)
    world.hosts["h1"].cut_power()
    world.stop_agents("h1")


def on_a_dead_host_that_shared(world: World) -> None:
    """The same, where the hosts have their servers' disks on one file system."""
    for host in world.hosts.values():
        host.hypervisor.change_inventory(replace(INVENTORY, details={STORE: "a file system"}))
    world.settle()
    on_a_dead_host(world)


def resize_in_vain(world: World) -> None:
    """Its destination loses its power before it knows of it."""
    act("resize", BIGGER)(world)
    for loop, owner in zip(world.loops, world.owners, strict=True):
        if owner == "nova-scheduler":
            loop.run_once()
    world.hosts["h2"].cut_power()
    world.stop_agents("h2")


def is_back(world: World, hosts: int = 1) -> None:
    """Of its old size on its old host, which may have switched it off meanwhile."""
    boots = machines(world)["h1"].boots
    assert boots in (1, 2)
    sized("ACTIVE", 512, boots, 0, hosts)(world)


send = as_admin("os-migrateLive", {"host": None, "block_migration": "auto"})
LIVELY = Operation("live", send, runs_on("completed", "error"), running)
resized = moved(running, "resize", BIGGER)
resized_here = moved(alone_on_its_host, "resize", BIGGER)
MIGRATE = Operation("migrate", as_admin("migrate"), sized("VERIFY_RESIZE", 512, 2, 0, 2), running)
OPERATIONS = (
    Operation("resize", act("resize", BIGGER), sized("VERIFY_RESIZE", 1024, 2, 0, 2), running),
    Operation("confirm", act("confirmResize"), sized("ACTIVE", 1024, 2, 0, 1), resized),
    Operation("revert", act("revertResize"), sized("ACTIVE", 512, 2, 0, 1), resized),
    Operation("resize here", act("resize", BIGGER), sized("VERIFY_RESIZE", 1024, 2, 1, 1), alone_on_its_host),
    Operation("confirm here", act("confirmResize"), sized("ACTIVE", 1024, 2, 0, 1), resized_here),
    Operation("revert here", act("revertResize"), sized("ACTIVE", 512, 2, 0, 1), resized_here),
    MIGRATE,
    Operation("delete on trial", delete, gone, resized),
    Operation("fall back", resize_in_vain, is_back, running),
    LIVELY,
    Operation("cancel", set_out_and_back, runs_on(*OVER), running),
    Operation("evacuate", as_admin("evacuate", {}), sized("ACTIVE", 512, 1, 0, 2), on_a_dead_host),
    Operation("inherit", as_admin("evacuate", {}), sized("ACTIVE", 512, 2, 0, 2), on_a_dead_host_that_shared),
)


def first_of(operation: Operation) -> int:
    """What comes before a cancelled migration is sent is tried with one that is not cancelled."""
    names = [effect.split()[0] for effect in effects_of(operation)]
    return names.index("send") if operation.name == "cancel" else 0


CASES = [(one, number) for one in OPERATIONS for number in range(first_of(one), len(effects_of(one)))]
MOMENTS = range(len(effects_of(LIVELY)))
FETCHED = next(number for number, effect in enumerate(effects_of(MIGRATE)) if effect.startswith("fetched disk"))


@pytest.mark.parametrize(("when", "hints"), [("before", True), ("after", False)], ids=["before", "after, no hints"])
@pytest.mark.parametrize(("operation", "number"), CASES, ids=[f"{o.name}-{n}" for o, n in CASES])
def test_crash(prepared: Prepared, operation: Operation, number: int, when: str, hints: bool) -> None:
    world = prepared(operation.prepare, hints)
    world.effects.crash_at = (len(world.effects.log) + number, when)
    run(world, operation)
    assert world.effects.crash_at is None, "the crash point was never reached"
    if world.dead:  # it comes back, and destroys what is not its own any more
        world.start_agents()
        world.settle()
        assert len(machines(world)) == 1
    world.survive(lambda: delete(world))
    world.survive(world.settle)
    assert world.left_over() == []


@pytest.mark.parametrize(
    ("change", "number"),
    [*((cancel, number) for number in MOMENTS), *((delete, number) for number in MOMENTS[::2])],
)
def test_a_change_of_mind_on_its_way(prepared: Prepared, number: int, change: Callable[[World], None]) -> None:
    """Everybody else reacts in the middle of somebody's work."""
    world = prepared(running, number % 2 == 0)

    def change_of_mind() -> None:
        if world.call(world.nova, "GET", "/v2.1/os-migrations", user="admin")["migrations"]:
            change(world)
        for loop in world.loops:
            if loop.reconciler.name != "servers":
                loop.resync()
                loop.run_once()

    world.effects.interrupt_at, world.effects.interrupt = len(world.effects.log) + number, change_of_mind
    send(world)
    world.settle()
    assert world.effects.interrupt_at is None, "never reached"
    if change is cancel:
        runs_on(*OVER)(world)
        delete(world)
        world.settle()
    gone(world)


@pytest.mark.parametrize("number", MOMENTS)
@pytest.mark.parametrize("name", ["h1", "h2"])
def test_a_host_loses_power_on_its_way(prepared: Prepared, number: int, name: str) -> None:
    """One host runs the server then, from the disk that it ran on last."""
    world = prepared(running, number % 2 == 0)

    def go_dark() -> None:
        world.hosts[name].cut_power()
        raise Crash

    world.effects.interrupt_at, world.effects.interrupt = len(world.effects.log) + number, go_dark
    world.survive(lambda: send(world))
    world.survive(world.settle)
    assert world.effects.interrupt_at is None, "never reached"
    ((_, here),) = machines(world).items()
    sized("ACTIVE", 512, here.boots, 0, 1)(world)
    assert here.boots in (1, 2)
    delete(world)
    world.settle()
    gone(world)


@pytest.mark.parametrize("number", range(len(effects_of(MIGRATE))))
def test_a_destination_dies_for_good(prepared: Prepared, number: int) -> None:
    """Nobody waits for it as long as it was not told that the server may run there."""
    world = prepared(running, number % 2 == 0)
    world.effects.crash_at = (len(world.effects.log) + number, "after")
    with pytest.raises(Crash):
        MIGRATE.ask(world)
        world.settle()
    world.hosts["h2"].cut_power()
    world.stop_agents("h2")
    MIGRATE.ask(world)
    world.settle()
    with world.db.read() as tx:
        begun = tx.value(sa.select(migrations.c.held).order_by(migrations.c.id.desc())) is False
    assert number > FETCHED or not begun
    if not begun:
        is_back(world, len(machines(world)))
    world.start_agents()
    world.settle()
    if begun:
        assert world.status(find(world)) == "VERIFY_RESIZE"
    else:
        is_back(world)
    delete(world)
    world.settle()
    gone(world)
