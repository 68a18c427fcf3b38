"""Everything dies before or after every single lasting change; it must end up the same.

For each operation a run without a crash counts its effects (commits, and changes of a host); then the operation is
run once for each effect, dying just before and just after it, with hints and without.  The user repeats a request
that died on the way.  Afterwards: nothing is stuck, nothing is left over, and three passes write nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import sqlalchemy as sa

from cumulet.glance.tables import images
from cumulet.nova.tables import console_tokens
from cumulet.sim.host import SimHost
from cumulet.sim.machine import Machine
from cumulet.sim.world import OTHER_IMAGE, World
from tests.nova.consoles import token_of
from tests.sim.copies import MEMORY, Prepared, as_after, nothing


@dataclass(frozen=True)
class Operation:
    """``prepare`` happens undisturbed; ``ask`` may be repeated by the user; ``check`` says what must be so."""

    name: str
    ask: Callable[[World], None]
    check: Callable[[World], None]
    prepare: Callable[[World], None] = nothing


def find(world: World) -> str:
    servers = world.call(world.nova, "GET", "/v2.1/servers")["servers"]
    return str(servers[0]["id"]) if servers else ""


def running(world: World) -> None:
    world.create_server()
    world.settle()


def boot(world: World) -> None:
    world.create_server()


def stopped(world: World) -> None:
    running(world)
    world.act(find(world), "os-stop")
    world.settle()


def standing_still(world: World) -> None:
    running(world)
    world.act(find(world), "pause")
    world.settle()


def sleeping(world: World) -> None:
    running(world)
    world.act(find(world), "suspend")
    world.settle()


def with_floating_ip(world: World) -> None:
    running(world)
    wish = {"floating_network_id": world.base["public"]}
    world.call(world.neutron, "POST", "/v2.0/floatingips", {"floatingip": wish})
    world.settle()


def act(action: str, value: Any = None) -> Callable[[World], None]:
    """The action, unless an earlier try got through: then upstream answers 409 and the user is content."""

    def ask(world: World) -> None:
        body = {action: value}
        status, _, _ = world.nova.call(
            "POST", f"/v2.1/servers/{find(world)}/action", body, {"X-Auth-Token": "alice"}
        )
        assert status in (202, 204, 409)

    return ask


def attach(world: World) -> None:
    """Another port, unless there is one already."""
    url = f"/v2.1/servers/{find(world)}/os-interface"
    if len(world.call(world.nova, "GET", url)["interfaceAttachments"]) == 1:
        world.call(world.nova, "POST", url, {"interfaceAttachment": {"net_id": world.base["network"]}})


def with_two_ports(world: World) -> None:
    running(world)
    attach(world)
    world.settle()


def detach(world: World) -> None:
    url = f"/v2.1/servers/{find(world)}/os-interface"
    found = world.call(world.nova, "GET", url)["interfaceAttachments"]
    if len(found) == 2:
        world.call(world.nova, "DELETE", f"{url}/{found[0]['port_id']}")


def delete(world: World) -> None:
    if server := find(world):
        status, _, _ = world.nova.call("DELETE", f"/v2.1/servers/{server}", headers={"X-Auth-Token": "alice"})
        assert status in (204, 404)


def floating(world: World) -> dict[str, Any]:
    found: dict[str, Any] = world.call(world.neutron, "GET", "/v2.0/floatingips")["floatingips"][0]
    return found


def associate(world: World) -> None:
    body = {"floatingip": {"port_id": world.port_of(find(world))["id"]}}
    world.call(world.neutron, "PUT", f"/v2.0/floatingips/{floating(world)['id']}", body)


def is_now(status: str) -> Callable[[World], None]:
    def check(world: World) -> None:
        assert world.status(find(world)) == status

    return check


def gone(world: World) -> None:
    assert find(world) == ""
    assert world.left_over() == []


def associated(world: World) -> None:
    assert floating(world)["status"] == "ACTIVE"


def second_subnet(world: World) -> str:
    """Another network of Alice's, with an IPv6 subnet that a router would advertise; the subnet's id."""
    for subnet in world.call(world.neutron, "GET", "/v2.0/subnets?name=second")["subnets"]:
        return str(subnet["id"])
    network = world.call(world.neutron, "POST", "/v2.0/networks", {"network": {"name": "second"}})["network"]["id"]
    wish = {"name": "second", "network_id": network, "ip_version": 6, "cidr": "fd02::/64",
            "ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"}  # fmt: skip
    return str(world.call(world.neutron, "POST", "/v2.0/subnets", {"subnet": wish})["subnet"]["id"])


def without_interface(world: World) -> None:
    second_subnet(world)
    world.settle()


def with_interface(world: World) -> None:
    without_interface(world)
    interface("add")(world)
    world.settle()


def interfaces(world: World) -> list[str]:
    url = f"/v2.0/ports?device_id={world.base['router']}&fixed_ips=subnet_id={second_subnet(world)}"
    return [str(port["id"]) for port in world.call(world.neutron, "GET", url)["ports"]]


def interface(verb: str) -> Callable[[World], None]:
    """Add or remove the router's interface, unless an earlier try got through."""

    def ask(world: World) -> None:
        if bool(interfaces(world)) != (verb == "add"):
            path = f"/v2.0/routers/{world.base['router']}/{verb}_router_interface"
            world.call(world.neutron, "PUT", path, {"subnet_id": second_subnet(world)})

    return ask


def routed(world: World) -> None:
    """One host has the router with the interface, advertises there, and has wired it."""
    (port,) = interfaces(world)
    host = bearer(world)
    router = host.routers.routers[world.base["router"]]
    assert port in router.devices
    assert any("fd02::,ra-only" in word for word in router.advertising)
    assert host.switch.is_wired(port)
    assert world.call(world.neutron, "GET", f"/v2.0/ports/{port}")["port"]["status"] == "ACTIVE"


def not_routed(world: World) -> None:
    assert interfaces(world) == []
    router = bearer(world).routers.routers[world.base["router"]]
    assert len(router.devices) == 2  # the gateway and the first subnet's
    assert router.advertising == ()


def bearer(world: World) -> SimHost:
    """The one host that has the router."""
    (host,) = (host for host in world.hosts.values() if world.base["router"] in host.routers.routers)
    return host


def ask_for_console(world: World) -> None:
    wish = {"remote_console": {"protocol": "vnc", "type": "novnc"}}
    url = world.call(world.nova, "POST", f"/v2.1/servers/{find(world)}/remote-consoles", wish)["remote_console"][
        "url"
    ]
    world.console = token_of(url)


def looking(world: World) -> None:
    running(world)
    ask_for_console(world)


def opened(world: World) -> None:
    url = f"/v2.1/os-console-auth-tokens/{world.console}"
    assert world.call(world.nova, "GET", url, user="admin")["console"]["instance_uuid"] == find(world)


def take_console(world: World) -> None:
    """A browser comes once; a token that was lost on the way stays lost."""
    world.console_tokens.take(world.console)


def used_up(world: World) -> None:
    assert world.console_tokens.take(world.console) is None


def stopped_and_shut(world: World) -> None:
    is_now("SHUTOFF")(world)
    with world.db.read() as tx:
        assert tx.all(sa.select(console_tokens)) == []


def machine(world: World) -> Machine:
    server = find(world)
    return next(h.hypervisor.machines[server] for h in world.hosts.values() if server in h.hypervisor.machines)


def has_ports(number: int) -> Callable[[World], None]:
    """The API, the guest and the switch agree on its ports; it has run all the time."""

    def check(world: World) -> None:
        ports = world.call(world.neutron, "GET", f"/v2.0/ports?device_id={find(world)}")["ports"]
        assert [port["status"] for port in ports] == ["ACTIVE"] * number
        taps = {port for host in world.hosts.values() for port in host.hypervisor.taps}
        assert machine(world).nics == taps == {port["id"] for port in ports}
        assert (world.status(find(world)), machine(world).starts) == ("ACTIVE", 1)

    return check


def rebuilt(status: str) -> Callable[[World], None]:
    def check(world: World) -> None:
        assert world.status(find(world)) == status
        assert machine(world).disk == OTHER_IMAGE
        shown = world.call(world.nova, "GET", f"/v2.1/servers/{find(world)}")["server"]
        assert (shown["image"]["id"], shown["OS-EXT-STS:task_state"]) == (OTHER_IMAGE, None)

    return check


def has_an_image(status: str) -> Callable[[World], None]:
    """Every image that was asked for has its data; its copy on the host is gone."""

    def check(world: World) -> None:
        assert world.status(find(world)) == status
        made = sa.select(images.c.stored_at).where(images.c.name == "snapshot")
        with world.db.read() as tx:
            found = tx.all(made)
        assert found
        assert all(row.stored_at for row in found)
        assert machine(world).copies == set()

    return check


def has_one_backup(world: World) -> None:
    """However often it was asked for, the newest one is there and the others are gone."""
    assert world.status(find(world)) == "ACTIVE"
    made = sa.select(images.c.stored_at).where(images.c.name == "backup", images.c.deleted_at.is_(None))
    with world.db.read() as tx:
        (found,) = tx.all(made)
    assert found.stored_at
    assert machine(world).copies == set()


BACKUP = {"name": "backup", "backup_type": "daily", "rotation": 1}
REBUILD, SNAPSHOT = {"imageRef": OTHER_IMAGE}, {"name": "snapshot"}
OPERATIONS = (
    Operation("boot", boot, is_now("ACTIVE")),
    Operation("delete", delete, gone, running),
    Operation("stop", act("os-stop"), is_now("SHUTOFF"), running),
    Operation("start", act("os-start"), is_now("ACTIVE"), stopped),
    Operation("pause", act("pause"), is_now("PAUSED"), running),
    Operation("unpause", act("unpause"), is_now("ACTIVE"), standing_still),
    Operation("suspend", act("suspend"), is_now("SUSPENDED"), running),
    Operation("resume", act("resume"), is_now("ACTIVE"), sleeping),
    Operation("reboot asleep", act("reboot", {"type": "HARD"}), is_now("ACTIVE"), sleeping),
    Operation("delete asleep", delete, gone, sleeping),
    Operation("attach", attach, has_ports(2), running),
    Operation("detach", detach, has_ports(1), with_two_ports),
    Operation("rebuild", act("rebuild", REBUILD), rebuilt("ACTIVE"), running),
    Operation("rebuild off", act("rebuild", REBUILD), rebuilt("SHUTOFF"), stopped),
    Operation("snapshot", act("createImage", SNAPSHOT), has_an_image("ACTIVE"), running),
    Operation("snapshot asleep", act("createImage", SNAPSHOT), has_an_image("SUSPENDED"), sleeping),
    Operation("backup", act("createBackup", BACKUP), has_one_backup, running),
    Operation("soft reboot", act("reboot", {"type": "SOFT"}), is_now("ACTIVE"), running),
    Operation("hard reboot", act("reboot", {"type": "HARD"}), is_now("ACTIVE"), running),
    Operation("console", ask_for_console, opened, running),
    Operation("open console", take_console, used_up, looking),
    Operation("stop with a console", act("os-stop"), stopped_and_shut, looking),
    Operation("associate", associate, associated, with_floating_ip),
    Operation("add interface", interface("add"), routed, without_interface),
    Operation("remove interface", interface("remove"), not_routed, with_interface),
)


def run(world: World, operation: Operation) -> None:
    world.survive(lambda: operation.ask(world))
    world.survive(world.settle)
    operation.check(world)


@cache
def effects_of(operation: Operation) -> tuple[str, ...]:
    with TemporaryDirectory(dir=MEMORY) as place:
        world = as_after(operation.prepare, Path(place))  # any database has the same effects
        before = len(world.effects.log)
        run(world, operation)
        return tuple(world.effects.log[before:])


CASES = [(operation, number) for operation in OPERATIONS for number in range(len(effects_of(operation)))]


@pytest.mark.parametrize("hints", [True, False], ids=["hints", "no hints"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("operation", "number"), CASES, ids=[f"{o.name}-{n}" for o, n in CASES])
def test_crash(prepared: Prepared, operation: Operation, number: int, when: str, hints: bool) -> None:
    world = prepared(operation.prepare, hints)
    world.effects.crash_at = (len(world.effects.log) + number, when)
    run(world, operation)
    assert world.effects.crash_at is None, "the crash point was never reached"
    world.survive(lambda: delete(world))
    world.survive(world.settle)
    assert world.left_over() == []


@pytest.mark.parametrize("number", range(len(effects_of(OPERATIONS[0]))))
@pytest.mark.parametrize("hints", [True, False], ids=["hints", "no hints"])
def test_deleted_in_the_middle_of_its_boot(prepared: Prepared, number: int, hints: bool) -> None:
    """The user changes their mind, and everybody else reacts, in the middle of somebody's work."""
    world = prepared(nothing, hints)

    def change_of_mind() -> None:
        delete(world)
        for loop in world.loops:
            if loop.reconciler.name != "servers":
                loop.resync()
                loop.run_once()

    world.effects.interrupt_at, world.effects.interrupt = number, change_of_mind
    world.create_server()
    world.settle()
    assert world.effects.interrupt_at is None, "never reached"
    gone(world)
